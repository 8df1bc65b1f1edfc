"""The commands, as Typer reads them from the signatures below.

A command only reads its options: it returns the work, which `zenith.cli.main` then does, so that
what Typer makes of an exception or of Ctrl-C concerns nothing but the options.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

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
