"""Where a log's numbers go: CSV, TensorBoard, Weights & Biases and `logging`."""

import csv
import logging
import re
import time
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

__all__ = ["Sink", "to_csv", "to_logging", "to_tensorboard", "to_wandb"]

Sink = Callable[[int, Mapping[str, float]], object]


class _Csv:
    """The sink that `to_csv` returns; `last_step` is that of the file's last row, or -1."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.more = list(columns)
        self.file: Any = None
        self.columns: list[str] | None = None
        self.last_step = -1
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                self.columns = list(reader.fieldnames) if reader.fieldnames else None
                for row in reader:
                    step = re.fullmatch(r"(\d+)(\.0*)?", str(row.get("step")))
                    if step and None not in row.values():  # as in one that was cut off
                        self.last_step = int(step[1])

    def __call__(self, step: int, numbers: Mapping[str, float]) -> None:
        row = {"step": step, **numbers}
        fresh = self.columns is None
        if self.columns is None:
            self.columns = list(dict.fromkeys([*row, *self.more]))
        if unknown := [name for name in row if name not in self.columns]:
            raise ValueError(
                f"`{unknown[0]}` must be one of the columns of {self.path}, {self.columns}; "
                f"name it from the start: to_csv(path, columns=[{unknown[0]!r}])"
            )
        if self.file is None:  # line by line, so that what a run has logged outlives it
            self.file = self._opened(step)
        writer = csv.DictWriter(self.file, self.columns)
        if fresh:
            writer.writeheader()
        writer.writerow(row)

    def _opened(self, step: int) -> Any:
        if step <= self.last_step:
            warnings.warn(
                f"{self.path} ends at step {self.last_step}, and goes on with step {step}",
                stacklevel=3,
            )
        torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"", b"\n")
        file = self.path.open("a", newline="", encoding="utf-8", buffering=1)
        if torn:  # by a kill, in the middle of its last line
            file.write("\r\n")
        return file

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()


def to_csv(path: str | PathLike[str], columns: Sequence[str] = ()) -> Sink:
    """Return a sink that appends to a CSV file, a row for each step, on disk after each.

    A file that is there already is gone on with, in its own columns and from its last step; those
    of a new one are the names in the first row.

    Args:
        path: of the file.
        columns: names that only later rows have, such as that of a loss that is taken now and then.
            Where a row lacks a number its cell stays empty.

    Raises:
        ValueError: by the sink, if a row has a name that is no column; the file stays as it was.

    Warns:
        UserWarning: by the sink, if the caller's steps do not go on from the last in the file.
    """
    return _Csv(Path(path), columns)


def to_tensorboard(writer: Any, prefix: str = "zenith/") -> Sink:
    """Return a sink for TensorBoard.

    Args:
        writer: the folder of a run (needs the package tensorboard), a `SummaryWriter` of torch or
            Flax, or a writer of `tf.summary`.
        prefix: before the name of every number.

    Raises:
        TypeError: if `writer` is none of these.
    """
    if isinstance(writer, str | PathLike):
        writer = _Folder(writer)
    if not any(hasattr(writer, name) for name in ("add_scalar", "as_default", "scalar")):
        raise TypeError(f"`writer` must be a folder or a SummaryWriter, got {writer!r}")

    def write(step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            if hasattr(writer, "add_scalar"):
                writer.add_scalar(prefix + name, number, step)
            elif hasattr(writer, "as_default"):
                import tensorflow as tf

                with writer.as_default():
                    tf.summary.scalar(prefix + name, number, step)
            else:
                writer.scalar(prefix + name, number, step)

    if isinstance(writer, _Folder):  # a writer of the user's own is flushed as it was set up
        write.flush = writer.flush  # type: ignore[attr-defined]
    return write


class _Folder:
    """A writer of event files by the package tensorboard alone."""

    def __init__(self, path: str | PathLike[str]) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(fspath(path))
        self.flush = self._writer.flush
        weakref.finalize(self, self._writer.close)

    def add_scalar(self, name: str, number: float, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=name, simple_value=number)])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def to_wandb(run: Any, prefix: str = "zenith/") -> Sink:
    """Return a sink for a run of Weights & Biases: what `wandb.init()` returns.

    The numbers have an axis of their own, `zenith/step`, because Weights & Biases would drop what
    comes late for its own steps.
    """
    axis = f"{prefix}step"
    run.define_metric(axis, hidden=True)
    run.define_metric(f"{prefix}*", step_metric=axis)

    def write(step: int, numbers: Mapping[str, float]) -> None:
        run.log({axis: step} | {prefix + name: number for name, number in numbers.items()})

    return write


def to_logging(logger: logging.Logger | None = None, level: int = logging.INFO) -> Sink:
    """Return a sink that logs one line for each step, by default to the logger `zenith`."""
    chosen = logger or logging.getLogger("zenith")

    def write(step: int, numbers: Mapping[str, float]) -> None:
        text = ", ".join(f"{name} {number:.6g}" for name, number in numbers.items())
        chosen.log(level, "step %d: %s", step, text)

    return write
