"""How the tables of a study write what stands in a cell."""

from collections.abc import Callable, Sequence
from math import isinf
from statistics import fmean, median, stdev

from experiments.report.measures import headline, lower_is_better
from experiments.report.sections import Column
from experiments.report.summary import label, plans

__all__ = ["called", "duration", "headlines", "noted", "spread", "typical", "unit"]


def noted(table: str, note: str) -> str:
    """Return a table with a paragraph below it."""
    return f"{table}\n\n{' '.join(note.split())}"


def called(row: str) -> str:
    """Return the label of an optimizer, with a mark if it knows the length of the run."""
    return label(row) + (" †" if plans(row) else "")


def unit(column: Column) -> str:
    """Return what the measure of a column is in."""
    return "loss" if lower_is_better(column.measure) else "%"


def headlines(column: Column, row: str) -> dict[int, float]:
    """Return the headline of each seed, in their order."""
    found = {seed: headline(run, column.measure) for seed, run in column.runs.get(row, {}).items()}
    return {seed: value for seed, value in sorted(found.items()) if value is not None}


def spread(values: Sequence[float | None], form: str = ".2f") -> str:
    """Return the mean ± the sample standard deviation; "-" where one of the values is none.

    Examples:
        >>> spread([90.0, 92.0])
        '91.00 ± 1.41'
    """
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return "-"
    if len(numbers) == 1 or isinf(sum(numbers)):
        return f"{fmean(numbers):{form}}"
    return f"{fmean(numbers):{form}} ± {stdev(numbers):{form}}"


def typical(values: Sequence[float], write: Callable[[float], str] | None = None) -> str:
    """Return the median, of seconds or as `write` has it, where infinite is a miss."""
    middle, misses = median(values), sum(map(isinf, values))
    if isinf(middle):
        return "missed"
    text = (write or duration)(middle)
    return f"{text} (missed by {misses} of {len(values)})" if misses else text


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Examples:
        >>> [duration(90.0), duration(600.0), duration(9000.0)]
        ['90.0 s', '10.0 min', '2.50 h']
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"
