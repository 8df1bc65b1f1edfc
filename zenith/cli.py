"""The command `zenith`: whatever a user can get wrong ends in one line on stderr and exit code 2.

It needs Python alone; what reads a file of a framework, or draws, is imported as it is needed.
What `__all__` names, `main` aside, serves the experiments' command line too.
"""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, version
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from zenith import checkpoints, core, readers, replay

__all__ = [
    "Parser",
    "UserError",
    "checked",
    "explained",
    "guarded",
    "main",
    "number",
    "own_version",
    "size",
    "write",
]

T = TypeVar("T", int, float)

_PACKAGES = {
    "h5py": "h5py",
    "jax": "orbax-checkpoint",
    "matplotlib": '"zenith-optim[plot]"',
    "orbax": "orbax-checkpoint",
    "tensorboard": "tensorboard",
    "torch": '"zenith-optim[torch]"',
}
_FORMATS = (".png", ".svg", ".pdf")

# 128 and the number of the signal, as in a shell
FAILED, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


class UserError(Exception):
    """A mistake of the user's or a failure of the machine's; the message names what and where."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, as `guarded` has it.

    Args:
        argv: the arguments after the program's name; by default those of the process.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)

    def work() -> int:
        options = _parser().parse_args(_respelled(arguments))
        options.run(options)
        return 0

    return guarded("zenith", work)


def guarded(program: str, work: Callable[[], int], packages: Mapping[str, str] = _PACKAGES) -> int:
    """Do the work of a command line and return its exit code.

    Args:
        program: its name, with which what it says on stderr begins.
        work: returns an exit code.
        packages: what to install for a module that is missing, where its name is another.

    Returns:
        What `work` returned, or 0 after `--help`; 2 after a mistake that stderr names in one line,
        130 after Ctrl-C, 141 where nobody reads the output any longer.
    """
    _never_fail_to_print()
    try:
        with redirect_stdout(_Output(sys.stdout)) as output:
            code = _unless_it_exits(work)
            output.flush()
        return code
    except UserError as error:
        return _fail(program, str(error))
    except ModuleNotFoundError as error:
        return _fail(program, _missing(error, packages))
    except _OutputError as error:
        _discard_output()
        if isinstance(error.reason, BrokenPipeError):  # as by `zenith replay ... | head -1`
            return BROKEN_PIPE
        return _fail(program, f"the output cannot be written ({_reason(error.reason)})")
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        return _fail(program, place + _reason(error))
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _unless_it_exits(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as done:  # after --help or --version
        return int(done.code or 0)


class _OutputError(Exception):
    """Stdout takes nothing more, for this reason."""

    def __init__(self, reason: OSError) -> None:
        self.reason = reason


class _Output:
    """Stdout, whose failure is an `_OutputError` and so not taken for another file's."""

    def __init__(self, stream: Any) -> None:
        self._stream = StringIO() if stream is None else stream  # None where a shell closed it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._told():
            return int(self._stream.write(text))

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    @staticmethod
    @contextmanager
    def _told() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _OutputError(error) from error


