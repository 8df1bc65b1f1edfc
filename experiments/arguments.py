"""Numbers on the command line, checked as they are read."""

import math

from zenith.cli import checked, number, size

__all__ = ["count", "number", "rate", "share", "size", "window"]

count = checked(int, "an integer >= 0", lambda value: value >= 0)
# Far beyond any run here; above it, the ring would just fill the memory.
window = checked(int, "an integer from 1 to 1000000", lambda value: 1 <= value <= 1_000_000)
rate = checked(float, "a finite number > 0", lambda value: 0 < value < math.inf)
share = checked(float, "at least 0 and below 1", lambda value: 0 <= value < 1)
