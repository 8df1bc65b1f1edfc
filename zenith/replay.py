"""What would ZENITH have done? The schedule, replayed over gradient norms that a run has logged.

The answer is about the rates alone: had they been in force, the weights and the norms would have
been others.
"""

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from zenith import core
from zenith.readers import Series, spacing

__all__ = ["Replay", "picture", "replay", "table", "warnings"]

_SATURATED = 0.2  # of the norms at their very maximum: no loss surface does that
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's


class Replay(NamedTuple):
    """What one window would have made of the norms.

    Attributes:
        window: in steps of the run.
        rows: for each norm `step`, `grad_norm` and the state's `mean`, `zenith`, `scale`, `count`
            and `skipped` after it, as `zenith.plot.plot` draws them.
    """

    window: int
    rows: list[dict[str, Any]]

    def summary(self, lr: float) -> dict[str, Any]:
        """Return the figures of a line in the summary, rates in units of `lr`."""
        last = self.rows[-1]
        scales = [row["scale"] for row in self.rows]
        full = next((row["step"] for row in self.rows if row["zenith"] > 0), None)
        return {
            "window": self.window,
            "full at step": full,
            "zenith": last["zenith"],
            "last mean": last["mean"],
            "lowest rate": lr * min(scales),
            "mean rate": lr * sum(scales) / len(scales),
            "last rate": lr * last["scale"],
        }


def replay(logged: Series, window: int) -> Replay:
    """Run the schedule over norms that were logged.

    Where only every k-th step was logged, the mean over `window` steps is estimated by that of the
    `window / k` norms that are known of them.

    Raises:
        TypeError, ValueError: if `window` is not an integer >= 1.

    Examples:
        >>> result = replay(Series("norm", [1, 2, 3], [3.0, 5.0, 1.0]), window=2)
        >>> [row["scale"] for row in result.rows]
        [1.0, 1.0, 0.75]
    """
    entries = max(1, round(core.checked_window(window) / spacing(logged.steps)))
    state = core.init(min(entries, len(logged.values) + 1))  # more would never be full either
    rows = []
    for step, norm in zip(logged.steps, logged.values, strict=True):
        state = core.update(state, norm)
        numbers = core.metrics(state) | {"grad_norm": norm if math.isfinite(norm) else math.nan}
        rows.append({"step": step, **numbers})
    return Replay(window, rows)


def table(summaries: Sequence[dict[str, Any]]) -> str:
    """Return what `Replay.summary` returns of each window as columns of text."""
    names = list(summaries[0])
    cells = [names] + [[_text(summary[name]) for name in names] for summary in summaries]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = ([f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)] for row in cells)
    return "\n".join(map("  ".join, padded))


def _text(value: Any) -> str:
    return "never" if value is None else f"{value:.5g}"


def picture(replays: Sequence[Replay], lr: float, form: str = "png") -> bytes:
    """Return the picture of all windows over one another, as a file of that format.

    Raises:
        ModuleNotFoundError: if matplotlib is not there.
        ValueError, OverflowError: of matplotlib, where norms are near the largest number.
    """
    from zenith.plot import plot

    axes: Any = None
    for i, result in enumerate(replays):
        label, color = f"window {result.window}", _COLOURS[i % len(_COLOURS)]
        figure = plot(result.rows, lr=lr, label=label, color=color, axes=axes)
        axes = figure.axes
    file = io.BytesIO()
    figure.savefig(file, format=form, dpi=120)
    return file.getvalue()


def warnings(logged: Series, windows: Sequence[int]) -> list[str]:
    """Return what makes the replay say less than it seems to, one sentence each."""
    finite = [norm for norm in logged.values if math.isfinite(norm) and norm >= 0]
    found = _of_the_log(logged, len(finite))
    if not finite:
        return found
    found += _of_clipping(finite)
    if (every := spacing(logged.steps)) > 1:
        found.append(f"one step in {every} was logged: the means are estimates")
    known = len(finite) * every
    return found + [
        f"the run is shorter than the window of {window}: {known} steps, all at `lr`"
        for window in windows
        if known < window
    ]


def _of_the_log(logged: Series, accepted: int) -> list[str]:
    """What is not taken as it stands in the log; `accepted` is how many norms are finite."""
    found = []
    if logged.counted:
        found.append("the log names no step: its rows were counted, and a window is one of rows")
    if rejected := len(logged.values) - accepted:
        found.append(
            f"{rejected} of {len(logged.values)} norms are negative or not finite, and are skipped"
        )
    if logged.replaced:
        found.append(
            f"the log comes back to earlier steps: {logged.replaced} norms of what a resumed run "
            "has done again are left out"
        )
    return found


def _of_clipping(finite: Sequence[float]) -> list[str]:
    """That the norms look as if they were taken after clipping, if they do."""
    highest = max(finite)
    # A clipped norm is the bound up to rounding, as in bfloat16; a few at the maximum are nothing.
    at_the_top = sum(norm >= highest * (1 - 1e-2) for norm in finite)
    if highest == 0 or len(finite) < 10 or at_the_top <= _SATURATED * len(finite):
        return []
    return [
        f"{at_the_top} of {len(finite)} norms are {highest:.6g}, the highest: were they taken "
        "after clipping? Then ZENITH, which measures before it, would have seen others"
    ]
