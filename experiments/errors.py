"""What a user can put right."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake of the user's or a failure of the machine's; the message names what and where.

    `experiments.__main__` prints it as one line on stderr and returns exit code 2.
    """


@contextmanager
def explained(failure: str) -> Iterator[None]:
    """Let what the operating system refuses end in one line: `failure (Permission denied)`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{failure} ({error.strerror or error})") from None
