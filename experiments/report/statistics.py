"""What can be said of runs that share their seeds, and of optimizers over several tasks."""

import math
from collections.abc import Mapping, Sequence
from math import inf, nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = [
    "LEVEL",
    "MARGIN",
    "Effect",
    "effect",
    "holm",
    "paired",
    "powerless",
    "profile",
    "ranks",
    "shown",
    "verdict",
]

MARGIN = 0.2  # points of accuracy: less makes no difference
LEVEL = 0.05
LEAST = 6  # pairs: of fewer no exact test reaches that
EXACT = 14  # pairs: of more not every flip is tried
DRAWN = 2 ** (EXACT + 1) - 1  # flips, where it is not


class Effect(NamedTuple):
    """How much better one is than another over the seeds that both have.

    Attributes:
        pairs: how many there are.
        mean: of the differences.
        low: of its 95 % interval, by Student's t; NaN where one pair or an infinite one has none.
        high: of that interval.
        p: of the two-sided test that flips the signs of the differences.
        p_equivalent: of two one-sided t-tests that the mean is within the margin on both sides: the
            greater of theirs, below 0.05 where the 90 % interval is within.
    """

    pairs: int
    mean: float
    low: float
    high: float
    p: float
    p_equivalent: float


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Return the differences, the first less the second, of the seeds that both have, in order.

    Examples:
        >>> paired({2: 5.0, 1: 3.0, 0: 9.0}, {1: 1.0, 2: 1.0})
        [2.0, 4.0]
    """
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def effect(differences: Sequence[float], margin: float = MARGIN) -> Effect:
    """Return what the differences come to, of which there is one or more for as many seeds."""
    found = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(found).all():
        total = found[~np.isnan(found)].sum()
        return Effect(len(found), float(total), nan, nan, 1.0, 1.0)
    same = _within(found, margin)
    return Effect(len(found), float(found.mean()), *_interval(found), _flipped(found), same)


def shown(found: Effect) -> str:
    """Return the mean difference with its interval, where it has one.

    Examples:
        >>> shown(effect([0.1]))
        '+0.10'
    """
    interval = "" if math.isnan(found.low) else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.mean:+.2f}{interval}"


def _flipped(values: NDArray[np.float64]) -> float:
    """The p-value of all flips of signs, or above `EXACT` pairs of so many that are drawn."""
    if len(values) < 2:
        return 1.0
    test = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=DRAWN, batch=1 << 16, rng=0
    )
    return float(test.pvalue)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """That of 95 %."""
    count = len(values)
    if count < 2:
        return nan, nan
    half = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)
    return float(values.mean() - half), float(values.mean() + half)


def _within(values: NDArray[np.float64], margin: float) -> float:
    """The p-value of two one-sided tests."""
    count, room = len(values), margin - abs(float(values.mean()))
    error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else inf
    if error == 0:
        return 0.0 if room > 0 else 1.0
    return float(stats.t.sf(room / error, count - 1)) if count > 1 else 1.0


def powerless(pairs: Sequence[int]) -> str:
    """Return why the tests of the fewest pairs cannot reach 0.05; "" where they can.

    Args:
        pairs: of each test of a table, over which Holm adjusts.

    Examples:
        >>> powerless([5])
        'With 5 pairs no exact test can reach 0.05: after Holm the least p is 0.062.'
        >>> powerless([10, 10, 10, 10, 6])
        ''
    """
    fewest = min(pairs)
    least = max(holm([2 / 2**each for each in pairs]))
    if least < LEVEL:
        return ""
    why = f"after Holm the least p is {least:.2g}"
    return f"With {fewest} pairs no exact test can reach {LEVEL}: {why}."


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p-values of one table as Holm adjusts them, in their order."""
    order = np.argsort(ps, kind="stable")
    raised = np.asarray(ps, dtype=np.float64)[order] * np.arange(len(ps), 0, -1)
    adjusted = np.empty(len(ps))
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return [float(p) for p in adjusted]


def verdict(found: Effect, p: float, p_equivalent: float) -> str:
    """Return what becomes of the claim that the first is better.

    Args:
        found: the differences, the first minus the second.
        p: adjusted over the table.
        p_equivalent: likewise.

    Returns:
        `held`, `contradicted here`, `equivalent` or `not shown`; the first two with `by less than
        the margin` where both are shown.
    """
    same = p_equivalent < LEVEL
    if p < LEVEL:
        word = "held" if found.mean > 0 else "contradicted here"
        return f"{word}, by less than the margin" if same else word
    return "equivalent" if same else "not shown"


def ranks(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the mean rank of each over the tasks: 1 has the highest value, equals share theirs.

    Args:
        values: by optimizer, one for each task.
    """
    if not values:
        return {}
    found = stats.rankdata(-np.array([*values.values()]), axis=0)
    return dict(zip(values, found.mean(axis=1).tolist(), strict=True))


def profile(
    times: Mapping[str, Sequence[float]], factors: ArrayLike
) -> dict[str, NDArray[np.float64]]:
    """Return the performance profiles of Dolan and Moré (2002).

    Args:
        times: by optimizer, to the target of each task; infinite for a miss.
        factors: shape (k,), at least 1.

    Returns:
        By optimizer, shape (k,): on what share of the tasks it took at most so many times as long
        as the fastest. A task whose target none reaches counts as a miss of all.
    """
    found = np.array([*times.values()], dtype=np.float64)
    fastest = found.min(axis=0)
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isinf(found), inf, found / fastest)
    shares = (ratios[:, :, None] <= np.asarray(factors)).mean(axis=1)
    return dict(zip(times, shares, strict=True))
