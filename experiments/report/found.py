"""What there is to report on: the records of many files, whatever the state of one of them."""

from collections.abc import Iterable
from pathlib import Path

from experiments.errors import UserError
from experiments.records import Records, read
from experiments.terminal import say

__all__ = ["sound"]


def sound(files: Iterable[Path]) -> dict[Path, Records]:
    """Return the records in those files that can be read.

    One that cannot, or has no evaluation yet, is named on stderr in one line.
    """
    found = {}
    for path in files:
        try:
            found[path] = read(path)
        except UserError as error:
            say(f"left out: {error}")
            continue
        if not found[path].evals and found[path].outcome is None:
            say(f"left out: {path}: no evaluation yet")
    return found
