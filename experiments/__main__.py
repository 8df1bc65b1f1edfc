"""The experiments' command line: `python -m experiments --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import cost, tasks
from experiments.arguments import count, number, rate, share, size, window
from zenith.cli import Parser, guarded

# What to install for a module, where its own name does not say it.
PACKAGES = {"dog": "dog-optimizer"} | dict.fromkeys(
    ("matplotlib", "numpy", "rich", "sklearn", "torch"), '".[demo]"'
)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_demo(commands.add_parser("demo", help="ZENITH beside SGD and SGD + cosine, on images"))
    _add_report(commands.add_parser("report", help="tables and pictures from records alone"))
    listing = commands.add_parser("list", help="the tasks, the optimizers, and the paper's tables")
    listing.set_defaults(run=show_list)
    _add_run(commands.add_parser("run", help="train one network by one optimizer with one seed"))
    cost.add_commands(commands)
    return parser.parse_args(argv)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_demo)
    parser.description = (
        "Train a small network with each optimizer, from the same initial weights and on the same "
        "batches, and compare them: a table, records (JSON lines), a summary (JSON) and a picture "
        "(PNG). An earlier demo in the same folder is replaced."
    )
    add = parser.add_argument
    add(
        "--data",
        default="digits",
        metavar="NAME",
        help=f"{' or '.join(tasks.NAMES)}; by default digits",
    )
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help=f"folder with {tasks.FASHION_MNIST_FILES}; by default {tasks.FASHION_MNIST_DIR}",
    )
    add(
        "--optimizers",
        default="zenith,sgd,sgd-cosine",
        metavar="NAME,...",
        help="names that `list` prints; by default zenith,sgd,sgd-cosine",
    )
    add(
        "--seeds",
        type=size,
        default=3,
        metavar="N",
        help="how many: 0, 1, ..., N - 1; by default 3",
    )
    add(
        "--out",
        type=Path,
        default=Path("zenith-demo"),
        metavar="DIR",
        help="by default zenith-demo",
    )
    _add_length(parser, "400 lines a run")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_report)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("zenith-demo"),
        metavar="DIR",
        help="by default zenith-demo",
    )


def _add_length(parser: argparse.ArgumentParser, log_every: str) -> None:
    """Add the options that `demo` and `run` share."""
    add = parser.add_argument
    add("--lr", type=rate, metavar="X", help="by default the optimizer's own, often 0.1")
    add("--window", type=window, metavar="N", help="of ZENITH, in steps; by default 500")
    add("--momentum", type=share, metavar="X", help="by default the optimizer's own, often 0")
    add("--epochs", type=size, metavar="N", help="by default the task's own")
    add("--batch-size", type=size, metavar="N", help="images; by default the task's own")
    add(
        "--log-every",
        type=size,
        metavar="N",
        help=f"steps between two lines; by default {log_every}",
    )
    add("--resume", action="store_true", help="go on with what was cut, from its last evaluation")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_one)
    parser.add_argument("task", metavar="TASK", help=" or ".join(tasks.NAMES))
    parser.add_argument("--optimizer", required=True, metavar="NAME")
    parser.add_argument("--seed", type=count, default=0, metavar="N")
    parser.add_argument(
        "--l2", type=number, default=0.0, metavar="X", help="half of it times ||p||^2 in the loss"
    )
    parser.add_argument("--hours", type=number, metavar="X", help="of training, at the most")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the files of the task")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    _add_length(parser, "10")


def run_demo(options: argparse.Namespace) -> int:
    """Compare ZENITH with SGD."""
    from experiments import demo

    return demo.run(options)


def run_report(options: argparse.Namespace) -> None:
    """Report on what records there are."""
    from experiments.report import report_all

    report_all(options.folder)


def show_list(_options: argparse.Namespace) -> None:
    """Print what there is."""
    from experiments.listing import listing

    print(listing(PACKAGES))


def run_one(options: argparse.Namespace) -> None:
    """Train one run, or go on with it; a line for each evaluation."""
    from experiments.optimizers import recipe
    from experiments.run import Question, Run, checked_device
    from experiments.train import train

    chosen = {name: getattr(options, name) for name in ("lr", "window", "momentum")}
    given = {name: value for name, value in chosen.items() if value is not None}
    given = recipe(options.optimizer, given).chosen(given)  # before the data are loaded
    device = checked_device(options.device)
    task = tasks.load(options.task, options.data, options.epochs, options.batch_size)
    question = Question(
        options.optimizer, options.seed, given, options.l2, options.hours, options.log_every or 10
    )
    run = Run(task, question, device)
    for _, record in train(task, [run], options.out, options.resume):
        if record["kind"] != "step":
            print(", ".join(f"{name} {value}" for name, value in record.items()), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command says; return the exit code.

    Returns:
        0 when all went well, 2 after a mistake that stderr names in one line, 130 after Ctrl-C.
    """

    def work() -> int:
        options = arguments(argv)
        return options.run(options) or 0

    return guarded("experiments", work, PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
