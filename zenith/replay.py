"""What would ZENITH have done? The schedule, replayed over gradient norms that a run has logged.

The answer is about the rates alone: had they been in force, the weights and the norms would have
been others.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from zenith import core
from zenith.records import Series, spacing

__all__ = ["Replay", "replay", "warnings"]

_SATURATED = 0.2  # of the norms at their very maximum: no loss surface does that


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


def warnings(logged: Series, windows: Sequence[int]) -> list[str]:
    """Return what makes the replay say less than it seems to, one sentence each."""
    found = []
    finite = [norm for norm in logged.values if math.isfinite(norm) and norm >= 0]
    if rejected := len(logged.values) - len(finite):
        found.append(
            f"{rejected} of {len(logged.values)} norms are negative or not finite, and are skipped"
        )
    if logged.replaced:
        found.append(
            f"the log comes back to earlier steps: {logged.replaced} norms of what a resumed run "
            "has done again are left out"
        )
    if not finite:
        return found
    highest = max(finite)
    # A clipped norm is the bound up to rounding; a few at the maximum are nothing.
    at_the_top = sum(norm >= highest * (1 - 1e-3) for norm in finite)
    if highest > 0 and len(finite) >= 10 and at_the_top > _SATURATED * len(finite):
        found.append(
            f"{at_the_top} of {len(finite)} norms are {highest:.6g}, the highest: were they taken "
            "after clipping? Then ZENITH, which measures before it, would have seen others"
        )
    if (every := spacing(logged.steps)) > 1:
        found.append(f"one step in {every} was logged: the means are estimates")
    known = len(finite) * every
    found += [
        f"the run is shorter than the window of {window}: {known} steps, all at `lr`"
        for window in windows
        if known < window
    ]
    return found
