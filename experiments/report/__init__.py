"""Table, summary and picture of the runs of a task, from their records alone."""

import json
from pathlib import Path

from experiments.errors import UserError
from experiments.records import paths, read
from experiments.report import table
from experiments.report.picture import draw
from experiments.report.summary import grouped, summarise
from zenith.cli import write

__all__ = ["report", "report_all"]

SUMMARY, PICTURE = "summary.json", "picture.png"


def report(folder: Path) -> None:
    """Write summary and picture into the folder of a task, and print the table.

    The same records always come to the same summary and, with the same version of matplotlib, to
    the same picture, byte for byte.

    Raises:
        UserError: naming the file, if the records cannot be read, are not those of one question or
            hold nothing that is finished, or if the folder cannot be written.
    """
    runs = grouped({path: read(path) for path in paths(folder)})
    summary = summarise(runs)
    if not summary["seeds"]:
        raise UserError(f"{folder}: holds no result to show")
    write(folder / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    write(folder / PICTURE, draw(runs))
    table.show(summary)
    print(f"{SUMMARY} and {PICTURE} are in {folder}")


def report_all(folder: Path) -> None:
    """Report on every task that has records in the folder, at whatever depth."""
    for task in sorted({path.parent.parent for path in paths(folder)}):
        report(task)
