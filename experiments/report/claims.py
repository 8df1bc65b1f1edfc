"""The claims of `results/claims.md`, each with its tests, from the records alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import exp, isinf, isnan, log
from typing import NamedTuple

from experiments.markdown import grid
from experiments.records import Records
from experiments.report.cells import noted
from experiments.report.measures import headline, lower_is_better, moment, reach, valued
from experiments.report.sections import Column, Section
from experiments.report.statistics import LEVEL, MARGIN, Effect, effect, holm, shown, verdict

__all__ = [
    "CLAIMS",
    "Claim",
    "Test",
    "Tests",
    "accuracy",
    "averaged",
    "claims",
    "compared",
    "cooled",
    "differences",
    "judged",
    "table",
]

Measure = Callable[[Records, Column], float | None]

FAST = 0.01  # the training loss to which the steps are counted
_NOTE = """
Differences within a seed, positive where the claim is right: points of accuracy with their 95 %
interval, or (x) a ratio. p is that of all flips of the signs, then the same after Holm over the
{tests}. *Held* is a claim at p below 0.05; a tie is held too where the difference is shown to be
less than {margin} points, by two one-sided tests with a Holm of their own over the {alike}. A miss
of a target is infinite; where there is one, pairs are compared by their order alone. *Too few
seeds* could show nothing, whatever came out; what is *measured* is not tested. While any run of
the study is missing, each test that has runs is *under way*. There is *no number* where too few
runs come to what is measured.
"""


class Test(NamedTuple):
    """One test of a claim.

    Attributes:
        title: on what it is made.
        differences: a number for each seed, positive where the claim is right; none where a run
            that it takes is missing.
        order: whether these are signs alone.
        margin: whether they can be points of accuracy, of which so many make no difference.
    """

    title: str
    differences: Sequence[float]
    order: bool = False
    margin: bool = True


Tests = Callable[[Section], Iterable[Test]]


class Claim(NamedTuple):
    """What is claimed.

    Attributes:
        name: as in `results/claims.md`.
        says: the claim.
        tests: of it, those for which there should be runs.
        tie: whether as good is good enough.
        kind: what the differences are: `points` of accuracy, logarithms of a `ratio`, or `plain`.
        tested: whether a test says what has become of it; otherwise it is a number and no more.
    """

    name: str
    says: str
    tests: Tests
    tie: bool = False
    kind: str = "points"
    tested: bool = True


def claims(section: Section) -> str:
    """Return each primary claim with its tests, and what has become of it on each task."""
    rows, tests, alike = judged(CLAIMS, section)
    return table(rows, f"{tests} tests", f"{alike} of accuracy")


def table(rows: Sequence[Sequence[str]], tests: str, alike: str) -> str:
    """Return the rows of `judged` as a table, with what Holm is over in the note below."""
    if not rows:
        return "None of these runs is one that a claim is about."
    head = ["", "claim", "task", "pairs", "difference", "p", "Holm", "verdict"]
    return noted(grid(head, rows, words=3), _NOTE.format(tests=tests, alike=alike, margin=MARGIN))


def judged(family: Iterable[Claim], section: Section) -> tuple[list[list[str]], int, int]:
    """Return a row for each test of some claims, with Holm over all of them.

    A test whose runs are missing counts there with a p of 1, and as long as any run of the study
    is missing there is no verdict.

    Returns:
        The rows, and of how many tests, and of how many of equivalence, that Holm is.
    """
    made = [
        (claim, test, _effect(claim, test)) for claim in family for test in claim.tests(section)
    ]
    tested = [each for each in made if each[0].tested]
    margins = [own for claim, test, own in tested if _in_points(claim, test)]
    ps = iter(holm([own.p if own else 1.0 for *_, own in tested]))
    alike = iter(holm([own.p_equivalent if own else 1.0 for own in margins]))
    rows = []
    for claim, test, own in made:
        p = next(ps) if claim.tested else 1.0
        same = next(alike) if claim.tested and _in_points(claim, test) else 1.0
        cells = ["none", *"---", "no number"] if section.complete else ["missing", *"----"]
        if own:
            cells = [f"{own.pairs}", _shown(claim, test, own), "-", "-", "measured"]
        if own and claim.tested:
            said = _said(verdict(own, p, same), own.pairs, len(tested))
            word = _became(claim, said) if section.complete else "under way"
            cells[2:] = [f"{own.p:.2g}", f"{p:.2g}", word]
        rows.append([claim.name, claim.says, test.title, *cells])
    return rows, len(tested), len(margins)


def compared(
    first: str,
    second: str,
    measure: Measure,
    other: Measure | None = None,
    l2: tuple[bool, bool] = (False, False),
) -> Tests:
    """Return the tests of one row against another, on every task that is asked for both.

    Args:
        first: the row that is claimed to be better, as good in a tie.
        second: the other.
        measure: of the first; a number that is better the higher it is.
        other: of the second, where that is another one.
        l2: whether the first, and the second, have an L2 penalty.
    """

    def tests(section: Section) -> Iterator[Test]:
        plain = {
            (column.task, column.measure): column
            for column in section.columns
            if not column.strength
        }
        for column in section.columns:
            beside = column if l2[1] else plain.get((column.task, column.measure), column)
            there = first in column.runs and second in beside.runs
            if bool(column.strength) != l2[0] or not there:
                continue
            ours, theirs = column.runs[first], beside.runs[second]
            both = sorted(ours.keys() & theirs.keys())
            pairs = [
                (measure(ours[seed], column), (other or measure)(theirs[seed], beside))
                for seed in both
            ]
            known = [(one, two) for one, two in pairs if one is not None and two is not None]
            if known or not both:
                points = not lower_is_better(column.measure)
                yield differences(column.title, known)._replace(margin=points)

    return tests


def differences(title: str, pairs: Sequence[tuple[float, float]]) -> Test:
    """Return the test of pairs, by their order alone where one number is infinite."""
    if any(map(isinf, (value for pair in pairs for value in pair))):
        return Test(title, [float((one > two) - (one < two)) for one, two in pairs], order=True)
    return Test(title, [one - two for one, two in pairs])


def _effect(claim: Claim, test: Test) -> Effect | None:
    margin = MARGIN if _in_points(claim, test) else 0.0
    return effect(test.differences, margin) if test.differences else None


def _in_points(claim: Claim, test: Test) -> bool:
    return claim.kind == "points" and test.margin and not test.order


def _shown(claim: Claim, test: Test, found: Effect) -> str:
    if test.order:
        ahead, behind = (sum(sign * each > 0 for each in test.differences) for sign in (1, -1))
        return f"ahead in {ahead}, behind in {behind}"
    if claim.kind != "ratio":
        return shown(found)
    if isnan(found.low):
        return f"x {exp(found.mean):.2f}"
    return f"x {exp(found.mean):.2f} [{exp(found.low):.2f}, {exp(found.high):.2f}]"


def _said(word: str, pairs: int, tests: int) -> str:
    """What has become of it, unless so few pairs could not have shown anything."""
    powerless = tests * 2 / 2**pairs >= LEVEL  # the least p that Holm leaves
    return "too few seeds" if word == "not shown" and powerless else word


def _became(claim: Claim, word: str) -> str:
    if not claim.tie:
        return word
    within = {"equivalent": "held: a tie", "held": "held: better"}
    return "held: a tie" if "margin" in word else within.get(word, word)


def accuracy(run: Records, column: Column) -> float | None:
    """Return the headline, of a loss with its sign turned."""
    value = headline(run, column.measure)
    return -value if value is not None and lower_is_better(column.measure) else value


def averaged(run: Records, column: Column) -> float | None:
    """Return the headline of the average of the weights."""
    return headline(run, f"averaged_{column.measure.removeprefix('test_')}")


def cooled(run: Records, column: Column) -> float | None:
    """Return the measure after the last cooldown."""
    name = f"cooldown_{column.measure.removeprefix('test_')}"
    return valued(run, [line for line in run.evals if name in line][-1:], name)


def _last(run: Records, column: Column) -> float | None:
    return valued(run, run.evals[-1:], column.measure)


def _quick(run: Records, column: Column) -> float | None:
    """Minus the logarithm of the steps to `FAST`; to the column's target where none gets there."""
    every = [each for name in ("zenith", "sgd") for each in column.runs.get(name, {}).values()]
    steps = [reach(each, FAST).steps for each in every]
    if not all(map(isinf, steps)):
        return -log(reach(run, FAST).steps)
    return None if column.target is None else -log(reach(run, column.target, column.measure).steps)


