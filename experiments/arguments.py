"""Numbers on the command line, checked as they are read."""

import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TypeVar

__all__ = ["count", "number", "rate", "share", "size", "window"]

T = TypeVar("T", int, float)


def _checked(kind: Callable[[str], T], rule: str, holds: Callable[[T], bool]) -> Callable[[str], T]:
    def read(text: str) -> T:
        try:
            value = kind(text)
        except ValueError:
            value = kind("-1")
        if not holds(value):
            raise ArgumentTypeError(f"must be {rule}, got {text!r}")
        return value

    return read


count = _checked(int, "an integer >= 0", lambda value: value >= 0)
size = _checked(int, "an integer >= 1", lambda value: value >= 1)
# Far beyond any run here; above it, the ring would just fill the memory.
window = _checked(int, "an integer from 1 to 1000000", lambda value: 1 <= value <= 1_000_000)
number = _checked(float, "a finite number >= 0", lambda value: 0 <= value < math.inf)
rate = _checked(float, "a finite number > 0", lambda value: 0 < value < math.inf)
share = _checked(float, "at least 0 and below 1", lambda value: 0 <= value < 1)
