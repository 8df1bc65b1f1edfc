"""What is printed: the runs in a few words, and their table."""

import sys
from typing import Any

from rich import box
from rich.table import Table

from experiments.records import Record
from experiments.report.measures import spoken
from experiments.report.summary import ACCURACY, label, late, reference
from experiments.terminal import console

__all__ = ["cells", "headline", "show"]

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
    measure = summary.get("measure", ACCURACY)
    for column in (COLUMNS[0], f"{spoken(measure)} %", *COLUMNS[2:]):
        table.add_column(column, justify="left" if column == "optimizer" else "right")
    rows = summary["optimizers"]
    for name, row in rows.items():
        table.add_row(*cells(name, row, len(summary["seeds"]), reference(rows), measure))
    out.print(table)


def headline(summary: dict[str, Any]) -> str:
    """Return what was trained on what, and how much of it was finished."""
    run = summary["run"]
    # a part of an epoch, as where it is evaluated three times in one, is rounded in the records
    made, whole = (round(x, 3) for x in (summary["epochs"], run["epochs"] * run["segments"]))
    return (
        f"{run['task']}: {run['train_images']:,} training and {run['test_images']:,} test images; "
        f"a network of {run['parameters']:,} parameters; batches of {run['batch']}; "
        f"{made:.9g} of {whole:.9g} epochs, "
        f"{len(summary['seeds'])} of {summary['begun']} seeds begun (mean ± standard deviation)"
    )


def cells(
    name: str, row: Record, seeds: int, base: str | None = "sgd", measure: str = ACCURACY
) -> tuple[str, ...]:
    """Return one optimizer, over so many seeds, as it stands in the table.

    Args:
        name: of the optimizer, with its options.
        row: of the summary.
        seeds: how many count.
        base: the name of the one that the overheads are over.
        measure: of the task.
    """
    called = label(name)
    if row["runs"] == 0:
        return (called, "missing", "-", "-", "-", "-")
    if row["runs"] < seeds:
        called += f" ({row['runs']} of {seeds} seeds)"
    if said := late(name, row["stopped"], row["runs"]):
        called += f" ({said})"
    return (
        called,
        _spread(row[measure], ".2f"),
        _diverged(row["diverged"], row["runs"]) or _spread(row["train_loss"], ".2g"),
        _spread(row["lr"], ".2g"),
        _spread(row["seconds"], ".1f"),
        _overhead(row["overhead_percent"], name == base),
    )


def _spread(value: Record, form: str) -> str:
    mean, std = value["mean"], value["std"]
    if mean is None:
        return "-"
    return f"{mean:{form}}" if std is None else f"{mean:{form}} ± {std:{form}}"


def _diverged(diverged: int, runs: int) -> str:
    part = "" if diverged == runs else f" ({diverged} of {runs})"
    return f"diverged{part}" if diverged else ""


def _overhead(quartiles: Record | None, base: bool) -> str:
    if quartiles is None:
        return "-"
    return "reference" if base else f"{quartiles['median']:+.1f} %"
