"""The claims of `results/claims.md` on detection and segmentation, section 4 of the paper."""

from collections.abc import Iterator
from functools import partial
from math import inf, log

from experiments.records import Records
from experiments.report.claims import (
    Claim,
    Measure,
    Test,
    Tests,
    accuracy,
    differences,
    judged,
    table,
)
from experiments.report.measures import final_loss
from experiments.report.secondary import Found, against, measured, of_rates, on, times
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
            ours, theirs = times(column, "zenith", unit), times(column, row, unit)
            both = [(-log(ours[seed]), -log(theirs[seed])) for seed in ours if seed in theirs]
            yield differences(column.title, both)

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


def _falling(run: Records, _: Column) -> float:
    return -final_loss(run)


def _diverged(row: str, column: Column) -> list[float] | None:
    runs = column.runs.get(row)
    return None if runs is None else [float(run.outcome == "diverged") for run in runs.values()]


_CLAIMS: list[Claim] = [
    *against("D1", "zenith", _BASELINES),
    *against("D2", "zenith", ("sgd", "sgd-cosine")),
    *(
        measured("D3", f"{label(row)}'s {unit} to SGD's mAP50 by ZENITH's", _sooner_than(row, unit))
        for unit in ("steps", "seconds")
        for row in _BASELINES
    ),
    measured(
        "D4",
        "the rank of PAL's last training loss; 1 is the lowest",
        _each_task(partial(_places, "pal", _falling)),
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
        _each_task(partial(_diverged, "d-adaptation")),
        "plain",
    ),
    measured(
        "D5",
        "D-Adaptation's rate in the end by that at first",
        _each_task(of_rates("d-adaptation", lambda rates: rates[-1] / rates[0])),
    ),
]
