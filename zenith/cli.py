"""The command `zenith`: whatever a user can get wrong ends in one line on stderr and exit code 2.

What the commands do is in `zenith.demo`, which needs the extra of the same name (`zenith replay`
needs `plot` alone). It is imported here only when the command runs, so that a plain install can
still say what is missing.
"""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

__all__ = ["main"]

_OF_A_FILE = {
    "h5py": "h5py",
    "jax": "orbax-checkpoint",
    "orbax": "orbax-checkpoint",
    "tensorboard": "tensorboard",
}

# 128 and the number of the signal, as in a shell
FAILED, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the arguments after the program's name; by default those of the process.

    Returns:
        0 when all went well, 2 after a mistake that stderr names in one line, 130 after Ctrl-C,
        141 where nobody reads the output any longer.
    """
    _never_fail_to_print()
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        return _fail(_missing_extra(error, arguments))
    except BrokenPipeError:  # whoever read the output has gone: `zenith replay ... | head -1`
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        _discard_output()
        return _fail(f"the output cannot be written ({error.strerror or error})")
    except KeyboardInterrupt:
        print("zenith: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(argv: list[str]) -> int:
    from zenith.demo.commands import UsageError, app
    from zenith.demo.errors import UserError

    try:
        job = app(argv, prog_name="zenith", standalone_mode=False)
        return job() if callable(job) else int(job or 0)
    except UserError as error:
        return _fail(str(error))
    except UsageError as error:
        return _fail(error.format_message())


def _fail(message: str) -> int:
    print("zenith: error:", " ".join(message.split()), file=sys.stderr)
    return FAILED


def _discard_output() -> None:
    """Let the interpreter not try again, as it ends, to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _missing_extra(error: ModuleNotFoundError, arguments: Sequence[str]) -> str:
    missing = (error.name or "").partition(".")[0]
    if missing in ("", "zenith"):
        raise error  # a fault of ours, which no extra puts right
    extra = "plot" if arguments[:1] == ["replay"] else "demo"
    package = _OF_A_FILE.get(missing, f'"zenith-optim[{extra}]"')
    return f"{missing} is not installed: pip install {package}"


def _never_fail_to_print() -> None:
    """Let a terminal without, say, the sign ± show an escape in its place."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
