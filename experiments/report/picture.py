"""The picture of the runs of a task: four panels, drawn from the records alone."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments.optimizers import OPTIMIZERS
from experiments.question import parsed
from experiments.records import Record
from experiments.report.measures import spoken
from experiments.report.style import colour, rendered
from experiments.report.summary import ACCURACY, Runs, judged_by, label
from zenith.plot import plot

__all__ = ["curve", "draw", "running_mean"]

SMOOTHING = 25  # step records in the running mean of the loss
SIZES = {"font.size": 17, "axes.titlesize": 19, "lines.linewidth": 2.5, "legend.fontsize": 16}


class Curve(NamedTuple):
    """One number over the steps: the mean over the seeds, and the lowest and highest of them."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def draw(runs: Runs) -> bytes:
    """Return the picture of all runs of a task as a PNG of 1600 x 1000 pixels."""
    return rendered(lambda: _drawn(runs), SIZES)


def _drawn(runs: Runs) -> Figure:
    figure = Figure(figsize=(16, 10), dpi=100, layout="constrained")
    panels = figure.subplots(2, 2)
    _norms(panels[0, 0], runs)
    _rates(panels[0, 1], runs)
    _losses(panels[1, 0], runs)
    _accuracies(panels[1, 1], runs)
    lines, _ = panels[0, 1].get_legend_handles_labels()
    handles = [*lines, Patch(color="0.85", label="range of the seeds")]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, handlelength=3)
    return figure


def _norms(axes: Axes, runs: Runs) -> None:
    _title(axes, "(a) What ZENITH measures", "iteration", "L2 norm of the gradient")
    for name, own in runs.items():
        seed = min(own)
        rows = [line for line in own[seed].steps if "scale" in line and None not in line.values()]
        if rows:
            plot(rows, axes=(axes, None), label=f"seed {seed}", color=colour(name))
            return
    axes.text(0.5, 0.5, "no run of ZENITH", transform=axes.transAxes, ha="center")


def _rates(axes: Axes, runs: Runs) -> None:
    _title(axes, "(b) The learning rate in force", "iteration", "learning rate")
    for name in runs:
        _plot(axes, curve(_lines(runs, name, "steps"), "step", "lr"), name, label(name))
    axes.set_ylim(bottom=0)


def _losses(axes: Axes, runs: Runs) -> None:
    _title(axes, "(c) Training loss (running mean)", "iteration", "cross-entropy in nats")
    axes.set_yscale("log")
    for name in runs:
        raw = curve(_lines(runs, name, "steps"), "step", "loss")
        _plot(axes, Curve(raw.x, *(running_mean(y, SMOOTHING) for y in raw[1:])), name)


def _accuracies(axes: Axes, runs: Runs) -> None:
    measure = judged_by(run for own in runs.values() for run in own.values())
    plain = measure == ACCURACY
    name = "Test accuracy" if plain else spoken(measure)
    _title(axes, f"(d) {name}", "epoch", "% of the test images" if plain else "%")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    floor = 100.0
    for name in runs:
        accuracy = curve(_lines(runs, name, "evals"), "epoch", measure)
        _plot(axes, accuracy, name)
        floor = min([floor, *accuracy.low[len(accuracy.low) // 8 :]])
    axes.set_ylim(bottom=floor - 0.5)  # the first climb would flatten all that comes after it


def _lines(runs: Runs, name: str, kind: Literal["steps", "evals"]) -> list[Record]:
    return [line for run in runs[name].values() for line in getattr(run, kind)]


def _plot(axes: Axes, curve: Curve, name: str, label: str = "") -> None:
    axes.fill_between(curve.x, curve.low, curve.high, color=colour(name), alpha=0.15, linewidth=0)
    dash = OPTIMIZERS[parsed(name)[0]].dash
    axes.plot(curve.x, curve.mean, color=colour(name), linestyle=dash, label=label)


def _title(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.margins(x=0.01)


def curve(records: Sequence[Record], x: str, y: str) -> Curve:
    """Return the number `y` of the records over `x`; a null is left out."""
    values = defaultdict(list)
    for record in records:
        if record.get(y) is not None:
            values[record[x]].append(record[y])
    spread = [(at, np.mean(ys), min(ys), max(ys)) for at, ys in sorted(values.items())]
    return Curve(*np.array(spread, dtype=np.float64).reshape(-1, 4).T)


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean of each value and the `width - 1` before it, or as many as there are.

    Examples:
        >>> running_mean(np.array([4.0, 2.0, 3.0, 7.0]), width=2)
        array([4. , 3. , 2.5, 5. ])
    """
    ends = range(1, len(values) + 1)
    return np.array([values[max(0, end - width) : end].mean() for end in ends])
