"""The experiments' command line: `python -m experiments --help`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments import overhead
from experiments.optimizers import OPTIMIZERS


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("overhead", help="table 1: what an iteration costs")
    cost.add_argument("--batch", type=int, default=128, metavar="N", help="128 in the paper")
    cost.add_argument("--repetitions", type=int, default=10, metavar="N")
    cost.add_argument("--iterations", type=int, default=1, metavar="N", help="in a repetition")
    cost.add_argument("--width", type=float, default=1.0, help="factor on VGG-19's channels")
    cost.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    cost.add_argument("--optimizers", nargs="+", choices=list(OPTIMIZERS), metavar="NAME")
    cost.add_argument("--out", type=Path, metavar="DIR", help="write JSON, Markdown and picture")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the files where that was asked for."""
    options = arguments(argv)
    names = list(dict.fromkeys(["SGD", *(options.optimizers or OPTIMIZERS)]))
    sizes = (options.batch, options.repetitions, options.iterations)
    document = overhead.measure(names, *sizes, options.device, options.width)
    print(overhead.table(document))
    if options.out is not None:
        overhead.write(document, options.out)


if __name__ == "__main__":
    main()
