"""The picture of a schedule: the gradient norm, its mean, the zenith, and the rate that follows.

Needs matplotlib: `pip install "zenith-optim[plot]"`.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    error.msg = 'zenith.plot needs matplotlib: pip install "zenith-optim[plot]"'
    raise

from zenith.core import ZenithState, metrics
from zenith.readers import rows as rows_of

__all__ = ["plot"]

History = Iterable[ZenithState | Mapping[str, Any]] | str | PathLike[str]


def plot(
    history: History,
    *,
    lr: float | None = None,
    label: str = "ZENITH",
    color: str = "#0072B2",
    axes: tuple[Axes | None, Axes | None] | None = None,
) -> Figure:
    """Draw the norm, the mean and the zenith, and below them the learning rate.

    Args:
        history: what was seen at each step, one of: states; mappings with `grad_norm`, `mean`,
            `zenith` and `scale` (as `zenith.metrics` returns), and, where they have them, `step`
            and `lr`; or the path of a file of such rows, CSV or JSON lines, as `zenith.logs.to_csv`
            writes them. Where the steps or the `count` go back another run begins, and the lines
            are broken.
        lr: the learning rate that the scale multiplies. By default the rows' own `lr`, and the
            scale alone where they have none.
        label: the name of this schedule in the legends.
        color: of its lines, as matplotlib names colours.
        axes: where to draw the norms and the rate, to lay several over one another; None leaves
            one out. By default a new figure with two panels.

    Returns:
        The figure: `.savefig("rate.png")`.

    Raises:
        ValueError: if there is nothing to draw, or a row lacks a number.

    Examples:
        >>> import zenith
        >>> states = [zenith.init(window=2)]
        >>> for norm in [3.0, 5.0, 1.0]:
        ...     states.append(zenith.update(states[-1], norm))
        >>> figure = plot(states[1:], lr=0.1)
        >>> [round(float(y), 3) for y in figure.axes[1].lines[0].get_ydata()]
        [0.1, 0.1, 0.075]
    """
    if axes == (None, None):
        raise ValueError("`axes` must have a panel for the norms or for the rate, got none")
    seen = _apart(_rows(history))
    figure = None
    if axes is None:
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = tuple(figure.subplots(2, 1, sharex=True))
    norms, rates = axes
    if norms is not None:
        _draw_norms(norms, seen, label, color)
    if rates is not None:
        _draw_rates(rates, seen, lr, label, color)
    return figure or _figure_of(axes)


def _figure_of(axes: tuple[Axes | None, Axes | None]) -> Figure:
    figure = next(panel.get_figure(root=True) for panel in axes if panel is not None)
    if figure is None:
        raise ValueError("`axes` must belong to a figure")
    return figure


def _rows(history: History) -> list[dict[str, float]]:
    if isinstance(history, ZenithState):
        raise ValueError("`history` must be a sequence of states, got a single one")
    if isinstance(history, str | PathLike):
        history = rows_of(Path(history))
    rows = [_row(entry, step) for step, entry in enumerate(history, start=1)]
    if not rows:
        raise ValueError("`history` must hold at least one step, got none")
    return rows


def _row(entry: ZenithState | Mapping[str, Any], step: int) -> dict[str, float]:
    numbers = metrics(entry) if isinstance(entry, ZenithState) else entry
    if missing := [
        name for name in ("grad_norm", "mean", "zenith", "scale") if name not in numbers
    ]:
        raise ValueError(f"every row of `history` must have `{missing[0]}`, got {sorted(numbers)}")
    names = ("step", "lr", "grad_norm", "mean", "zenith", "scale", "count")
    return {"step": step} | {name: float(numbers[name]) for name in names if name in numbers}


def _apart(seen: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rows with one of NaN, which breaks the lines, where another run begins."""
    rows = seen[:1]
    for before, row in pairwise(seen):
        again = row["step"] <= before["step"] or row.get("count", 0) < before.get("count", 0)
        rows += [dict.fromkeys(row, math.nan)] * again + [row]
    return rows


def _draw_norms(axes: Axes, seen: list[dict[str, float]], label: str, color: str) -> None:
    full = [row for row in seen if row["zenith"] != 0]  # until then there is no mean
    if "norm" not in [line.get_label() for line in axes.lines]:  # the same under every window
        at = [row["step"] for row in seen]
        axes.plot(at, [row["grad_norm"] for row in seen], color="0.75", lw=0.8, label="norm")
    at = [row["step"] for row in full]
    axes.plot(at, [row["mean"] for row in full], color=color, label=f"mean, {label}")
    axes.plot(at, [row["zenith"] for row in full], color=color, ls=":", label=f"zenith, {label}")
    axes.set_ylabel("L2 norm of the gradient")
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_rates(
    axes: Axes, seen: list[dict[str, float]], lr: float | None, label: str, color: str
) -> None:
    own = lr is None and all("lr" in row for row in seen)
    factor = 1.0 if lr is None else lr
    rates = [row["lr"] if own else factor * row["scale"] for row in seen]
    axes.plot([row["step"] for row in seen], rates, color=color, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate" if own or lr is not None else "scale: lr in units of `lr`")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
