"""Numbers on the command line, checked as they are read."""

from argparse import ArgumentTypeError

__all__ = ["count", "number", "size"]


def number(text: str) -> float:
    """Return a finite number >= 0."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"must be a finite number >= 0, got {text!r}")
    return value


def count(text: str) -> int:
    """Return an integer >= 0."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"must be an integer >= 0, got {text!r}")
    return int(text)


def size(text: str) -> int:
    """Return an integer >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)