def _flat(run: Records, loss: float | None) -> float | None:
    line = moment(run, "sharpness", loss)
    return -log(line["sharpness"]) if line and line["sharpness"] > 0 else None


def _flat_late(run: Records, _: Column) -> float | None:
    return _flat(run, loss=0.03)


def _flat_at_the_end(run: Records, _: Column) -> float | None:
    return _flat(run, loss=None)


_COSINE, _L2 = "sgd-cosine", (True, False)
CLAIMS = (
    Claim("P1", "ZENITH is more accurate than constant SGD", compared("zenith", "sgd", accuracy)),
    Claim("P2", "ZENITH ties with SGD + cosine", compared("zenith", _COSINE, accuracy), tie=True),
    Claim(
        "P3", "ZENITH is faster than constant SGD", compared("zenith", "sgd", _quick), kind="ratio"
    ),
    Claim("P4", "L2 helps ZENITH", compared("zenith", "zenith", accuracy, l2=_L2)),
    Claim(
        "P5",
        "ZENITH is better than SGD, both with L2",
        compared("zenith", "sgd", accuracy, l2=(True, True)),
    ),
    Claim(
        "P6",
        "ZENITH ends flatter than SGD",
        compared("zenith", "sgd", _flat_at_the_end),
        kind="ratio",
    ),
    Claim(
        "P6",
        "... and is flatter at a loss of 0.03",
        compared("zenith", "sgd", _flat_late),
        kind="ratio",
    ),
    Claim(
        "P7",
        "SGD, averaged, ties with cosine",
        compared("sgd", _COSINE, averaged, accuracy),
        tie=True,
    ),
    Claim(
        "P8",
        "SGD, cooled down, ties with cosine",
        compared("sgd", _COSINE, cooled, _last),
        tie=True,
    ),
)
