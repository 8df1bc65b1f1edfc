"""What a log's rows say of a ZENITH that is off, and where in a trainer ZENITH is."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import partial
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
        self.remedy = remedy
        self._seen = [_Seen(set(), window)]
        self._now = self._seen[0]

    def see(self, source: Any) -> Callable[[int, Mapping[str, float]], None]:
        """Take the window from an optimizer or a state, and what an optimizer's user was told.

        Returns:
            what looks at the rows of this source, as the watch does at those of the last one seen.
        """
        if hasattr(source, "zenith_metrics"):
            told = _TOLD.setdefault(source, set())
            self._now = next((seen for seen in self._seen if seen.told is told), _Seen(told))
            self._now.window = source.window
            if self._now not in self._seen:
                self._seen.append(self._now)
        else:
            self._now = self._seen[0]
            if isinstance(source, ZenithState):
                self._now.window = len(source.norms)
        return partial(self, seen=self._now)

    def __call__(
        self, step: int, numbers: Mapping[str, float], seen: "_Seen | None" = None
    ) -> None:
        """Look at a row; one that lacks the schedule's numbers is passed over."""
        if not {"grad_norm", "mean", "zenith", "count"} <= numbers.keys():
            return
        seen = seen or self._now
        seen.last = numbers
        norm, count = numbers["grad_norm"], int(numbers["count"])
        if not _equal(seen.streak[0], norm):
            seen.streak = norm, count
        if numbers["zenith"] > 0:
            seen.window = seen.window or count
            streak = count - seen.streak[1] + 1
            if streak >= max(10, seen.window) and _equal(numbers["mean"], norm):
                all_one = f"the last {streak} gradient norms are all {norm:.3g}"
                self._warn(seen, clipped=self._clipped(all_one))

    def run_of(self, steps: float, clips: str = "", schedules: str = "") -> None:
        """Warn, in one, of what is known before a run begins.

        Args:
            steps: how many there will be, with those before that ZENITH has seen; or infinity.
            clips: what clips before ZENITH measures, if anything does.
            schedules: a sentence on what else moves the rate without being asked to.
        """
        short = ""
        window = self._now.window
        if window and steps <= window:
            run = f"the run of {steps:.0f} steps is no longer than the `window` of {window}"
            short = f"{run}: the rate stays at `lr`. Choose a shorter window."
        self._warn(
            self._now, clipped=clips and self._clipped(clips), scheduled=schedules, short=short
        )

    def ended(self) -> None:
        """Warn if the window was not full when the last row was logged."""
        for seen in self._seen:
            last = seen.last
            if last and last["zenith"] == 0 and (last["grad_norm"] > 0 or last["count"] == 0):
                window = f"the `window` of {seen.window}" if seen.window else "the `window`"
                ended = f"the log ended after {last['count']:.0f} gradient norms, before {window}"
                self._warn(seen, short=f"{ended} was full: the rate was `lr` throughout.")

    def _clipped(self, seen: str) -> str:
        why = "ZENITH has to measure a norm before it is clipped, else the rate stands still"
        return f"{seen}: {why}. {self.remedy}".rstrip()

    def _warn(self, seen: "_Seen", **causes: str) -> None:
        new = {cause: text for cause, text in causes.items() if text and cause not in seen.told}
        seen.told.update(new)
        if new:
            warnings.warn(" ".join(new.values()), ZenithWarning, stacklevel=3)


@dataclass(eq=False)
class _Seen:
    """What a watch has seen of one optimizer."""

    told: set[str]
    window: int | None = None
    streak: tuple[float, int] = (0.0, 0)  # the norm, and the count, with which equal norms began
    last: Mapping[str, float] = field(default_factory=dict)


_TOLD: MutableMapping[Any, set[str]] = WeakKeyDictionary()  # of each optimizer, over all its logs


def _equal(a: float, b: float) -> bool:
    return b > 0 and math.isclose(a, b, rel_tol=1e-2)  # bfloat16 rounds by up to 2**-8


def find(candidates: list[Any], rule: str) -> list[Any]:
    """Return the optimizers and schedulers under ZENITH among the candidates and inside of them.

    Args:
        candidates: optimizers and schedulers as a trainer has them, wrapped ones too; or None.
        rule: how the error begins where there is none.

    Raises:
        TypeError: if there is none.
    """
    looked: set[int] = set()
    found = [x for candidate in candidates for x in _inside(candidate, looked)]
    if not found:
        names = " and ".join(type(x).__name__ for x in candidates)
        raise TypeError(f"{rule}, got {names or 'none'}")
    return found


def _inside(x: Any, looked: set[int]) -> Iterator[Any]:
    """ZENITH in what Accelerate, LossScaleOptimizer, SequentialLR or ChainedScheduler wrap.

    Each is looked into once, since a scheduler and its optimizer may hold each other.
    """
    if id(x) in looked:
        return
    looked.add(id(x))
    if hasattr(x, "zenith_metrics"):
        yield x
    elif x is not None:
        for name in ("optimizer", "inner_optimizer", "scheduler"):
            yield from _inside(getattr(x, name, None), looked)
        for scheduler in getattr(x, "_schedulers", ()):
            yield from _inside(scheduler, looked)
