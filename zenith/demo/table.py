"""What is printed: the run in a few words, and its table."""

import sys
from typing import Any

from rich import box
from rich.table import Table

from zenith.demo.records import Record
from zenith.demo.terminal import console

COLUMNS = (
    "optimizer",
    "test accuracy %",
    "final training loss",
    "rate at the end",
    "training s",
    "overhead per step",
)


def show(summary: dict[str, Any]) -> None:
    """Print the summary on stdout: a box in a terminal, else a table for a Markdown file."""
    out = console(sys.stdout)
    out.print(headline(summary), soft_wrap=True)
    table = Table(box=box.ROUNDED if out.is_terminal else box.MARKDOWN)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "optimizer" else "right")
    for name, row in summary["optimizers"].items():
        table.add_row(name, *cells(name, row, len(summary["seeds"])))
    out.print(table)


def headline(summary: dict[str, Any]) -> str:
    """Return what was trained on what, and how much of it was finished."""
    run = summary["run"]
    return (
        f"{run['data']}: {run['train_images']:,} training and {run['test_images']:,} test images; "
        f"a network of {run['parameters']:,} parameters; lr {run['lr']:g}, window {run['window']}, "
        f"momentum {run['momentum']:g}, batches of {run['batch_size']}; "
        f"{summary['epochs']} of {run['epochs']} epochs, "
        f"{len(summary['seeds'])} of {run['seeds']} seeds (mean ± standard deviation)"
    )


def cells(name: str, row: Record, seeds: int) -> tuple[str, ...]:
    """Return the numbers of one optimizer, over so many seeds, as they stand in the table."""
    return (
        _spread(row["test_accuracy"], ".2f"),
        _diverged(row["diverged"], seeds) or _spread(row["train_loss"], ".2g"),
        _spread(row["lr"], ".2g"),
        _spread(row["seconds"], ".1f"),
        _overhead(name, row["overhead_percent"]),
    )


def _spread(value: Record, form: str) -> str:
    mean, std = value["mean"], value["std"]
    return f"{mean:{form}}" if std is None else f"{mean:{form}} ± {std:{form}}"


def _diverged(diverged: int, seeds: int) -> str:
    part = "" if diverged == seeds else f" ({diverged} of {seeds})"
    return f"diverged{part}" if diverged else ""


def _overhead(name: str, quartiles: Record | None) -> str:
    if quartiles is None:
        return "-"
    return "reference" if name == "sgd" else f"{quartiles['median']:+.1f} %"