class Parser(argparse.ArgumentParser):
    """One whose complaint is a `UserError`, which names the argument in backticks.

    It and its subcommands take no option that is abbreviated.
    """

    def __init__(self, prog: str | None = None, **options: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **options)

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, end="", file=file)  # argparse's own hides that nobody reads it

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments."""
        raise UserError(re.sub(r"^argument (\S+):", r"`\1`", message))


def checked(kind: Callable[[str], T], rule: str, holds: Callable[[T], bool]) -> Callable[[str], T]:
    """Return what reads a number of the command line: the `type` of an argument.

    Args:
        kind: int or float.
        rule: what the number must be, in words.
        holds: whether a number keeps to the rule.
    """

    def read(text: str) -> T:
        with suppress(ValueError):
            if holds(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"must be {rule}, got {text!r}")

    return read


size = checked(int, "an integer >= 1", lambda value: value >= 1)
number = checked(float, "a finite number >= 0", lambda value: 0 <= value < math.inf)


def _parser() -> argparse.ArgumentParser:
    about = "ZENITH: SGD that sets its own learning rate from the history of the gradient norm."
    parser = Parser("zenith", description=about)
    parser.add_argument("--version", action="version", version=f"zenith-optim {own_version()}")
    commands = parser.add_subparsers(title="commands", required=True)
    _add(commands, "replay", _replay, "Tell what rates ZENITH would have set, from logged norms.")
    state = commands.add_parser("state", help="The schedule's state in a checkpoint.")
    actions = state.add_subparsers(title="commands", required=True)
    _add(actions, "show", _show, "Print the numbers of the schedule, one on each line.")
    _add(actions, "convert", _convert, "Write the state as JSON that every framework can load.")
    return parser


def _add(commands: Any, name: str, run: Callable[[Any], None], about: str) -> None:
    """Add a command with its options; each is one `add` below."""
    parser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(run=run)
    add = parser.add_argument
    if name == "replay":
        add("norms", type=Path, metavar="NORMS", help=_LOGS)
        add("--window", type=size, action="append", metavar="STEPS...", help=_WINDOWS)
        add("--lr", type=number, default=0.1, help="the learning rate; by default 0.1")
        add(
            "--column", help="name of the norms in the log; by default the one of `grad` and `norm`"
        )
        add("--out", type=Path, help="picture to write: PNG, SVG or PDF; by default replay.png")
        return
    add("file", type=Path, metavar="FILE", help=_CHECKPOINTS)
    if name == "convert":
        add("out", type=Path, nargs="?", metavar="OUT", help="file to write; by default stdout")
    add("--at", help="its place in the checkpoint, where there are several states")


_LOGS = (
    "what holds the gradient norms: a CSV file, JSON lines, an export of Weights & Biases, a "
    "trainer_state.json, or a folder of TensorBoard's"
)
_WINDOWS = "one or more windows; by default 50 500 1500"
_CHECKPOINTS = (
    "what torch.save wrote, a .keras or .weights.h5 file, the directory of an orbax checkpoint, or "
    "a document that `zenith state convert` wrote"
)


def _respelled(arguments: Sequence[str]) -> list[str]:
    """`--window 50 --window 500` for `--window 50 500`, after which a file may come.

    Any number is a window there, so that 3.5 is refused as one and not taken for the file.
    """
    spelled: list[str] = []
    for word in arguments:
        after_one = "--window" in spelled[-2:-1] or "".join(spelled[-1:]).startswith("--window=")
        numeric = re.fullmatch(r"[+-]?[\d.]*\d", word)
        spelled += ["--window", word] if after_one and numeric else [word]
    return spelled


def _replay(options: Any) -> None:
    """Print a line for each window, and the warnings on stderr; write the picture."""
    path, windows = options.norms, options.window or [50, 500, 1500]
    out = options.out or Path("replay.png")
    if out.suffix.lower() not in _FORMATS:
        raise UserError(f"`--out` must end in {', '.join(_FORMATS)}, got {out}")
    with _readable(path):
        logged = readers.series(path, options.column)
    if not any(0 <= norm < math.inf for norm in logged.values):
        raise UserError(f"{path}: no norm in `{logged.name}` is finite")
    replays = [replay.replay(logged, window) for window in windows]
    lines = [_drawn(replays, options, out), *replay.warnings(logged, windows)]
    steps = f"{len(logged.values)} norms, up to step {logged.steps[-1]:g}"
    print(f"{logged.name}: {steps}; lr {options.lr:g}")
    print(replay.table([result.summary(options.lr) for result in replays]))
    if not lines[0]:
        print(f"The picture is {out}")
    for line in filter(None, lines):
        print(f"zenith: warning: {line}", file=sys.stderr)


def _drawn(replays: Sequence[replay.Replay], options: Any, out: Path) -> str:
    """Write the picture; or return why there is none, where none was asked for."""
    try:
        drawn = replay.picture(replays, options.lr, out.suffix[1:].lower())
    except ModuleNotFoundError as error:
        if options.out is not None:
            raise
        return f"there is no picture: {_missing(error, _PACKAGES)}"
    except (ValueError, OverflowError) as error:  # of matplotlib: norms near the largest number
        raise UserError(f"{options.norms}: cannot be drawn ({error})") from error
    write(out, drawn)
    return ""


def _show(options: Any) -> None:
    with _readable(options.file):
        state = checkpoints.read(options.file, options.at)
    print(f"{'window':<10}{len(state.norms)}")
    for name, value in core.metrics(state).items():
        print(f"{name:<10}{value}")


def _convert(options: Any) -> None:
    with _readable(options.file):
        document = core.to_dict(checkpoints.read(options.file, options.at))
    text = json.dumps(document) + "\n"
    if options.out is None:
        print(text, end="")
    else:
        write(options.out, text.encode())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        with explained(f"{path}: cannot be read"):
            yield
    except ValueError as error:
        raise UserError(str(error)) from error


@contextmanager
def explained(failure: str) -> Iterator[None]:
    """Let what the operating system refuses end in one line: `failure (Permission denied)`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{failure} ({_reason(error)})") from error


def write(path: Path, content: bytes) -> None:
    """Write the file whole, or leave there what there was.

    Raises:
        UserError: naming the file, if it cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path}: cannot be written (Is a directory)")
    partial = path.parent / f"{path.name}.partial"
    try:
        with explained(f"{path}: cannot be written"):
            partial.write_bytes(content)
            os.replace(partial, path)
    except UserError:
        partial.unlink(missing_ok=True)
        raise


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def own_version() -> str:
    """Return the version of this package, or `unknown` where it is not installed."""
    try:
        return version("zenith-optim")
    except PackageNotFoundError:
        return "unknown"


def _fail(program: str, message: str) -> int:
    print(f"{program}: error:", " ".join(message.split()), file=sys.stderr)
    return FAILED


def _discard_output() -> None:
    """Let the interpreter not try again, as it ends, to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _missing(error: ModuleNotFoundError, packages: Mapping[str, str]) -> str:
    name = (error.name or "").partition(".")[0]
    if name in ("", "zenith", "experiments"):
        raise error  # a fault of ours, which no package puts right
    return f"{name} is not installed: pip install {packages.get(name, name)}"


def _never_fail_to_print() -> None:
    """Let a terminal without, say, the sign ± show an escape in its place."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
