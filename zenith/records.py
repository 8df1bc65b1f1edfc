"""Numbers that a training run has logged, read from whatever wrote them."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Series", "rows", "series"]

_STEPS = ("step", "Step", "_step", "global_step", "trainer/global_step", "iteration", "epoch")


class Series(NamedTuple):
    """One logged quantity.

    Attributes:
        name: what the log calls it.
        steps: the step of each value, or its place in the log, from 1, where that names none.
        values: one for each step; NaN where the log has a word for it.
    """

    name: str
    steps: list[float]
    values: list[float]


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV file or of JSON lines, each as it names its numbers.

    Of the records of `zenith demo` these are the steps of ZENITH with the first seed; of the
    `trainer_state.json` of Hugging Face's Trainer, its `log_history`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming the file, and the line, if it is neither.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: neither CSV nor JSON lines") from None
    found = list(_json(text, path) if text.lstrip().startswith("{") else _csv(text))
    steps = [r for r in found if r.get("kind") == "step" and r.get("optimizer") == "zenith"]
    return [row for row in steps if row["seed"] == steps[0]["seed"]] if steps else found


def series(path: Path, column: str | None = None) -> Series:
    """Return one column of a log.

    Args:
        path: a CSV file (an export of Weights & Biases among them), JSON lines, or a folder with
            the event files of TensorBoard.
        column: the name of the quantity; by default the one whose name holds "grad" and "norm".

    Raises:
        OSError: if it cannot be read.
        ValueError: naming the path, if there is no such column, or no number in it.
    """
    table = _events(path) if path.is_dir() else _columns(rows(path))
    name = _chosen(table, column, path)
    steps, values = zip(*table[name], strict=True)
    return Series(name, list(steps), list(values))


def _json(text: str, path: Path) -> Iterator[dict[str, Any]]:
    try:
        document = json.loads(text)
        if "log_history" in document:
            yield from document["log_history"]
            return
    except ValueError:
        pass  # several lines, each a document
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise ValueError(f"{path}, line {number}: not JSON") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: must be an object, got {line[:40]!r}")
        yield row


def _csv(text: str) -> Iterator[dict[str, Any]]:
    for row in csv.DictReader(text.splitlines()):
        yield {name: value for name, value in row.items() if name is not None and value}


def _columns(table: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Every column that has numbers, as pairs of step and value."""
    columns: dict[str, list[tuple[float, float]]] = {}
    for place, row in enumerate(table, start=1):
        steps = (_number(row[name]) for name in _STEPS if name in row)
        step = next((step for step in steps if step is not None), float(place))
        for name, text in row.items():
            if (value := _number(text)) is not None:
                columns.setdefault(name, []).append((step, value))
    return columns


def _number(text: Any) -> float | None:
    if text is None or isinstance(text, bool | list | dict):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _events(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """The scalars of TensorBoard's event files: torch writes scalars, TensorFlow tensors."""
    if not list(folder.rglob("events.out.tfevents.*")):
        raise ValueError(f"{folder}: holds no event file of TensorBoard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    columns: dict[str, list[tuple[float, float]]] = {}
    for run in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        prefix = "" if run == folder else f"{run.relative_to(folder).as_posix()}: "
        for tag in events.Tags()["scalars"]:
            pairs = [(float(e.step), float(e.value)) for e in events.Scalars(tag)]
            columns[prefix + tag] = pairs
        for tag in events.Tags()["tensors"]:
            arrays = [(float(e.step), make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
            if all(array.shape == () and array.dtype.kind == "f" for _, array in arrays):
                columns[prefix + tag] = [(step, float(array)) for step, array in arrays]
    return columns


def _chosen(columns: Mapping[str, Any], column: str | None, path: Path) -> str:
    names = sorted(columns)
    if column is not None:
        if column not in columns:
            raise ValueError(f"{path}: has no numbers in `{column}`, but in: {', '.join(names)}")
        return column
    # Weights & Biases exports the lowest and the highest of what it has thinned out as well.
    plain = [name for name in names if not name.endswith(("__MIN", "__MAX"))]
    likely = [name for name in plain if "grad" in name.lower() and "norm" in name.lower()]
    if len(likely) != 1:
        wrong = "has no column" if not likely else "has several columns"
        listed = ", ".join(likely or names) or "no numbers at all"
        raise ValueError(f"{path}: {wrong} of gradient norms; name one by --column: {listed}")
    return likely[0]


def spacing(steps: Sequence[float]) -> int:
    """Return how many steps lie between two logged values: the median, at least 1."""
    gaps = sorted(b - a for a, b in pairwise(steps) if b > a)
    return max(1, math.floor(gaps[len(gaps) // 2])) if gaps else 1
