"""The claims of `results/claims.md` on detection and segmentation, section 4 of the paper."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from math import inf, log
from statistics import fmean

from experiments.records import Records
from experiments.report.claims import (
    Claim,
    Measure,
    Test,
    Tests,
    accuracy,
    judged,
    table,
)
from experiments.report.measures import final_loss
from experiments.report.secondary import Found, against, last_scale, measured, on, rates, sooner
from experiments.report.sections import Column, Section
from experiments.report.statistics import ranks
from experiments.report.summary import label

__all__ = ["detection", "tested"]

_BASELINES = ("pal", "gen", "cocob", "dog", "d-adaptation")  # of the paper's table 5


def detection(section: Section) -> str:
    """Return each claim of section 4 with its tests."""
    rows, tests, alike = judged(_CLAIMS, section)
    return table(rows, f"{tests} tests", f"{alike} of mAP50")


def tested(section: Section) -> list[list[str]]:
    """Return a row for each test, as `judged` does, with Holm over all of them."""
    return judged(_CLAIMS, section)[0]


def _sooner_than(row: str, unit: str) -> Tests:
    """To the mAP50 that each seed of constant SGD reaches, in steps or seconds."""

    def tests(section: Section) -> Iterator[Test]:
        for column in section.columns:
            there = row in column.runs and "zenith" in column.runs
            if not there or (unit == "seconds" and not column.timed(row)):
                continue
            yield sooner(column, row, unit)

    return tests


def _each_task(found: Found) -> Tests:
    """The tests of what is the same for all measures of a task."""

    def tests(section: Section) -> Iterator[Test]:
        for column, *_ in section.tasks:
            if (own := found(column)) is not None:
                yield Test(column.task, own)

    return tests


def _places(row: str, score: Measure, column: Column) -> list[float] | None:
    """The rank of a row for each seed that all have: 1 has the highest score."""
    if row not in column.runs:
        return None
    runs = {other: own for other, own in column.paired.runs.items() if own}

    def scored(run: Records) -> float:
        value = score(run, column)
        return -inf if value is None else value

    return [
        ranks({other: [scored(own[seed])] for other, own in runs.items()})[row]
        for seed in runs.get(row, {})
    ]


def _fallen(run: Records, _: Column) -> float:
    return -final_loss(run)


def _least_scale(run: Records) -> float | None:
    scales = [line["scale"] for line in run.steps if line.get("scale")]
    return log(min(scales)) if scales else None


def _of_each(row: str, number: Callable[[Records], float | None]) -> Found:
    """A number of each run of a row, of those that diverge too."""

    def found(column: Column) -> list[float] | None:
        if row not in column.runs:
            return None
        numbers = map(number, column.runs[row].values())
        return [own for own in numbers if own is not None]

    return found


def _diverged(run: Records) -> float:
    return float(run.outcome == "diverged")


def _risen(run: Records) -> float | None:
    """The logarithm of the last rate on record by the first."""
    found = rates(run)
    return log(found[-1] / found[0]) if found else None


def _falls(run: Records) -> float | None:
    """At what share of the lines on record the rate is lower than at the one before."""
    steps = [*pairwise(rates(run))]
    return fmean(later < rate for rate, later in steps) if steps else None


_CLAIMS: list[Claim] = [
    *against("D1", "zenith", _BASELINES),
    *against("D2", "zenith", ("sgd", "sgd-cosine")),
    *(
        measured("D2", says, _each_task(_of_each("zenith", number)))
        for says, number in (
            ("ZENITH's factor at its least; 1 is a constant rate", _least_scale),
            ("ZENITH's factor in the end", last_scale),
        )
    ),
    *(
        measured(
            "D3",
            f"ZENITH is sooner at SGD's mAP50 than {label(row)}: its {unit} by ZENITH's",
            _sooner_than(row, unit),
        )
        for unit in ("steps", "seconds")
        for row in _BASELINES
    ),
    measured(
        "D4",
        "the rank of PAL's last training loss; 1 is the lowest",
        _each_task(partial(_places, "pal", _fallen)),
        "plain",
    ),
    measured(
        "D4",
        "the rank of PAL's mAP50; 1 is the highest",
        on(partial(_places, "pal", accuracy)),
        "plain",
    ),
    measured(
        "D5",
        "the share of D-Adaptation's runs that diverge",
        _each_task(_of_each("d-adaptation", _diverged)),
        "plain",
    ),
    measured(
        "D5",
        "the share of lines on record at which D-Adaptation's rate falls",
        _each_task(_of_each("d-adaptation", _falls)),
        "plain",
    ),
    measured(
        "D5",
        "D-Adaptation's last rate on record by the first",
        _each_task(_of_each("d-adaptation", _risen)),
    ),
]
