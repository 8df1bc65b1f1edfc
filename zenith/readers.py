"""Numbers that a training run has logged, read from whatever wrote them."""

import csv
import gzip
import io
import json
import math
import os
import re
import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Series", "rows", "series"]

# What a log calls the step, the surest first: `step` may begin anew in each epoch, and that of
# Weights & Biases, `_step`, counts its calls. Before a name there may be a group, as in `train/`.
_STEPS = ("global_step", "num_updates", "step", "iteration", "iter", "_step")


class Series(NamedTuple):
    """One logged quantity.

    Attributes:
        name: what the log calls it.
        steps: the step of each value; where each epoch begins anew, they are counted on.
        values: one for each step; NaN where the log has a word for it.
        replaced: how many values were left out because the log comes back to an earlier step, as
            that of a run that was resumed: the later run counts.
        counted: whether the log names no step, so that `steps` are places in it, from 1.
    """

    name: str
    steps: list[float]
    values: list[float]
    replaced: int = 0
    counted: bool = False


class _Entry(NamedTuple):
    step: float
    value: float
    epoch: float = 0
    counted: bool = False


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV file or of JSON lines, each as it names its numbers.

    Of the `trainer_state.json` of Hugging Face's Trainer these are its `log_history`; of an object
    of lists, what stands at the same place in each; of a text log, the JSON objects that end its
    lines, as fairseq writes them. A last line that was cut off is left out, and so are lines
    without a delimiter above the header of a CSV file. Any of them may be gzipped.

    Raises:
        OSError: if the file cannot be read.
        ValueError: naming the file, and the line, if it is none of these.
    """
    try:
        # A decoder that waits for more leaves out a last character that was cut off.
        text = getincrementaldecoder("utf-8-sig")().decode(_content(path))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: neither CSV nor JSON lines") from None
    text = io.StringIO(text, newline=None).read().strip(" \r\t\0")
    if not text.strip():
        raise ValueError(f"{path}: empty")
    if text.lstrip()[0] in "{[":
        return list(_json(text, path))
    return list(_in_text(text)) or list(_csv(text, path))


def series(path: Path, column: str | None = None) -> Series:
    """Return one column of a log.

    Args:
        path: a CSV file (an export of Weights & Biases among them), JSON lines, or a folder with
            the event files of TensorBoard.
        column: the name of the quantity; by default the one whose name holds "grad" and "norm", or
            "gnorm".

    Raises:
        OSError: if it cannot be read.
        ValueError: naming the path, if there is no such column, or no number in it.
    """
    table = _events(path) if path.is_dir() else _columns(rows(path))
    if not table:
        raise ValueError(f"{path}: holds no numbers, neither as CSV nor as JSON lines")
    name = _chosen(table, column, path)
    kept: list[tuple[float, float]] = []
    for step, value in _counted_on(table[name]):
        while kept and kept[-1][0] >= step:
            kept.pop()
        kept.append((step, value))
    steps, values = zip(*kept, strict=True)
    replaced, counted = len(table[name]) - len(kept), any(entry.counted for entry in table[name])
    return Series(name, list(steps), list(values), replaced, counted)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        raise ValueError(f"{path}: not a sound gzip file") from None


def _json(text: str, path: Path) -> Iterator[dict[str, Any]]:
    try:
        document = json.loads(text)
    except ValueError:  # several lines, each a document
        yield from _json_lines(text, path)
        return
    if isinstance(document, dict):
        document = document.get("log_history", _transposed(document))
    if not isinstance(document, list):
        raise ValueError(f"{path}: `log_history` must be a list, got {document!r:.40}")
    for n, row in enumerate(document, start=1):
        yield _row(row, f"{path}, entry {n}")


def _json_lines(text: str, path: Path) -> Iterator[dict[str, Any]]:
    # splitlines() splits in strings as well
    *whole, last = enumerate(text.rstrip().split("\n"), start=1)
    for n, line in [*whole, last]:
        try:
            document = json.loads(line) if line.strip() else None
        except ValueError:
            if n == last[0] > 1:  # cut off
                return
            raise ValueError(f"{path}, line {n}: not JSON") from None
        if document is not None:
            yield _row(document, f"{path}, line {n}")


def _transposed(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an object whose values are lists, such as Keras' `History.history`."""
    lists = {name: value for name, value in document.items() if isinstance(value, list)}
    length = max(map(len, lists.values()), default=0)
    found = [{k: v[i] for k, v in lists.items() if i < len(v)} for i in range(length)]
    return found or [document]


def _row(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: must be an object, got {row!r:.40}")
    return row


def _in_text(text: str) -> Iterator[dict[str, Any]]:
    for line in text.split("\n"):
        start = line.find('{"')
        if start >= 0:
            try:
                row = json.loads(line[start:])
            except ValueError:
                continue
            yield row


def _csv(text: str, path: Path) -> Iterator[dict[str, Any]]:
    """The rows below the first line that has a delimiter: what stands above it is a banner."""
    head = next((line for line in text.split("\n") if re.search("[,;\t]", line)), "")
    delimiter = max(",;\t", key=head.count)
    lines = io.StringIO(text[text.index(head) :].lstrip("\n"))
    reader = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        found = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path}: not CSV ({error})") from None
    if found and None in found[-1].values() and not text.endswith("\n"):  # cut off
        del found[-1]
    for row in found:
        yield {name.strip(): value for name, value in row.items() if name is not None and value}


