"""The figures of a study about rates, windows and sharpness: a point is a mean over the seeds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.records import Records
from experiments.report.cells import headlines
from experiments.report.correlations import MOMENTS, spearman
from experiments.report.measures import lower_is_better, moment
from experiments.report.panels import (
    Line,
    judged,
    logarithmic,
    look,
    panels,
    plot,
    series,
    tinted,
    titled,
    wrapped,
    zoomed,
)
from experiments.report.sections import Column, Section, without
from experiments.report.style import shades

__all__ = ["flatness", "landscape", "sharpness", "swept"]


def sharpness(section: Section) -> Figure:
    """Figures 3a and 3b: sharpness and relative accuracy of SGD over its constant rate."""
    figure, grid = panels(2, len(MOMENTS))
    for (above, below), (loss, when) in zip(grid.T, MOMENTS.items(), strict=True):
        titled(above, f"(a) {when}", "learning rate", "top eigenvalue of the Hessian")
        titled(below, f"(b) {when}", "learning rate", "accuracy, % of the task's best")
        logarithmic(above, "x", "y")
        logarithmic(below, "x")
        for column, tint in tinted(section.columns):
            style = {"color": tint, "label": column.title, "marker": "o", "linestyle": "none"}
            rows = _groups(column, "lr").get("sgd", {})
            found = {row: (rate, *_at(column, row, loss)) for rate, row in rows.items()}
            best = max((level for *_, level in found.values() if level is not None), default=1.0)
            partly = {row for row in found if not _by_all(column, row, loss)}
            fewer = {"label": f"{column.title}, by some of the seeds", "markerfacecolor": "none"}
            for own, more in ((found.keys() - partly, {}), (partly, fewer)):
                points = [found[row] for row in own]
                plot(above, _line([(rate, sharp) for rate, sharp, _ in points]), **style | more)
                x, y = _line([(rate, level) for rate, _, level in points])
                plot(below, (x, 100 * y / best), **style | more)
    return figure


def landscape(section: Section) -> Figure:
    """Figure 3d: the loss along a line through where an optimizer ended, by task."""
    figure, grid = wrapped(len(section.columns))
    for axes, column in zip(grid, section.columns, strict=True):
        titled(axes, column.title, "offset along the line", "loss")
        logarithmic(axes, "y")
        for name, runs in column.runs.items():
            plot(axes, _along(runs), **look(name, column.runs))
    return figure


def flatness(section: Section) -> Figure:
    """Figure 3e: accuracy over sharpness, a point for each optimizer, by task."""
    figure, grid = panels(len(section.columns), len(MOMENTS))
    for across, column in zip(grid, section.columns, strict=True):
        for axes, (loss, when) in zip(across, MOMENTS.items(), strict=True):
            found = {row: _at(column, row, loss) for row in column.runs}
            title = f"{column.title}, {when}{_correlation([*found.values()])}"
            titled(axes, title, "top eigenvalue of the Hessian", judged(column))
            logarithmic(axes, "x")
            for row, (sharp, level) in found.items():
                style = look(row, column.runs) | {"linestyle": "none", "marker": "o"}
                plot(axes, _line([(sharp, level)]), **style)
            if not lower_is_better(column.measure):
                zoomed(axes)
    return figure


def swept(section: Section, option: str) -> Figure:
    """Figures 3g and 3h, or 6: ZENITH at several rates or windows, beside the others, by task."""
    figure, grid = panels(3, len(section.columns))
    own, _ = without(section.reference or "zenith", option)
    for (above, middle, below), column in zip(grid.T, section.columns, strict=True):
        titled(above, f"{column.title}: ZENITH", "iteration", "learning rate")
        titled(middle, "ZENITH", "epoch", judged(column))
        titled(below, "all", option, judged(column))
        mine = _groups(column, option).get(own, {})
        for tint, (value, row) in zip(shades(len(mine)), mine.items(), strict=True):
            style = {"color": tint, "label": f"{option} {value:g}"}
            plot(above, series(column.runs[row], "steps", "lr"), **style)
            plot(middle, series(column.runs[row], "evals", column.measure, "epoch"), **style)
        _ends(below, column, option)
        if option == "window":
            logarithmic(below, "x")
        for axes in [] if lower_is_better(column.measure) else (middle, below):
            zoomed(axes)
    return figure


def _line(points: Sequence[tuple[float | None, float | None]]) -> Line:
    """The points that are there, from left to right."""
    found = sorted((x, y) for x, y in points if x is not None and y is not None)
    x, y = np.array(found, dtype=np.float64).reshape(-1, 2).T
    return x, y


def _at(column: Column, row: str, loss: float | None) -> tuple[float | None, float | None]:
    """The sharpness and the measure where the loss is reached, or at the end, and the headline."""
    found = [moment(run, "sharpness", loss) for run in column.runs.get(row, {}).values()]
    lines = [line for line in found if line]
    values = [line[column.measure] for line in lines if line.get(column.measure) is not None]
    if loss is None:
        values = [*headlines(column, row).values()]
    sharp = fmean(line["sharpness"] for line in lines) if lines else None
    return sharp, fmean(values) if values else None


def _by_all(column: Column, row: str, loss: float | None) -> bool:
    """Whether every run of a row comes there."""
    return all(moment(run, "sharpness", loss) for run in column.runs[row].values())


def _along(runs: Mapping[int, Records]) -> Line:
    """The mean loss at each offset, in the last evaluation that has it."""
    values = defaultdict(list)
    for run in runs.values():
        lines = [[(n, y) for n, y in at.items() if n.startswith("line_")] for at in run.evals]
        for name, y in next((line for line in reversed(lines) if line), []):
            if y is not None:
                values[float(name.removeprefix("line_"))].append(y)
    return _line([(x, fmean(ys)) for x, ys in values.items()])


def _correlation(points: Sequence[tuple[float | None, float | None]]) -> str:
    """Spearman's, of three points or more that differ."""
    found = spearman([*zip(*_line(points), strict=True)])
    return "" if found is None else f":\nrank correlation of the means {found:+.2f}"


def _groups(column: Column, option: str) -> dict[str, dict[float, str]]:
    """The rows that have runs, by the name without the option and by its value."""
    found: dict[str, dict[float, str]] = defaultdict(dict)
    for row in column.runs:
        group, value = without(row, option)
        if value is not None and headlines(column, row):
            found[group][value] = row
    return {group: dict(sorted(rows.items())) for group, rows in found.items()}


def _ends(axes: Axes, column: Column, option: str) -> None:
    """The headlines over the values of the option; of what does not take it, a level."""
    groups = _groups(column, option)
    there = [row for row in column.runs if headlines(column, row)]
    levels = [row for row in there if without(row, option)[1] is None]
    for group, rows in groups.items():
        values = [[*headlines(column, row).values()] for row in rows.values()]
        means = np.array([fmean(own) for own in values])
        spreads = np.array([stdev(own) if len(own) > 1 else 0.0 for own in values])
        style = look(group, [*groups, *levels])
        axes.plot([*rows], means, marker="o", **style)
        around, tint = (means - spreads, means + spreads), style["color"]
        axes.fill_between([*rows], *around, color=tint, alpha=0.15, linewidth=0)
    for row in levels:
        axes.axhline(fmean(headlines(column, row).values()), **look(row, [*groups, *levels]))
