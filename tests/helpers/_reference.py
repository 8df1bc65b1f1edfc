"""Algorithm 1 of the paper, line by line, in float64: independent of everything in zenith/."""

import math
from collections import deque
from collections.abc import Iterable

# How far two float32 runs of one training may lie apart whose sums are made in another order, where
# scales and weights are about 1: a rounding of each of some 40 operations in each of 20 steps.
ROUNDING = 20 * 40 * 2**-24


def scales(norms: Iterable[float], window: int) -> list[float]:
    """Return eta / eta_0 of every iteration."""
    queue: deque[float] = deque()
    zenith = 0.0
    eta = 1.0
    etas = []
    for g in norms:
        queue.append(g)
        if len(queue) > window:
            queue.popleft()
        if len(queue) == window:
            mu = math.fsum(queue) / window
            zenith = max(zenith, mu)
            eta = mu / zenith if zenith > 0 else 1.0
        etas.append(eta)
    return etas