def _columns(table: Sequence[Mapping[str, Any]]) -> dict[str, list[_Entry]]:
    """Every column that has numbers."""
    columns: dict[str, list[_Entry]] = {}
    names = {name for row in table for name in row}
    steps = [name for name in names if _split(name)[1] in _STEPS]
    surest = {name: sorted(steps, key=partial(_rank, column=name)) for name in names}
    for place, row in enumerate(table, start=1):
        found = {name: step for name in steps if (step := _step(row.get(name))) is not None}
        epoch = _number(row.get("epoch", row.get("Epoch"))) or 0.0
        for name, text in row.items():
            if (value := _number(text)) is not None:
                step = next((found[step] for step in surest[name] if step in found), None)
                entry = _Entry(place if step is None else step, value, epoch, step is None)
                columns.setdefault(name, []).append(entry)
    return columns


def _rank(step: str, column: str) -> tuple[int, bool, bool, int, str]:
    """How sure it is that this is the step of a column, the lowest first; its own group before."""
    group, base = _split(step)
    foreign = group != _split(column)[0]
    return _STEPS.index(base), foreign, not group.startswith("train"), len(step), step


def _split(name: str) -> tuple[str, str]:
    """The group and what is named in it."""
    group, _, base = name.removesuffix("/max_steps").lower().rpartition("/")
    return group.strip(), base.strip()


def _number(text: Any) -> float | None:
    if text is None or isinstance(text, bool | list | dict):
        return None
    try:
        return float(text)
    except ValueError:
        return None
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _step(text: Any) -> float | None:
    """A step, also one that ms-swift writes as "10/438"; what is not finite is none."""
    step = _number(text.partition("/")[0] if isinstance(text, str) else text)
    return step if step is not None and math.isfinite(step) else None


def _counted_on(entries: Sequence[_Entry]) -> Iterator[tuple[float, float]]:
    """Steps and values, counted on where the steps begin anew in a later epoch."""
    gap = spacing([entry.step for entry in entries])
    before = _Entry(-math.inf, math.nan, math.inf)
    offset, offsets = 0.0, {before.epoch: 0.0}  # that of each epoch, to which a run may come back
    for entry in entries:
        if entry.epoch > before.epoch and entry.step <= before.step:
            offset += before.step + gap - entry.step
        elif entry.epoch < before.epoch:
            offset = offsets.get(entry.epoch, offset)
        offsets[entry.epoch] = offset
        yield entry.step + offset, entry.value
        before = entry


def _events(folder: Path) -> dict[str, list[_Entry]]:
    """The scalars of TensorBoard's event files: torch writes scalars, TensorFlow tensors."""
    os.listdir(folder)  # says so where it may not be read, as rglob does not
    runs = sorted({path.parent for path in folder.rglob("events.out.tfevents.*")})
    if not runs:
        raise ValueError(f"{folder}: holds no event file of TensorBoard")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard imports it if it is there
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    columns: dict[str, list[_Entry]] = {}
    for run in runs:
        events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        prefix = "" if run == folder else f"{run.relative_to(folder).as_posix()}: "
        for tag in events.Tags()["scalars"]:
            scalars = events.Scalars(tag)
            columns[prefix + tag] = [_Entry(float(e.step), float(e.value)) for e in scalars]
        for tag in events.Tags()["tensors"]:
            arrays = [(float(e.step), make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
            if all(array.shape == () and array.dtype.kind == "f" for _, array in arrays):
                columns[prefix + tag] = [_Entry(step, float(array)) for step, array in arrays]
    return columns


def _chosen(columns: Mapping[str, Any], column: str | None, path: Path) -> str:
    names = sorted(columns)
    if column is not None:
        if column not in columns:
            raise ValueError(f"{path}: has no numbers in `{column}`, but in: {', '.join(names)}")
        return column
    # Weights & Biases exports the lowest and the highest of what it has thinned out as well.
    plain = [name for name in names if not name.endswith(("__MIN", "__MAX"))]
    likely = [name for name in plain if _is_norm(name.lower())]
    # Ours was measured before any clipping, and at every step.
    likely = [name for name in likely if name.endswith("zenith/grad_norm")] or likely
    if not likely:
        raise ValueError(f"{path}: logs no gradient norm, only {', '.join(names)}")
    if len(likely) > 1:
        raise ValueError(
            f"{path}: has several columns of gradient norms; name one by --column: "
            f"{', '.join(likely)}"
        )
    return likely[0]


def _is_norm(name: str) -> bool:
    return ("grad" in name and "norm" in name) or "gnorm" in name


def spacing(steps: Sequence[float]) -> int:
    """Return how many steps lie between two logged values: the median, at least 1."""
    gaps = sorted(b - a for a, b in pairwise(steps) if b > a)
    return max(1, math.floor(gaps[len(gaps) // 2])) if gaps else 1
