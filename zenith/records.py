"""Numbers that a training run has logged, read from whatever wrote them."""

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Series", "rows", "series"]

_STEPS = ("step", "Step", "_step", "global_step", "trainer/global_step", "iteration")


class Series(NamedTuple):
    """One logged quantity.

    Attributes:
        name: what the log calls it.
        steps: the step of each value, or its place in the log, from 1, where that names none.
        values: one for each step; NaN where the log has a word for it.
        replaced: how many values were left out because the log comes back to an earlier step, as
            that of a run that was resumed: the later run counts.
    """

    name: str
    steps: list[float]
    values: list[float]
    replaced: int = 0


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
    if not text.strip():
        raise ValueError(f"{path}: empty")
    found = list(_json(text, path) if text.lstrip()[0] in "{[" else _csv(text, path))
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
    kept: list[tuple[float, float]] = []
    for step, value in table[name]:
        while kept and kept[-1][0] >= step:
            kept.pop()
        kept.append((step, value))
    steps, values = zip(*kept, strict=True)
    return Series(name, list(steps), list(values), len(table[name]) - len(kept))


def _json(text: str, path: Path) -> Iterator[dict[str, Any]]:
    try:
        document = json.loads(text)
    except ValueError:  # several lines, each a document
        for n, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                place = f"{path}, line {n}"
                yield _row(_parsed(line, place), place)
        return
    if isinstance(document, dict):
        document = document.get("log_history", [document])
    if not isinstance(document, list):
        raise ValueError(f"{path}: `log_history` must be a list, got {document!r:.40}")
    for n, row in enumerate(document, start=1):
        yield _row(row, f"{path}, entry {n}")


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise ValueError(f"{place}: not JSON") from None


def _row(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: must be an object, got {row!r:.40}")
    return row


def _csv(text: str, path: Path) -> Iterator[dict[str, Any]]:
    head = text.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=head.count)
    try:
        for row in csv.DictReader(text.splitlines(), delimiter=delimiter):
            yield {name: value for name, value in row.items() if name is not None and value}
    except csv.Error as error:
        raise ValueError(f"{path}: not CSV ({error})") from None


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
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _events(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """The scalars of TensorBoard's event files: torch writes scalars, TensorFlow tensors."""
    os.listdir(folder)  # says so where it may not be read, as rglob does not
    runs = sorted({path.parent for path in folder.rglob("events.out.tfevents.*")})
    if not runs:
        raise ValueError(f"{folder}: holds no event file of TensorBoard")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard imports it if it is there
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    columns: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
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
    # Ours was measured before any clipping, and at every step.
    likely = [name for name in likely if name.endswith("zenith/grad_norm")] or likely
    if not names:
        raise ValueError(f"{path}: holds no numbers")
    if len(likely) != 1:
        wrong = "has no column" if not likely else "has several columns"
        listed = ", ".join(likely or names)
        raise ValueError(f"{path}: {wrong} of gradient norms; name one by --column: {listed}")
    return likely[0]


def spacing(steps: Sequence[float]) -> int:
    """Return how many steps lie between two logged values: the median, at least 1."""
    gaps = sorted(b - a for a, b in pairwise(steps) if b > a)
    return max(1, math.floor(gaps[len(gaps) // 2])) if gaps else 1
