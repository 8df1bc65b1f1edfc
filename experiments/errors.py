"""What a user can put right."""

from collections.abc import Iterator
from contextlib import contextmanager

from zenith.demo.errors import UserError, reason

__all__ = ["UserError", "explained"]


@contextmanager
def explained(failure: str) -> Iterator[None]:
    """Let what the operating system refuses end in one line: `failure (Permission denied)`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{failure} ({reason(error)})") from None
