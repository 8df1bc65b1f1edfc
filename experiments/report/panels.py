"""What the figures of a study are made of: panels, lines over the seeds, and one legend."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from experiments.question import parsed
from experiments.records import Records
from experiments.report.cells import unit
from experiments.report.measures import spoken
from experiments.report.picture import curve
from experiments.report.sections import Column
from experiments.report.style import colour, dash, shades
from experiments.report.summary import label

__all__ = [
    "Line",
    "finished",
    "judged",
    "look",
    "panels",
    "plot",
    "series",
    "tinted",
    "titled",
    "wrapped",
    "zoomed",
]

Line = tuple[NDArray[np.float64], NDArray[np.float64]]
_PANEL = (5.2, 3.9)  # inches, of 100 dots
_LINE = 0.22  # inches, of a legend
_DECADES = 3  # of an axis with ticks between them
_WIDE = 3  # panels side by side, where their rows have no meaning of their own
_NAMED = 2  # of the lines that end below what is shown; more are counted


def panels(rows: int, columns: int) -> tuple[Figure, NDArray[Any]]:
    """Return a figure and its panels, shape (rows, columns)."""
    size = (_PANEL[0] * columns, _PANEL[1] * rows)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def wrapped(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure and so many panels of it, in rows of three."""
    figure, grid = panels(ceil(count / _WIDE), min(count, _WIDE))
    for spare in grid.flat[count:]:
        spare.remove()
    return figure, [*grid.flat[:count]]


def titled(axes: Axes, title: str, x: str, y: str) -> None:
    """Say what a panel shows."""
    axes.set(title=title, xlabel=x, ylabel=y)


def judged(column: Column) -> str:
    """Return the measure of a column as an axis has it."""
    return f"{spoken(column.measure)}, {unit(column)}"


def look(name: str, names: Iterable[str]) -> dict[str, Any]:
    """Return how the line of an optimizer looks among others; ZENITH's is wider."""
    own = parsed(name)[0] == "zenith"
    return {
        "color": colour(name),
        "linestyle": dash(name, names),
        "label": label(name),
        "linewidth": 2.4 if own else 1.3,
        "zorder": 3 if own else 2,
    }


def series(
    runs: Mapping[int, Records], kind: Literal["steps", "evals"], y: str, x: str = "step"
) -> Line:
    """Return the mean of a number over the seeds that have it, at the mean of another.

    The line ends where one of its runs diverges or stops: what the others come to then is no mean
    of all. Of a number that is not logged, it is empty.
    """
    logged = [[at for at in getattr(run, kind) if at.get(y) is not None] for run in runs.values()]
    ended = [run.outcome == "diverged" for run in runs.values()]
    whole = sum(bool(own) or over for own, over in zip(logged, ended, strict=True))
    seen = Counter(at["step"] for own in logged for at in own)
    lines = [at for own in logged for at in own if seen[at["step"]] == whole]
    along = curve(lines, "step", y)
    return (along.x if x == "step" else curve(lines, "step", x).mean), along.mean


def tinted(columns: Sequence[Column]) -> Iterator[tuple[Column, Any]]:
    """Yield each with a colour of its own."""
    yield from zip(columns, shades(len(columns), "turbo"), strict=True)


def plot(axes: Axes, line: Line, **style: Any) -> None:
    """Draw a line, unless it is empty, so that no legend names it."""
    if len(line[0]):
        axes.plot(*line, **style)


def zoomed(*across: Axes) -> None:
    """Let the axes of an accuracy begin, all alike, where the better ones can be told apart.

    That is a little more below the lower quartile of where the lines end than the top is above it.
    The bands around them are in view too, as far as three times that. A panel says which lines end
    below it, or how many.
    """
    lines = {
        axes: [np.asarray(line.get_ydata(), np.float64) for line in axes.lines] for axes in across
    }
    every = [line for own in lines.values() for line in own]
    if not every:
        return
    areas = [area for axes in across for area in axes.collections]
    bands = [np.asarray(path.vertices)[:, 1] for area in areas for path in area.get_paths()]
    top, low = max(line.max() for line in every), np.quantile([line[-1] for line in every], 0.25)
    bottom = max(low - (top - low) - 1, min(line.min() for line in every))
    if bands:
        span = top - bottom
        top = min(max(top, *(band.max() for band in bands)), top + span)
        bottom = max(min(bottom, *(band.min() for band in bands)), bottom - span)
    margin = (top - bottom) / 30
    for axes, own in lines.items():
        axes.set_ylim(bottom - margin, top + margin + 0.1)
        drawn = zip(axes.lines, own, strict=True)
        if below := [str(line.get_label()) for line, values in drawn if values[-1] < bottom]:
            named = ", ".join(below) if len(below) <= _NAMED else str(len(below))
            axes.text(0.99, 0.02, f"{named} below", transform=axes.transAxes, ha="right")


def logarithmic(axes: Axes, *sides: Literal["x", "y"]) -> None:
    """Make `x`, `y` or both logarithmic."""
    for side in sides:
        axes.set(**{f"{side}scale": "log"})


def _ticked(axis: Axis) -> None:
    """Give a logarithmic axis ticks at 1, 2 and 5, or where that would be too many, at 1."""
    low, high = sorted(axis.get_view_interval())
    subs = (1.0, 2.0, 5.0) if low > high / 10**_DECADES else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def finished(figure: Figure) -> Figure:
    """Say in each panel without a line that nothing was measured; make the one legend."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        if not axes.lines:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center")
        for axis in (axes.xaxis, axes.yaxis):
            if getattr(axis.get_transform(), "base", None) == 10:
                _ticked(axis)
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(text, handle)
    if handles:
        wide = 0.6 + 0.08 * max(map(len, handles))  # inches, of the longest
        columns = max(1, min(len(handles), int(figure.get_figwidth() / wide)))
        lines = ceil(len(handles) / columns)
        figure.set_figheight(figure.get_figheight() + _LINE * lines)
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns)
    return figure
