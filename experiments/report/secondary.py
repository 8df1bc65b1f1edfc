"""The secondary claims of `results/claims.md`, each with its tests, from the records alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from math import inf, log
from statistics import fmean, median
from typing import Any

from experiments.optimizers import BLOCKS, OPTIMIZERS
from experiments.question import parsed
from experiments.records import Records
from experiments.report.cells import headlines
from experiments.report.claims import (
    Claim,
    Test,
    Tests,
    accuracy,
    compared,
    differences,
    judged,
    table,
)
from experiments.report.correlations import LEAST, MOMENTS, PAIRS, each
from experiments.report.measures import reach
from experiments.report.sections import Column, Section, listed, without
from experiments.report.statistics import paired
from experiments.report.stops import STOPS, at_stop, planned_for
from experiments.report.summary import label

__all__ = [
    "against",
    "last_scale",
    "measured",
    "on",
    "rates",
    "secondary",
    "sooner",
    "tested",
    "times",
    "windows",
]

WINDOW = 500  # where a name has none
RATES = (0.05, 0.1, 0.25)
FLAT = 0.3  # the paper's accuracy rises with the rate up to here
_COSINE = "sgd-cosine"
Found = Callable[[Column], Sequence[float] | None]  # None where it is not about that task


def secondary(section: Section) -> str:
    """Return each secondary claim with its tests."""
    return table(tested(section), "tests of the same claim", "same")


def tested(section: Section) -> list[list[str]]:
    """Return a row for each test, as `judged` does, with Holm over those of the same claim."""
    families = groupby(_CLAIMS, lambda claim: claim.name)
    return [row for _, own in families for row in judged([*own], section)[0]]


def on(found: Found) -> Tests:
    """Return the tests of a number for each seed, on every task without L2 that it is about."""

    def tests(section: Section) -> Iterator[Test]:
        for column in section.columns:
            own = None if column.strength else found(column)
            if own is not None:
                yield Test(column.title, own)

    return tests


def _rivals(column: Column) -> list[str]:
    """The paper's eleven, as far as they were asked for as it has them."""
    own = (slug for slug, options in BLOCKS["A"] if not options and OPTIMIZERS[slug].paper)
    return [slug for slug in own if slug not in ("zenith", "sgd") and slug in column.runs]


def _best_rival(score: Callable[[Column, str], Any], column: Column) -> str | None:
    """The one with the highest score, of those that have a run."""
    there = [row for row in _rivals(column) if column.runs[row]]
    return max(there, key=lambda row: score(column, row), default=None)


def _ahead_of_the_best(column: Column) -> Test:
    """In accuracy: ahead of all where it is ahead of the one with the highest mean."""
    best = _best_rival(lambda column, row: fmean(headlines(column, row).values()), column)
    if best is None:
        return Test(column.title, [])
    ours, theirs = headlines(column, "zenith"), headlines(column, best)
    title = f"{column.title}: {label(best)}"
    return Test(title, paired(ours, theirs))


def _sooner_than_the_soonest(column: Column) -> Test:
    """To the accuracy that each seed of constant SGD reaches, in steps."""
    soonest = _best_rival(_soonness, column)
    if soonest is None:
        return Test(column.title, [])
    return sooner(column, soonest)._replace(title=f"{column.title}: {label(soonest)}")


def sooner(column: Column, than: str, unit: str = "steps") -> Test:
    """Return how much sooner than a row ZENITH is at the target of a column: see `times`."""
    ours, theirs = times(column, "zenith", unit), times(column, than, unit)
    both = [(-log(ours[seed]), -log(theirs[seed])) for seed in ours if seed in theirs]
    return differences(column.title, both)


def _soonness(column: Column, row: str) -> tuple[float, float]:
    """Minus the median of the steps; among equal ones, minus the mean of their logarithms."""
    steps = times(column, row).values()
    return -median(steps), -fmean(map(log, steps))


def _against_the_rivals(test: Callable[[Column], Test]) -> Tests:
    return lambda section: (
        test(column) for column in section.columns if not column.strength and _rivals(column)
    )


def times(column: Column, row: str, unit: str = "steps") -> dict[int, float]:
    """Return the steps or seconds of each seed to the target of a column, infinite for a miss."""
    target = inf if column.target is None else column.target
    runs = sorted(column.runs.get(row, {}).items())
    return {seed: getattr(reach(run, target, column.measure), unit) for seed, run in runs}


