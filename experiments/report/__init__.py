"""Table, summary and picture of the runs of a task, from their records alone."""

import json
from pathlib import Path

from experiments.errors import UserError
from experiments.records import paths
from experiments.report import table
from experiments.report.found import sound
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
        UserError: naming the file, if the records are not those of one question, hold nothing that
            is finished, or if the folder cannot be written.
    """
    if not _reported(folder):
        raise UserError(f"{folder}: holds no result to show")


def report_all(folder: Path) -> None:
    """Report on every task that has records in the folder, at whatever depth.

    Raises:
        UserError: as `report` does, and if the folder is that of one optimizer; where some tasks
            have a result to show, those that have none are passed over.
    """
    found = paths(folder)
    if any(path.parent == folder for path in found):
        raise UserError(
            f"{folder}: is the folder of one optimizer; a report is on a task, or what holds tasks"
        )
    reported = [_reported(task) for task in sorted({path.parent.parent for path in found})]
    if not any(reported):
        raise UserError(f"{folder}: holds no result to show")


def _reported(folder: Path) -> bool:
    """Report on a task; return whether it has a result."""
    runs = grouped(sound(paths(folder)))
    summary = summarise(runs) if runs else {"seeds": []}
    if not summary["seeds"]:
        return False
    write(folder / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    write(folder / PICTURE, draw(runs))
    table.show(summary)
    print(f"{SUMMARY} and {PICTURE} are in {folder}")
    return True
