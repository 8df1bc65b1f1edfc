"""What a log's rows say of a ZENITH that is off, and where in a trainer ZENITH is."""

import math
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

from zenith.core import ZenithState, ZenithWarning

__all__ = ["Watch", "find"]


class Watch:
    """Warns, once for each optimizer and cause, where the rows of a log show that ZENITH is off.

    It is called like a sink, with rows that are read anyway. Every `MetricLog` has one, `.watch`.

    Args:
        remedy: a sentence that says what to do where norms were clipped before they were measured.
        window: of the schedule; by default the `count` in the first row with a full window.
    """

    def __init__(self, remedy: str = "", window: int | None = None) -> None:
        self.remedy, self.window = remedy, window
        self._told: set[str] = set()
        self._streak = 0.0, 0  # the norm, and the count, with which equal norms began
        self._last: Mapping[str, float] = {}

    def see(self, source: Any) -> None:
        """Take the window from an optimizer or a state, and what an optimizer's user was told."""
        if isinstance(source, ZenithState):
            self.window = len(source.norms)
        elif hasattr(source, "zenith_metrics"):
            self.window = source.window
            self._told = _TOLD.setdefault(source, self._told)

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        """Look at a row; one that lacks the schedule's numbers is passed over."""
        if not {"grad_norm", "mean", "zenith", "count"} <= numbers.keys():
            return
        self._last = numbers
        norm, count = numbers["grad_norm"], int(numbers["count"])
        if not _equal(self._streak[0], norm):
            self._streak = norm, count
        if numbers["zenith"] > 0:
            self.window = self.window or count
            streak = count - self._streak[1] + 1
            if streak >= max(10, self.window) and _equal(numbers["mean"], norm):
                seen = f"the last {streak} gradient norms are all {norm:.3g}"
                self._warn(clipped=self._clipped(seen))

    def run_of(self, steps: float, clips: str = "", schedules: str = "") -> None:
        """Warn, in one, of what is known before a run begins.

        Args:
            steps: how many there will be, with those before that ZENITH has seen; or infinity.
            clips: what clips before ZENITH measures, if anything does.
            schedules: a sentence on what else moves the rate without being asked to.
        """
        short = ""
        if self.window and steps <= self.window:
            run = f"the run of {steps:.0f} steps is no longer than the `window` of {self.window}"
            short = f"{run}: the rate stays at `lr`. Choose a shorter window."
        self._warn(clipped=clips and self._clipped(clips), scheduled=schedules, short=short)

    def ended(self) -> None:
        """Warn if the window was not full when the last row was logged."""
        last = self._last
        if last and last["zenith"] == 0 and (last["grad_norm"] > 0 or last["count"] == 0):
            window = f"the `window` of {self.window}" if self.window else "the `window`"
            ended = f"the log ended after {last['count']:.0f} gradient norms, before {window}"
            self._warn(short=f"{ended} was full: the rate was `lr` throughout.")

    def _clipped(self, seen: str) -> str:
        why = "ZENITH has to measure a norm before it is clipped, else the rate stands still"
        return f"{seen}: {why}. {self.remedy}".rstrip()

    def _warn(self, **causes: str) -> None:
        new = {cause: text for cause, text in causes.items() if text and cause not in self._told}
        self._told.update(new)
        if new:
            warnings.warn(" ".join(new.values()), ZenithWarning, stacklevel=3)


_TOLD: MutableMapping[Any, set[str]] = WeakKeyDictionary()  # of each optimizer, over all its logs


def _equal(a: float, b: float) -> bool:
    return b > 0 and math.isclose(a, b, rel_tol=1e-3)


def find(candidates: list[Any], rule: str) -> list[Any]:
    """Return the optimizers and schedulers under ZENITH among the candidates and inside of them.

    Args:
        candidates: optimizers and schedulers as a trainer has them, wrapped ones too; or None.
        rule: how the error begins where there is none.

    Raises:
        TypeError: if there is none.
    """
    found = {id(x): x for candidate in candidates for x in _inside(candidate)}
    if not found:
        names = " and ".join(type(x).__name__ for x in candidates)
        raise TypeError(f"{rule}, got {names or 'none'}")
    return list(found.values())


def _inside(x: Any) -> Iterator[Any]:
    """ZENITH in what Accelerate, LossScaleOptimizer, SequentialLR or ChainedScheduler wrap."""
    if hasattr(x, "zenith_metrics"):
        yield x
    elif x is not None:
        for name in ("optimizer", "inner_optimizer", "scheduler"):
            yield from _inside(getattr(x, name, None))
        for scheduler in getattr(x, "_schedulers", ()):
            yield from _inside(scheduler)
