"""What goes with what over the rows of a study, seed by seed."""

from collections.abc import Callable, Iterator
from statistics import fmean

import numpy as np
from scipy import stats

from experiments.markdown import grid
from experiments.question import parsed
from experiments.report.cells import noted
from experiments.report.measures import headline, moment
from experiments.report.sections import Column, Section, without

__all__ = ["LEAST", "MOMENTS", "PAIRS", "correlations", "each", "spearman"]

# The loss is that of the weights at which the sharpness is taken, on the probe's own examples.
MOMENTS = {None: "at the end", 0.1: "at a training loss of 0.1", 0.03: "at a training loss of 0.03"}
LEAST = 4  # rows
_NOTE = """
Spearman's rank correlation over the optimizers (or rates) of a seed, of {least} or more that have
both numbers: its mean over the seeds, the lowest and the highest. Sharpness is the top eigenvalue
of the Hessian; accuracy is the headline at the end, and elsewhere that of the same moment.
"""

Point = tuple[float, float, float]  # rate, sharpness, accuracy
PAIRS: dict[str, Callable[[Point], tuple[float, float]]] = {
    "sharpness and accuracy": lambda point: point[1:],
    "rate and sharpness": lambda point: point[:2],
    "rate and accuracy": lambda point: point[::2],
}


def correlations(section: Section) -> str:
    """Return a line for each task, moment and pair of numbers that is there."""
    rows = [
        [column.title, when, pair, f"{len(own)}"]
        + [f"{number:+.2f}" for number in (fmean(own), min(own), max(own))]
        for column in section.columns
        for loss, when in MOMENTS.items()
        for pair, of in PAIRS.items()
        if (own := [*each(column, loss, of)])
    ]
    if not rows:
        return "No seed has enough of them."
    head = ["task", "", "of", "seeds", "mean", "lowest", "highest"]
    return noted(grid(head, rows, words=3), _NOTE.format(least=LEAST))


def spearman(points: list[tuple[float, float]], least: int = 3) -> float | None:
    """Return the rank correlation of so many points or more that differ in both numbers."""
    if len(points) < least:
        return None
    x, y = np.array(points, dtype=np.float64).T
    return None if np.ptp(x) == 0 or np.ptp(y) == 0 else float(stats.spearmanr(x, y).statistic)


def each(
    column: Column, loss: float | None, of: Callable[[Point], tuple[float, float]]
) -> Iterator[float]:
    """Yield the correlation of each seed that has one.

    Args:
        column: the rows.
        loss: one of `MOMENTS`.
        of: one of `PAIRS`.
    """
    for seed in sorted({seed for runs in column.runs.values() for seed in runs}):
        points = [of(point) for point in _points(column, seed, loss)]
        known = [point for point in points if not any(map(np.isnan, point))]
        if (found := spearman(known, LEAST)) is not None:
            yield found


def _points(column: Column, seed: int, loss: float | None) -> Iterator[Point]:
    """Of each row that has a sharpness; NaN where it has no rate of its own."""
    for row, runs in column.distinct.runs.items():
        line = moment(runs[seed], "sharpness", loss) if seed in runs else None
        if line is None:
            continue
        rate = without(row, "lr")[1] if parsed(row)[0] == "sgd" else None
        level = headline(runs[seed], column.measure) if loss is None else line.get(column.measure)
        yield (
            float("nan") if rate is None else rate,
            line["sharpness"],
            float("nan") if level is None else level,
        )
