"""The records of a run: one file of JSON lines, and all that table and picture are drawn from.

The first line, of `kind` "run", is the whole question: `format` (the version of this layout),
`task`, `optimizer`, `seed`, `options` (of the optimizer), what the task says of its data and length
(`steps` and `epochs` of a segment, means where these differ, `segments`), `log_every`, `parameters`
(of the network), `sized` (`epochs`, `batch`), `warm_up`, `amp` and `probes` where they are not as
by default, and, under `made`, the versions and the machine on which it began, and `together`: the
optimizers that were trained in step with it. It has no date and no path, so that two runs can be
compared. The others:

- `step`, after every `log_every` steps and at the end of a segment: `step`, `loss` (the mean over
  the steps since the line before), `lr` (in force at this step), `seconds` (of training so far by
  the `clock` in `made`, evaluation left out), `grad_norm`, for ZENITH `mean`, `zenith`, `scale`;
- `eval`, after each segment: `segment`, `step`, `epoch`, `train_loss` (the mean over the segment),
  the task's own measures, such as `test_accuracy` in percent, and `seconds`;
- `end`: `outcome`, which is `finished`, `stopped` where the hours were spent before the planned
  steps were made, or `diverged` where the loss was no longer a number; and `step`.

A measure that is not finite is null.
"""

import json
import math
import os
import zlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from experiments.errors import UserError, explained

__all__ = ["Journal", "Record", "Records", "Silent", "paths", "read", "rounded"]

Record = dict[str, Any]

FORMAT = 1
OUTCOMES = ("finished", "stopped", "diverged")
DIGITS = 6  # significant; the records of a large run are meant to be committed

# What a reader relies on: of the header, its kinds of values; of a line, its numbers or nulls.
_HEADER: dict[str, Any] = {
    **dict.fromkeys(("task", "optimizer"), str),
    **dict.fromkeys(("seed", "segments", "parameters"), int),
    **dict.fromkeys(("train_images", "test_images", "batch"), int),
    **dict.fromkeys(("steps", "epochs", "l2"), int | float),
    "options": dict,
}
_MORE = {"sized": dict, "made": dict, "probes": list, "amp": bool, "classes": int, "measure": str}
_MORE |= {"measures": list, "warm_up": int}
_NUMBERS = {
    "step": ("step", "loss", "lr", "seconds", "grad_norm"),
    "eval": ("segment", "step", "epoch", "train_loss", "seconds"),
    "end": ("step",),
}
_PLACE = ("segment", "step", "epoch", "seconds")


class Records(NamedTuple):
    """What a file holds.

    Attributes:
        header: the question.
        steps: the lines of kind `step`.
        evals: the lines of kind `eval`.
        outcome: one of `OUTCOMES`; None of a run that is under way.
    """

    header: Record
    steps: list[Record]
    evals: list[Record]
    outcome: str | None


