"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

__all__ = ["grid"]


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column is text."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
