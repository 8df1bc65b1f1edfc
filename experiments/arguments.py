"""Numbers on the command line, checked as they are read."""

from collections.abc import Callable

from zenith.cli import checked, number, size

__all__ = ["count", "number", "rate", "share", "size", "up_to", "window"]


def up_to(limit: int) -> Callable[[str], int]:
    """Return what reads an integer from 1 to `limit`."""
    return checked(int, f"an integer from 1 to {limit}", lambda value: 1 <= value <= limit)


# So that no two pairs of a seed and a segment, or a step, share a generator's seed.
count = checked(int, "an integer from 0 to 999999", lambda value: 0 <= value < 1_000_000)
# Far beyond any run here; above it, the ring would just fill the memory.
window = up_to(1_000_000)
rate = checked(float, "a number > 0, at most 1e30", lambda value: 0 < value <= 1e30)  # of float32
share = checked(float, "at least 0 and below 1", lambda value: 0 <= value < 1)
