"""The commands, as Typer reads them from the signatures below.

A command only reads its options: it returns the work, which `zenith.cli.main` then does, so that
what Typer makes of an exception or of Ctrl-C concerns nothing but the options.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from zenith.core import ZenithState, metrics, to_dict
from zenith.demo import own_version
from zenith.demo.errors import UserError, reason
from zenith.demo.settings import (
    DATA,
    FASHION_MNIST_DIR,
    LINES_PER_RUN,
    OPTIMIZERS,
    Settings,
    data_folder,
)

Job = Callable[[], int]

# Without rich's boxes, help and errors look the same in a terminal, a pipe and a CI's log.
app = typer.Typer(rich_markup_mode=None)

# Typer used to import click and now has it inside; this class is public in both.
UsageError: Any = typer.BadParameter.__base__


def integer(text: str) -> int:
    """Return the integer that `text` says: Typer's own message would leave out the value."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"must be an integer, got {text!r}") from None


def number(text: str) -> float:
    """Return the number that `text` says."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"must be a number, got {text!r}") from None


_SIZES = {
    size: "; ".join(f"{getattr(defaults, size)} for {data}" for data, defaults in DATA.items())
    for size in ("epochs", "batch_size")
}


@app.callback(invoke_without_command=True)
def zenith(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """ZENITH: SGD that sets its own learning rate from the history of the gradient norm."""
    if version:
        typer.echo(f"zenith-optim {own_version()}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail(
            "name a command: `demo`, `report`, `replay` or `state`; `zenith --help` explains them"
        )


@app.command()
def demo(
    data: Annotated[str, typer.Option(help=f"Images to learn: {' or '.join(DATA)}.")] = "digits",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the four .gz files of Fashion-MNIST.",
            show_default=str(FASHION_MNIST_DIR),
        ),
    ] = None,
    optimizers: Annotated[
        str, typer.Option(help="Which to compare, separated by commas.")
    ] = ",".join(OPTIMIZERS),
    epochs: Annotated[
        int | None,
        typer.Option(
            parser=integer, help="Passes over the training images.", show_default=_SIZES["epochs"]
        ),
    ] = None,
    lr: Annotated[
        float, typer.Option(parser=number, help="Learning rate, the same for every optimizer.")
    ] = 0.1,
    window: Annotated[int, typer.Option(parser=integer, help="ZENITH's window, in steps.")] = 500,
    momentum: Annotated[
        float, typer.Option(parser=number, help="Momentum of every optimizer.")
    ] = 0.0,
    seeds: Annotated[
        int, typer.Option(parser=integer, help="How many seeds: 0, 1, ... SEEDS - 1.")
    ] = 3,
    batch_size: Annotated[
        int | None,
        typer.Option(parser=integer, help="Images in a step.", show_default=_SIZES["batch_size"]),
    ] = None,
    log_every: Annotated[
        int | None,
        typer.Option(
            parser=integer,
            help="Steps from one step record to the next.",
            show_default=f"at most {LINES_PER_RUN} records for an optimizer and a seed",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for what is written.")] = Path("zenith-demo"),
) -> Job:
    """Train a small network with ZENITH and with SGD, and compare them.

    All optimizers get the same seeds, initial weights, batches and learning rate. Prints a table,
    and writes the records (JSON lines), a summary (JSON) and a picture (PNG). An earlier run in the
    same folder is replaced.
    """
    settings = Settings(
        data=data,
        optimizers=tuple(name.strip() for name in optimizers.split(",")),
        epochs=epochs,
        lr=lr,
        window=window,
        momentum=momentum,
        seeds=seeds,
        batch_size=batch_size,
        log_every=log_every,
    )
    folder = data_folder(data, data_dir)

    def job() -> int:
        from zenith.demo.run import run  # torch takes seconds, too long for `--help` and a mistake

        return run(settings, folder, out)

    return job


@app.command("report")
def redraw(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an earlier run.")],
) -> Job:
    """Draw table, summary and picture again from a folder's records."""

    def job() -> int:
        from zenith.demo.report import report

        report(folder)
        return 0

    return job


