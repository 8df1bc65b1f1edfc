"""The primary claims of `results/claims.md`, each with its tests, from the records alone."""

from collections.abc import Callable
from math import exp, isinf, isnan, log
from typing import NamedTuple

from experiments.markdown import grid
from experiments.records import Records
from experiments.report.cells import noted
from experiments.report.measures import headline, lower_is_better, moment, reach, valued
from experiments.report.sections import Column, Section
from experiments.report.statistics import MARGIN, Effect, effect, holm, shown, verdict

__all__ = ["averaged", "claims", "cooled"]

Measure = Callable[[Records, Column], float | None]

FAST = 0.01  # the training loss to which the steps are counted
_NOTE = """
Differences within a seed, positive where the first is better: points of accuracy with their 95 %
interval, or (x) the ratio of the second to the first. p is that of all flips of the signs, then the
same after Holm over the {tests} tests. *Held* is a claim at p below 0.05; a tie is held too where
the difference is shown to be less than {margin} points, by two one-sided tests with a Holm of their
own over the {alike} of accuracy. A miss of a target is infinite; where there is one, pairs are
compared by their order alone.
"""


class Claim(NamedTuple):
    """What is compared, on every task that has both.

    Attributes:
        name: as in `results/claims.md`.
        says: the claim.
        first: the row that is claimed to be better, as good in a tie.
        second: the other.
        measure: of the first; a number that is better the higher it is.
        other: of the second, where that is another one.
        tie: whether as good is good enough.
        l2: whether the first, and the second, have an L2 penalty.
        ratio: whether differences of the measure are logarithms of ratios.
    """

    name: str
    says: str
    first: str
    second: str
    measure: Measure
    other: Measure | None = None
    tie: bool = False
    l2: tuple[bool, bool] = (False, False)
    ratio: bool = False


class Tested(NamedTuple):
    """One test of a claim; without an effect its runs are not there."""

    claim: Claim
    title: str
    effect: Effect | None


def claims(section: Section) -> str:
    """Return each primary claim with its tests, and what has become of it on each task."""
    tests = [test for claim in _CLAIMS for test in _tests(claim, section)]
    found = [test.effect for test in tests if test.effect]
    margins = [t.effect.p_equivalent for t in tests if t.effect and not t.claim.ratio]
    ps, alike = iter(holm([each.p for each in found])), iter(holm(margins))
    rows = []
    for claim, title, own in tests:
        cells = ["missing", *"----"]
        if own:
            p, same = next(ps), 1.0 if claim.ratio else next(alike)
            effects = _ratio(own) if claim.ratio else shown(own)
            cells = [f"{own.pairs}", effects, f"{own.p:.2g}", f"{p:.2g}"]
            cells.append(_became(claim, verdict(own, p, same)))
        rows.append([claim.name, claim.says, title, *cells])
    head = ["", "claim", "task", "pairs", "difference", "p", "Holm", "verdict"]
    note = _NOTE.format(tests=len(found), alike=len(margins), margin=MARGIN)
    return noted(grid(head, rows, words=3), note)


def _tests(claim: Claim, section: Section) -> list[Tested]:
    """One for each task, unless no run there has what is measured."""
    plain = {column.task: column for column in section.columns if not column.strength}
    found = []
    for column in section.columns:
        if bool(column.strength) != claim.l2[0]:
            continue
        beside = column if claim.l2[1] else plain.get(column.task, column)
        ours, theirs = column.runs.get(claim.first, {}), beside.runs.get(claim.second, {})
        both = sorted(ours.keys() & theirs.keys())
        pairs = [_pair(claim, ours[seed], theirs[seed], column, beside) for seed in both]
        known = [(one, two) for one, two in pairs if one is not None and two is not None]
        if known or not both:
            tested = effect(_differences(known), MARGIN * (not claim.ratio)) if known else None
            found.append(Tested(claim, column.title, tested))
    return found


def _pair(
    claim: Claim, ours: Records, theirs: Records, column: Column, beside: Column
) -> tuple[float | None, float | None]:
    return claim.measure(ours, column), (claim.other or claim.measure)(theirs, beside)


def _differences(pairs: list[tuple[float, float]]) -> list[float]:
    """Of measures; only their signs where one is infinite."""
    if any(map(isinf, (value for pair in pairs for value in pair))):
        return [float((one > two) - (one < two)) for one, two in pairs]
    return [one - two for one, two in pairs]


def _ratio(found: Effect) -> str:
    if isnan(found.low):
        return f"x {exp(found.mean):.2f}"
    return f"x {exp(found.mean):.2f} [{exp(found.low):.2f}, {exp(found.high):.2f}]"


def _became(claim: Claim, word: str) -> str:
    if not claim.tie:
        return word
    within = {"equivalent": "held: a tie", "held": "held: better"}
    return "held: a tie" if "margin" in word else within.get(word, word)


def _accuracy(run: Records, column: Column) -> float | None:
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


_BOTH = (True, True)
_CLAIMS = (
    Claim("P1", "ZENITH is more accurate than constant SGD", "zenith", "sgd", _accuracy),
    Claim("P2", "ZENITH ties with SGD + cosine", "zenith", "sgd-cosine", _accuracy, tie=True),
    Claim("P3", "ZENITH is faster than constant SGD", "zenith", "sgd", _quick, ratio=True),
    Claim("P4", "L2 helps ZENITH", "zenith", "zenith", _accuracy, l2=(True, False)),
    Claim("P5", "ZENITH is better than SGD, both with L2", "zenith", "sgd", _accuracy, l2=_BOTH),
    Claim("P6", "ZENITH ends flatter than SGD", "zenith", "sgd", _flat_at_the_end, ratio=True),
    Claim("P6", "... and is flatter at a loss of 0.03", "zenith", "sgd", _flat_late, ratio=True),
    Claim("P7", "SGD, averaged, ties with cosine", "sgd", "sgd-cosine", averaged, _accuracy, True),
    Claim("P8", "SGD, cooled down, ties with cosine", "sgd", "sgd-cosine", cooled, _last, True),
)
