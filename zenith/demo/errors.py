"""What a user can put right."""


class UserError(Exception):
    """A mistake of the user's or a failure of the machine's; the message names what and where.

    `zenith.cli.main` prints it as one line on stderr and returns exit code 2.
    """


def reason(error: OSError) -> str:
    """What the operating system said, without the number and the path: "Permission denied"."""
    return error.strerror or str(error)
