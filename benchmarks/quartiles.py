"""The figures that every benchmark prints: a median with its quartiles."""

import statistics
from collections.abc import Sequence


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """The median and the quartiles; of one value, that value."""
    if len(values) == 1:
        return dict.fromkeys(("q1", "median", "q3"), values[0])
    names = ("q1", "median", "q3")
    return dict(zip(names, statistics.quantiles(values, n=4, method="inclusive"), strict=True))


def ratios(own: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """The quartiles of the ratios of figures to those of a baseline in the same repetitions."""
    return quartiles([ours / theirs for ours, theirs in zip(own, baseline, strict=True)])


def spread(figures: dict[str, float], digits: int) -> str:
    """The figures as text: `median [q1, q3]`."""
    median, low, high = (f"{figures[key]:.{digits}f}" for key in ("median", "q1", "q3"))
    return f"{median} [{low}, {high}]"