def _of_runs(row: str, number: Callable[[Records], float | None]) -> Found:
    """A number of each run of a row that lasted, where any has it."""

    def found(column: Column) -> list[float] | None:
        runs = [run for run in column.runs.get(row, {}).values() if run.outcome != "diverged"]
        own = [value for run in runs if (value := number(run)) is not None]
        return own if own or (row in column.runs and not runs) else None

    return found


def _of_rates(row: str, number: Callable[[Sequence[float]], float]) -> Found:
    """The logarithm of a number that the rates of each run of a row come to."""

    def own(run: Records) -> float | None:
        found = rates(run)
        return log(number(found)) if found else None

    return _of_runs(row, own)


def rates(run: Records) -> list[float]:
    """Return the rates on record."""
    return [line["lr"] for line in run.steps if line.get("lr")]


def last_scale(run: Records) -> float | None:
    """Return the logarithm of the scale in the end."""
    scale = run.steps[-1].get("scale") if run.steps else None
    return log(scale) if scale else None


def _noisy(run: Records) -> float | None:
    """Of the last evaluation that has it."""
    shares = [line["noise_share"] for line in run.evals if "noise_share" in line]
    return shares[-1] if shares else None


def _correlated(kept: Callable[[str], bool], loss: float | None, pair: str, sign: int = 1) -> Found:
    """The rank correlation of each seed over some rows, with the sign that is claimed."""

    def found(column: Column) -> list[float] | None:
        rows = {row: runs for row, runs in column.runs.items() if kept(row)}
        every = [run for runs in rows.values() for run in runs.values()]
        asked = not every or any("sharpness" in line for run in every for line in run.evals)
        if len(rows) < LEAST or not asked:
            return None
        return [sign * own for own in each(column._replace(runs=rows), loss, PAIRS[pair])]

    return found


def _rated(row: str) -> bool:
    return without(row, "lr")[0] == "sgd"


def _rated_to(row: str) -> bool:
    return _rated(row) and (without(row, "lr")[1] or inf) <= FLAT


def _of_block_a(row: str) -> bool:
    """Whether a row is one of the optimizers as the paper has them."""
    return row in listed("A")


def _steadier(than: str) -> Found:
    """By how much the range of accuracy over the rates is smaller for ZENITH."""

    def found(column: Column) -> list[float] | None:
        if not all(row in column.runs for row in _at_rates(than)):
            return None
        return paired(_ranges(column, than), _ranges(column, "zenith"))

    return found


def _at_rates(slug: str) -> list[str]:
    own = OPTIMIZERS[slug].options["lr"]
    return [slug if lr == own else f"{slug},lr={lr:g}" for lr in RATES]


def _ranges(column: Column, slug: str) -> dict[int, float]:
    """Of the accuracy of each seed over the rates, if it has all of them."""
    found = [headlines(column, row) for row in _at_rates(slug)]
    seeds = set.intersection(*(set(values) for values in found))
    return {s: max(v[s] for v in found) - min(v[s] for v in found) for s in sorted(seeds)}


def windows(column: Column) -> dict[int, str]:
    """Return the rows of ZENITH that differ in the window alone, by it."""
    own = {row: parsed(row) for row in column.runs}
    return {
        int(options.get("window", WINDOW)): row
        for row, (slug, options) in own.items()
        if slug == "zenith" and options.keys() <= {"window"}
    }


def _longest_less_shortest(column: Column) -> list[float] | None:
    found = windows(column)
    if len(found) < 2:
        return None
    return paired(*(headlines(column, found[end(found)]) for end in (max, min)))


def _each_window(section: Section) -> Iterator[Test]:
    for column in section.columns:
        found = {} if column.strength else windows(column)
        base = headlines(column, found[WINDOW]) if WINDOW in found else {}
        for window in sorted(found.keys() - {WINDOW}):
            title = f"{column.title}: a window of {window}"
            yield Test(title, paired(headlines(column, found[window]), base))


def _worse(run: Records, column: Column) -> float | None:
    value = accuracy(run, column)
    return None if value is None else -value


def _stopped(row: str, measure: str, stop: int) -> Found:
    """How much better than the cosine that was planned for that stop."""

    def found(column: Column) -> list[float] | None:
        if not any("epochs=" in name for name in column.runs) or row not in column.runs:
            return None
        return paired(at_stop(column, row, measure, stop), planned_for(column, _COSINE, stop))

    return found


