"""The folder that a run writes: what has its final name is whole, and replaces an earlier run's."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zenith.demo.errors import UserError, reason
from zenith.demo.records import Record, to_line

RECORDS, SUMMARY, PICTURE = "records.jsonl", "summary.json", "picture.png"
PARTIAL = ".partial"  # ends the name of a file that is still being written


def claim(folder: Path) -> None:
    """Make sure that `folder` is there, and is empty or an earlier run's.

    Raises:
        UserError: naming the folder, if it cannot be made or read, or holds something else.
    """
    with _explained(f"`--out` must be a folder to write to, got {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
    if names and not names & {RECORDS, RECORDS + PARTIAL}:
        raise UserError(f"`--out` must be empty or hold an earlier run's {RECORDS}, got {folder}")


@contextmanager
def recording(folder: Path) -> Iterator[Callable[[Record], None]]:
    """Yield a function that writes one record into the folder, on disk as soon as it returns.

    The records have a partial name, and an earlier run stays as it was, until `keep` is called.

    Raises:
        UserError: naming the folder or the file, if it cannot be written.
    """
    partial = folder / (RECORDS + PARTIAL)
    with _explained(f"`--out` must be a folder to write to, got {folder}"):
        stream = partial.open("w", encoding="utf-8", newline="\n")

    def write(record: Record) -> None:
        with _explained(f"{partial}: cannot be written"):
            stream.write(to_line(record))
            stream.flush()

    try:
        yield write
    finally:
        with _explained(f"{partial}: cannot be written"):
            stream.close()


def keep(folder: Path) -> None:
    """Let the new records replace the earlier run, whose summary and picture go with it."""
    with _explained(f"{folder / RECORDS}: cannot be written"):
        os.replace(folder / (RECORDS + PARTIAL), folder / RECORDS)
        for name in (SUMMARY, PICTURE):
            (folder / name).unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove the new records; an earlier run stays as it was."""
    (folder / (RECORDS + PARTIAL)).unlink(missing_ok=True)


def replace(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole, or leave there what there was.

    Raises:
        UserError: naming the file, if it cannot be written.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with _explained(f"{path}: cannot be written"):
            partial.write_bytes(content)
            os.replace(partial, path)
    except UserError:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def _explained(failure: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{failure} ({reason(error)})") from None