class SeveralWindows(typer.core.TyperCommand):
    """A command that reads `--window 50 500` as `--window 50 --window 500`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of the numbers that follow it."""
        spelled: list[str] = []
        for word in args:
            after_one = "--window" in spelled[-2:-1] or "".join(spelled[-1:]).startswith(
                "--window="
            )
            spelled += ["--window", word] if after_one and word.isdecimal() else [word]
        return list(super().parse_args(ctx, spelled))


@app.command(cls=SeveralWindows)
def replay(
    norms: Annotated[
        Path,
        typer.Argument(
            metavar="NORMS",
            help="What holds the gradient norms: a CSV file, JSON lines, an export of Weights & "
            "Biases, a trainer_state.json, a folder of TensorBoard's, or the records of a run.",
        ),
    ],
    window: Annotated[
        list[int] | None,
        typer.Option(
            parser=integer,
            metavar="STEPS...",
            help="One or more windows.",
            show_default="50 500 1500",
        ),
    ] = None,
    lr: Annotated[float, typer.Option(parser=number, help="The learning rate.")] = 0.1,
    column: Annotated[
        str | None,
        typer.Option(
            help="Name of the norms in the log.", show_default="the one of `grad` and `norm`"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture to write (PNG, SVG or PDF).")] = Path(
        "replay.png"
    ),
) -> Job:
    """Tell what rates ZENITH would have set, from gradient norms that a run has logged.

    Prints a line for each window, and draws norms, means and rates. The answer is about the rates
    alone: had they been in force, the norms would have been others.
    """
    windows = window or [50, 500, 1500]
    if wrong := [w for w in windows if w < 1]:
        raise typer.BadParameter(f"`--window` must be an integer >= 1, got {wrong[0]}")
    if not 0 <= lr < float("inf"):
        raise typer.BadParameter(f"`--lr` must be a number >= 0, got {lr:g}")

    def job() -> int:
        from zenith.demo.replay import show

        show(norms, windows, lr, column, out)
        return 0

    return job


state = typer.Typer(rich_markup_mode=None, help="The schedule's state in a checkpoint.")
app.add_typer(state, name="state")

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="What torch.save wrote, a .keras or .weights.h5 file, the directory of an orbax "
        "checkpoint, or a document that `zenith state convert` wrote.",
    ),
]
At = Annotated[
    str | None, typer.Option(help="Its place in the checkpoint, where there are several states.")
]


@state.command()
def show(file: Checkpoint, at: At = None) -> Job:
    """Print the numbers of the schedule, one on each line."""

    def job() -> int:
        found = checkpointed(file, at)
        typer.echo(f"{'window':<10}{len(found.norms)}")
        for name, value in metrics(found).items():
            typer.echo(f"{name:<10}{value}")
        return 0

    return job


@state.command()
def convert(
    file: Checkpoint,
    out: Annotated[
        Path | None, typer.Argument(metavar="[OUT]", help="File to write.", show_default="stdout")
    ] = None,
    at: At = None,
) -> Job:
    """Write the schedule's state as the JSON document that every framework can load.

    `zenith.from_dict(json.load(file))` is a state to be set on an optimizer of any framework.
    """

    def job() -> int:
        if out is not None and out.is_dir():
            raise UserError(f"{out}: cannot be written (Is a directory)")
        text = json.dumps(to_dict(checkpointed(file, at))) + "\n"
        if out is None:
            typer.echo(text, nl=False)
        else:
            from zenith.demo.output import replace

            replace(out, text.encode())
        return 0

    return job


def checkpointed(file: Path, at: str | None) -> ZenithState:
    """Return the state in a checkpoint."""
    from zenith.checkpoints import read

    try:
        return read(file, at)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({reason(error)})") from error
    except ValueError as error:
        raise UserError(str(error)) from error
