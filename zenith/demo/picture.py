"""The picture of a run: four panels, drawn from the records alone."""

import io
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from zenith.demo.records import Record, of_kind
from zenith.plot import plot

LABELS = {"zenith": "ZENITH", "sgd": "SGD, constant rate", "sgd-cosine": "SGD, cosine annealing"}
COLOURS = {"zenith": "#0072B2", "sgd": "#D55E00", "sgd-cosine": "#009E73"}  # Okabe and Ito's
DASHES = {"zenith": "-", "sgd": "--", "sgd-cosine": "-."}  # to tell them apart without colours
SMOOTHING = 25  # step records in the running mean of the loss
STYLE: dict[Any, Any] = {
    "font.size": 17,
    "axes.titlesize": 19,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "lines.linewidth": 2.5,
    "legend.frameon": False,
    "legend.fontsize": 16,
}


class Curve(NamedTuple):
    """One number over the steps: the mean over the seeds, and the lowest and highest of them."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def draw(records: Sequence[Record]) -> bytes:
    """Return the picture as a PNG of 1600 x 1000 pixels.

    Args:
        records: all records of a run, the header first.
    """
    # A Figure without pyplot has no global state and no window, and Agg renders it everywhere.
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE}):
        figure = Figure(figsize=(16, 10), dpi=100, layout="constrained")
        panels = figure.subplots(2, 2)
        _norms(panels[0, 0], of_kind(records, "step", "zenith"))
        _rates(panels[0, 1], records)
        _losses(panels[1, 0], records)
        _accuracies(panels[1, 1], records)
        lines, _ = panels[0, 1].get_legend_handles_labels()
        handles = [*lines, Patch(color="0.85", label="range of the seeds")]
        figure.legend(handles=handles, loc="outside upper center", ncols=4, handlelength=3)
        return _png(figure)


def _norms(axes: Axes, steps: Sequence[Record]) -> None:
    _title(axes, "(a) What ZENITH measures", "iteration", "L2 norm of the gradient")
    if not steps:
        axes.text(0.5, 0.5, "no run of ZENITH", transform=axes.transAxes, ha="center")
        return
    seed = steps[0]["seed"]
    own = [step for step in steps if step["seed"] == seed]
    plot(own, axes=(axes, None), label=f"seed {seed}", color=COLOURS["zenith"])


def _rates(axes: Axes, records: Sequence[Record]) -> None:
    _title(axes, "(b) The learning rate in force", "iteration", "learning rate")
    for name in records[0]["optimizers"]:
        _plot(axes, curve(of_kind(records, "step", name), "step", "lr"), name, LABELS[name])
    axes.set_ylim(bottom=0)


def _losses(axes: Axes, records: Sequence[Record]) -> None:
    _title(axes, "(c) Training loss (running mean)", "iteration", "cross-entropy in nats")
    axes.set_yscale("log")
    for name in records[0]["optimizers"]:
        raw = curve(of_kind(records, "step", name), "step", "loss")
        _plot(axes, Curve(raw.x, *(running_mean(y, SMOOTHING) for y in raw[1:])), name)


def _accuracies(axes: Axes, records: Sequence[Record]) -> None:
    _title(axes, "(d) Test accuracy", "epoch", "% of the test images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    floor = 100.0
    for name in records[0]["optimizers"]:
        accuracy = curve(of_kind(records, "epoch", name), "epoch", "test_accuracy")
        _plot(axes, accuracy, name)
        floor = min([floor, *accuracy.low[len(accuracy.low) // 8 :]])
    axes.set_ylim(bottom=floor - 0.5)  # the first climb would flatten all that comes after it


def _plot(axes: Axes, curve: Curve, name: str, label: str = "") -> None:
    colour = COLOURS[name]
    axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(curve.x, curve.mean, color=colour, linestyle=DASHES[name], label=label)


def _title(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.margins(x=0.01)


def _png(figure: Figure) -> bytes:
    """Render the figure; a palette in place of full colours makes the file a third as large."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png")
    Image.open(full).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
        small, format="PNG", optimize=True
    )
    return small.getvalue()


def curve(records: Sequence[Record], x: str, y: str) -> Curve:
    """Return the number `y` of the records over `x`; a null is left out."""
    values = defaultdict(list)
    for record in records:
        if record[y] is not None:
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