class Journal:
    """The file of one run, on disk line by line; its checkpoint lies beside it while it lasts.

    Attributes:
        path: of the records.
        checkpoint: of what a run resumes from.
    """

    def __init__(self, path: Path, header: Record) -> None:
        """Claim the file for a question.

        Raises:
            UserError: if the file is of another question or none, is there twice (plain and
                gzipped), or cannot be written.
        """
        self.path, self.checkpoint = path, path.with_suffix(".pt")
        self._header = rounded({"kind": "run", "format": FORMAT, **header})
        self._file: Any = None
        with explained(f"{path}: cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
        found = self.found()
        if found.exists() and found.stat().st_size:
            _same_question(_first(found), self._header, found)

    def found(self) -> Path:
        """Return the file of the run as it is there: gzipped, or else plain."""
        gzipped = self.path.with_suffix(".jsonl.gz")
        if gzipped.exists() and self.path.exists():
            raise UserError(f"{gzipped} is there beside {self.path}: remove one of the two")
        return gzipped if gzipped.exists() else self.path

    def begun(self) -> Record:
        """Return the header that is there; none where a run was killed before it was whole."""
        path = self.found()
        return _first(path) if path.exists() else {}

    def open(self) -> Self:
        """Open the file, and keep other processes off it, where the system can (not Windows)."""
        if (found := self.found()) != self.path:
            raise UserError(f"{found}: gzipped before the run was finished; gunzip it to go on")
        with explained(f"{self.path}: cannot be written"):
            self._file = self.path.open("ab", buffering=0)
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(f"{self.path}: another process is writing it") from None
        except ModuleNotFoundError:
            pass
        return self

    def begin(self, offset: int | None = None) -> Self:
        """Begin the open file anew, or cut it back to the `offset` of a checkpoint."""
        with explained(f"{self.path}: cannot be written"):
            if self.size() > (offset or 0):
                self._file.truncate(offset or 0)
        if not offset:
            self.write(self._header)
        return self

    def write(self, record: Record) -> Record:
        """Append one line, on disk as soon as this returns; return it as it stands there."""
        record = rounded(record)
        line = _line(record)
        with explained(f"{self.path}: cannot be written"):
            while line:  # a disk that is nearly full takes a part
                line = line[self._file.write(line) :]
        return record

    def size(self) -> int:
        """Return how many bytes there are."""
        return self.path.stat().st_size if self.path.exists() else 0

    def mark(self) -> int:
        """Return the offset of what is safely on disk: all that was written."""
        with explained(f"{self.path}: cannot be written"):
            os.fsync(self._file.fileno())
        return int(self._file.tell())

    def close(self) -> None:
        """Write no more."""
        if self._file:
            self._file.close()


class Silent(Journal):
    """That of a process which leaves the writing to another."""

    def __init__(self, path: Path, header: Record) -> None:
        """Claim nothing."""
        self.path, self.checkpoint = path, path.with_suffix(".pt")

    def open(self) -> Self:
        """Open nothing."""
        return self

    def begin(self, offset: int | None = None) -> Self:
        """Begin nothing."""
        return self

    def write(self, record: Record) -> Record:
        """Return the record as the other one writes it."""
        written: Record = rounded(record)
        return written

    def mark(self) -> int:
        """Return nothing of use."""
        return 0

    def close(self) -> None:
        """Close nothing."""


def read(path: Path) -> Records:
    """Return the records in a file, plain or gzipped.

    A last line that was cut off is left out: it is of a run that was killed.

    Raises:
        UserError: naming the file and, where it is one line that is wrong, the line.
    """
    lines = _text(path).split("\n")
    records = [_parsed(line, f"{path}, line {n}") for n, line in enumerate(lines[:-1], start=1)]
    if not records:
        raise UserError(f"{path}: empty, and not the records of a run")
    _check_header(records[0], f"{path}, line 1")
    kinds: dict[str, list[Record]] = {kind: [] for kind in _NUMBERS}
    for n, record in enumerate(records[1:], start=2):
        kinds[_checked_kind(record, f"{path}, line {n}")].append(record)
    end = kinds["end"]
    if end and not kinds["eval"] and end[0]["outcome"] != "diverged":
        raise UserError(f"{path}: {end[0]['outcome']} without an evaluation")
    return Records(records[0], kinds["step"], kinds["eval"], end[0]["outcome"] if end else None)


def paths(folder: Path) -> list[Path]:
    """Return the files of every run in a folder, in their order.

    Raises:
        UserError: naming the folder, if there is none; naming both, if a run has two.
    """
    found = sorted([*folder.rglob("seed-*.jsonl"), *folder.rglob("seed-*.jsonl.gz")])
    if not found:
        raise UserError(f"{folder}: holds no records of a run (TASK/OPTIMIZER/seed-N.jsonl)")
    for plain, zipped in pairwise(found):
        if zipped.name == f"{plain.name}.gz" and zipped.parent == plain.parent:
            raise UserError(f"{plain} and {zipped} are of the same run: remove one of them")
    return found


def rounded(value: Any) -> Any:
    """Return `value` with every number in it at `DIGITS` significant digits, or null.

    Examples:
        >>> rounded({"loss": 1 / 3, "lr": float("inf"), "step": 1234567})
        {'loss': 0.333333, 'lr': None, 'step': 1234567}
    """
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _line(record: Record) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _text(path: Path) -> str:
    import gzip

    with explained(f"{path}: cannot be read"):
        content = path.read_bytes()
    try:
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, zlib.error):
        raise UserError(f"{path}: not a sound gzip file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text in UTF-8") from None


def _parsed(line: str, place: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        raise UserError(f"{place}: not JSON") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: must be an object, got {record!r:.40}")
    return record


def _check_header(header: Record, place: str) -> None:
    if header.get("kind") != "run" or header.get("format") != FORMAT:
        raise UserError(f"{place}: must be of kind `run` and `format` {FORMAT}")
    wrong = [name for name, kind in _HEADER.items() if not isinstance(header.get(name), kind)]
    wrong += [
        name for name, kind in _MORE.items() if not isinstance(header.get(name, kind()), kind)
    ]
    pairs = {} if wrong else {**header["options"], **header.get("sized", {})}
    pairs |= {"hours": header.get("hours") or 0}
    wrong += [name for name, value in pairs.items() if not isinstance(value, int | float)]
    if wrong:
        raise UserError(f"{place}: `{wrong[0]}` is missing or not what it must be")


def _checked_kind(record: Record, place: str) -> str:
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _NUMBERS:
        raise UserError(f"{place}: `kind` must be one of {', '.join(_NUMBERS)}, got {kind!r}")
    wanted = _NUMBERS[kind] + (("mean", "zenith") if "scale" in record else ())
    wrong = [name for name in wanted if name not in record]
    for name, value in record.items():  # a measure may be null, but not where a run stood
        number = int | float if name in _PLACE else int | float | None
        if name not in ("kind", "outcome") and not isinstance(value, number):
            wrong.append(name)
    if kind == "end" and record.get("outcome") not in OUTCOMES:
        wrong.append("outcome")
    if wrong:
        raise UserError(f"{place}: `{wrong[0]}` is missing or not what it must be")
    return kind


def _first(path: Path) -> Record:
    if path.suffix == ".gz":
        return read(path).header
    with explained(f"{path}: cannot be read"), path.open("rb") as file:
        line = file.readline().decode(errors="replace")
    return {} if not line.endswith("\n") else _parsed(line, f"{path}, line 1")


def _same_question(found: Record, asked: Record, path: Path) -> None:
    """Refuse to go on with the file of another question; it may be of another machine."""
    if not found:
        return  # killed before its first line was whole
    for name in asked.keys() | found.keys():
        if name not in ("made", "probes") and asked.get(name) != found.get(name):
            raise UserError(
                f"{path} holds a run of another question: `{name}` {found.get(name)!r}, "
                f"asked for {asked.get(name)!r}; choose another --out"
            )
