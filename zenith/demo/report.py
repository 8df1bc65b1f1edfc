"""Table, summary and picture, drawn from the records alone."""

import json
from pathlib import Path

from zenith.demo import table
from zenith.demo.errors import UserError
from zenith.demo.output import PICTURE, RECORDS, SUMMARY, replace
from zenith.demo.picture import draw
from zenith.demo.records import read
from zenith.demo.summary import summarise


def report(folder: Path) -> None:
    """Write summary and picture into the folder from the records there, and print the table.

    The same records always come to the same summary and, with the same version of matplotlib, to
    the same picture, byte for byte.

    Raises:
        UserError: naming the file, if the records cannot be read, are not those of `zenith demo` or
            hold no finished epoch, or if the folder cannot be written.
    """
    records = read(folder / RECORDS)
    summary = summarise(records)
    if not summary["epochs"]:
        raise UserError(f"{folder / RECORDS}: holds no result to show")
    replace(folder / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    replace(folder / PICTURE, draw(records))
    table.show(summary)
    print(f"{RECORDS}, {SUMMARY} and {PICTURE} are in {folder}")
