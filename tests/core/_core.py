"""States, norms and settings that the tests of the core share."""

import math
import sys
from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st

from zenith import ZenithState, update

# The same examples in every run, and none that fails for being slow on a busy machine.
reproducible = settings(deadline=None, derandomize=True, database=None, max_examples=150)

LARGEST = sys.float_info.max
REJECTED = [math.nan, math.inf, -math.inf, -1.0, -5e-324]
EDGES = [0.0, 5e-324, 1e-310, 1e-300, 1e-154, 1.0, 1e8, 1e154, 1e308, LARGEST]

windows = st.integers(1, 9)
finite = st.floats(1e-3, 1e3) | st.sampled_from(EDGES) | st.floats(0.0, LARGEST)


def last(state: ZenithState, norms: Iterable[float]) -> ZenithState:
    for norm in norms:
        state = update(state, norm)
    return state


DOCUMENT = {
    "version": 1,
    "norms": [1.0, 2.0, 3.0],
    "count": 5,
    "mean": 2.0,
    "zenith": 4.0,
    "scale": 0.5,
    "skipped": 7,
}
STATE = ZenithState([1.0, 2.0, 3.0], count=5, mean=2.0, zenith=4.0, scale=0.5, skipped=7)
