"""What ZENITH and its rivals cost: `python -m experiments cost --help`.

Each command is a module here: `measure(options)` returns a document that `json` can write, `table`
makes Markdown of it, and `draw`, where there is one, a picture. A module is imported when its
command runs, so that the costs of Keras and of optax are measured where torch is not installed.
"""

import argparse
import importlib
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from experiments.arguments import size, up_to
from experiments.errors import UserError, explained
from zenith.cli import checked, write

__all__ = ["add_commands"]

# What a table or a picture raises of a document that lacks a part, or has another in its place.
_UNSOUND = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_width = checked(float, "above 0 and at most 16", lambda value: 0 < value <= 16)


def _size(default: int | None, about: str, kind: Callable[[str], int] = size) -> dict[str, Any]:
    return {"type": kind, "default": default, "metavar": "N", "help": about}


_OPTIONS: dict[str, dict[str, Any]] = {
    "--batch": _size(128, "images; 128 in the paper", up_to(100_000)),
    "--device": {"choices": ["cpu", "cuda"], "default": "cpu", "help": "cuda: never run"},
    "--iterations": _size(4, "in a repetition; 4 are a cycle of GeN"),
    "--jit": {"choices": ["auto", "yes", "no"], "default": "auto", "help": "jit_compile"},
    "--largest": _size(10**8, "case to measure"),
    "--library": {"choices": ["torch", "keras", "optax"], "default": "torch"},
    "--models": {"nargs": "+", "choices": ["vgg19", "small"], "default": ["vgg19", "small"]},
    "--optimizers": {"nargs": "+", "metavar": "NAME", "help": "by default those of its table"},
    "--rivals": {"action": "store_true", "help": "those of optax.contrib too"},
    "--sizes": {"nargs": "+", **_size(None, "entries, up to 10**8", up_to(10**8))},
    "--threads": _size(None, "of torch; by default 1, then 2", up_to(256)),
    "--width": {"type": _width, "default": 1.0, "metavar": "X", "help": "of VGG-19's channels"},
}
_COMMANDS = {  # what is measured, how often, and what else there is to say
    "overhead": (
        "table 1: a whole iteration",
        10,
        "--batch --device --iterations --optimizers --width",
    ),
    "scaling": ("a step as parameters, tensors and window grow", 30, "--largest"),
    "step": ("a step in torch: SGD, ZENITH, clipping, norms", 30, "--device --models"),
    "fit": ("a step of Keras' fit", 15, "--batch --jit --models"),
    "jit": ("a step of optax under jax.jit", 40, "--batch --models --rivals"),
    "tried": ("what made no step cheaper", 40, "--models --optimizers"),
    "norm": ("how wrong a norm is, and how long it takes", 9, "--library --sizes --threads"),
}


def add_commands(commands: Any) -> None:
    """Add `cost` to the subcommands of a parser; it sets `run` to what takes the options."""
    parser = commands.add_parser("cost", help="what a step costs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    measured = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, (what, repetitions, names) in _COMMANDS.items():
        own = measured.add_parser(name, help=what, description=what)
        own.set_defaults(run=partial(run, name))
        own.add_argument("--repetitions", type=size, default=repetitions, metavar="N")
        for option in names.split():
            own.add_argument(option, **_OPTIONS[option])
        own.add_argument("--out", type=Path, metavar="DIR", help="write JSON, table and picture")
        own.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: this JSON")


def run(name: str, options: argparse.Namespace) -> None:
    """Measure, print the table, and write document, table and picture where that is asked for.

    Raises:
        UserError: if a file cannot be read or written, or the work does not fit into memory.
    """
    if options.out is not None:
        with explained(f"{options.out}: cannot be written"):
            options.out.mkdir(parents=True, exist_ok=True)
    read = _read(options.read, name) if options.read is not None else None
    module = importlib.import_module(f"experiments.cost.{name}")
    document = read or {"command": name, **_measured(module, options)}
    with _sound(options.read, name):
        text = module.table(document) + "\n"
    print(text, end="")
    if options.out is None:
        return
    write(options.out / f"{name}.json", (json.dumps(document, indent=1) + "\n").encode())
    write(options.out / f"{name}.md", text.encode())
    if hasattr(module, "draw"):
        file = io.BytesIO()
        with _sound(options.read, name):
            module.draw(document).savefig(file, dpi=120)
        write(options.out / f"{name}.png", file.getvalue())


def _measured(module: Any, options: argparse.Namespace) -> Any:
    try:
        return module.measure(options)
    except (MemoryError, RuntimeError) as error:  # which of them is the library's choice
        if isinstance(error, RuntimeError) and not re.search("(?i)memory", str(error)):
            raise
        raise UserError(f"this is too large for the memory of the machine: {error}") from error


def _read(file: Path, name: str) -> Any:
    with explained(f"{file}: cannot be read"):
        text = file.read_bytes()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # of UnicodeDecodeError too
        document = None
    if not isinstance(document, dict) or document.get("command") != name:
        raise UserError(_rule(file, name))
    return document


@contextmanager
def _sound(file: Path | None, name: str) -> Iterator[None]:
    """Let what a document lacks that was read end in one line."""
    try:
        yield
    except _UNSOUND as error:
        if file is None:
            raise
        raise UserError(f"{_rule(file, name)}, and whole, got {error!r}") from error


def _rule(file: Path, name: str) -> str:
    return f"{file}: must be a JSON file that `cost {name} --out` has written"
