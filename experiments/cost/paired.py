"""The measurement that every table of cost is made by: interleaved, paired, and by quartiles.

One repetition measures everything once, in an order drawn anew, and each figure is compared with
the baseline's of the *same* repetition, so that a machine whose speed wanders moves both alike.
A process that has one core (`taskset -c 0`) is timed by its own clock, which leaves out what other
programs take of that core.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from experiments.machine import cores

__all__ = ["clock", "differences", "interleaved", "now", "quartiles", "ratios", "spread"]

T = TypeVar("T")
Quartiles = dict[str, float]


def now() -> float:
    """The present moment in seconds."""
    return time.process_time() if cores() == 1 else time.perf_counter()


def clock(work: Callable[[], Any], steps: int = 1) -> Callable[[], float]:
    """Return what does the work and returns its milliseconds for each of its `steps`."""

    def run() -> float:
        start = now()
        work()
        return 1e3 * (now() - start) / steps

    return run


def interleaved(runs: Mapping[str, Callable[[], T]], repetitions: int) -> dict[str, list[T]]:
    """Return what each of `runs` returned, a list with one entry for each repetition.

    A repetition more comes first, in which caches and compilers warm up, and is thrown away.
    """
    samples: dict[str, list[T]] = {name: [] for name in runs}
    draw = random.Random(0)
    for repetition in range(repetitions + 1):
        for name in draw.sample(list(runs), len(runs)):
            found = runs[name]()
            if repetition:
                samples[name].append(found)
        _show(f"repetition {repetition} of {repetitions}" * (repetition < repetitions))
    return samples


def _show(text: str) -> None:
    """Put `text` in place of the terminal's last line, if there is a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def quartiles(values: Sequence[float]) -> Quartiles:
    """The median and the quartiles; of one value, that value.

    Examples:
        >>> quartiles([1.0, 2.0, 3.0, 5.0])
        {'q1': 1.75, 'median': 2.5, 'q3': 3.5}
    """
    if len(values) == 1:
        return dict.fromkeys(("q1", "median", "q3"), values[0])
    names = ("q1", "median", "q3")
    return dict(zip(names, statistics.quantiles(values, n=4, method="inclusive"), strict=True))


def ratios(own: Sequence[float], baseline: Sequence[float]) -> Quartiles:
    """The quartiles of the ratios of figures to a baseline's in the same repetitions."""
    return quartiles([ours / theirs for ours, theirs in zip(own, baseline, strict=True)])


def differences(own: Sequence[float], baseline: Sequence[float]) -> Quartiles:
    """The quartiles of the differences of figures from a baseline's in the same repetitions."""
    return quartiles([ours - theirs for ours, theirs in zip(own, baseline, strict=True)])


def spread(figures: Quartiles, digits: int) -> str:
    """The figures as text: `median [q1, q3]`."""
    median, low, high = (f"{figures[key]:.{digits}f}" for key in ("median", "q1", "q3"))
    return f"{median} [{low}, {high}]"