def measured(name: str, says: str, tests: Tests, kind: str = "ratio") -> Claim:
    """Return a claim of which there are numbers alone: see `Claim`."""
    return Claim(name, says, tests, kind=kind, tested=False)


def against(
    name: str, first: str, others: Iterable[str], tie: bool = False, kind: str = "points"
) -> Iterator[Claim]:
    """Return the claims that a row is better than each of the others: see `Claim`."""
    for other in others:
        says = f"{label(first)} against {label(other)}"
        yield Claim(name, says, compared(first, other, accuracy), tie, kind)


_by_loss = partial(_correlated, _of_block_a, pair="sharpness and accuracy", sign=-1)
_MOMENTUM, _AT_1 = ",lr=0.02,momentum=0.9", ",lr=1"
_SIGNALS = ("signal-halves", "signal-loss", "sasa")
_ABLATIONS = [f"ablation-{what}" for what in ("exponential", "first", "late", "layers")]
_HALVED = (("", "test_accuracy"), (", averaged", "averaged_accuracy"))

_CLAIMS: list[Claim] = [
    measured(
        "S1",
        "ZENITH's accuracy less that of the best rival",
        _against_the_rivals(_ahead_of_the_best),
        "points",
    ),
    measured(
        "S1",
        "the soonest rival's steps to SGD's accuracy by ZENITH's",
        _against_the_rivals(_sooner_than_the_soonest),
    ),
    *(
        measured("S2", says, on(_of_rates(row, number)))
        for says, row, number in (
            (
                "ZENITH's last rate on record by the first",
                "zenith",
                lambda own: own[-1] / own[0],
            ),
            ("D-Adaptation's", "d-adaptation", lambda own: own[-1] / own[0]),
            ("SPS' highest by 0.1", "sps", lambda own: max(own) / 0.1),
            ("ALI-G's", "ali-g", lambda own: max(own) / 0.1),
        )
    ),
    *(
        Claim(
            "S3",
            f"higher rates, {what}, {when}",
            on(_correlated(kept, at, pair, sign)),
            kind="plain",
        )
        for kept, pair, sign, what in (
            (_rated, "rate and sharpness", -1, "flatter"),
            (_rated_to, "rate and accuracy", 1, f"up to {FLAT}, more accurate"),
        )
        for at, when in MOMENTS.items()
    ),
    *(
        Claim("S4", f"flatter is more accurate, {when}", on(_by_loss(at)), kind="plain")
        for at, when in MOMENTS.items()
    ),
    *(
        Claim("S5", f"less sensitive to the rate than {label(row)}", on(_steadier(row)))
        for row in ("sgd", _COSINE, "sps", "ali-g")
    ),
    Claim("S6", "the longest window is better than the shortest", on(_longest_less_shortest)),
    Claim("S6", "each ties with 500", _each_window, tie=True),
    *(
        Claim("S7", f"L2 helps {label(row)}", compared(row, row, accuracy, l2=(True, False)))
        for row in ("zenith", "sps", "ali-g")
    ),
    *(
        Claim("S7", f"L2 harms {label(row)}", compared(row, row, _worse, l2=(True, False)))
        for row in ("dowg", "d-adaptation")
    ),
    measured("S8", "the mean norm in the end by the highest", on(_of_runs("zenith", last_scale))),
    measured(
        "S8", "the noise's share of the squared norm", on(_of_runs("zenith", _noisy)), "plain"
    ),
    *(
        claim
        for first in ("zenith", "sgd", _COSINE)
        for claim in against("S9", first, _SIGNALS, tie=True)
    ),
    *against("S10", "zenith", _ABLATIONS, tie=True),
    *(
        Claim(
            "S11",
            f"{label(row)}{how}, stopped at {stop} %, against its plan",
            on(_stopped(row, measure, stop)),
            tie=True,
        )
        for row in ("zenith", "sgd")
        for how, measure in _HALVED
        for stop in STOPS[:-1]
    ),
    *against("S12", f"zenith{_MOMENTUM}", (f"sgd{_MOMENTUM}", f"{_COSINE}{_MOMENTUM}")),
    *against("S12", "adamw-zenith", ("adamw", "adamw-cosine")),
    *against("S12", "zenith-clip", ("sgd-clip",)),
    *against("S12", f"zenith{_AT_1}", (f"sgd{_AT_1}", f"{_COSINE}{_AT_1}"), kind="plain"),
]
