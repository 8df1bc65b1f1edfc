"""The records of a run: one JSON object a line, the only source of table and picture.

The first line, of kind `run`, says what was asked for: `format` (the version of this layout),
`data`, `train_images`, `test_images`, `parameters` (of the network), `optimizers`, `epochs`, `lr`,
`window`, `momentum`, `seeds`, `batch_size`, `steps_per_epoch`, `steps` (of each run), `log_every`,
`threads` and `versions`. It has no date and no path, so that two runs can be compared. Every other
line names its `optimizer` and `seed`:

- `step`, after every `log_every` steps: `step`, `epoch`, `loss` (the mean over the steps since the
  line before), `lr` (the rate in force at this step), and for ZENITH `grad_norm`, `mean`, `zenith`
  and `scale` at this step;
- `epoch`, after each epoch: `epoch`, `train_loss` (the mean over its steps), `test_accuracy` in
  percent, `lr` at its last step, `seconds` of training up to here, evaluation left out;
- `result`, after each seed: the fields of its last finished epoch, `step_ms` (the median time of a
  step) and `overhead_percent` against the same steps of `sgd` (`q1`, `median`, `q3`, or null).

A number that is not finite, the loss of a run that diverged, is null.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from zenith.demo.errors import UserError, reason
from zenith.demo.settings import OPTIMIZERS

Record = dict[str, Any]

FORMAT = 1
DIGITS = 6  # significant; the records of a large run are meant to be committed


def _text(value: object) -> bool:
    return isinstance(value, str)


def _count(value: object) -> bool:
    return isinstance(value, int)


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def _loss(value: object) -> bool:
    return value is None or _number(value)


def _quartiles(value: object) -> bool:
    names = ("q1", "median", "q3")
    return value is None or (
        isinstance(value, dict) and all(_number(value.get(name)) for name in names)
    )


def _optimizers(value: object) -> bool:
    return isinstance(value, list) and all(name in OPTIMIZERS for name in value)


Rules = dict[str, Callable[[object], bool]]

_EPOCH: Rules = {
    "epoch": _count,
    "train_loss": _loss,
    "test_accuracy": _number,
    "lr": _number,
    "seconds": _number,
}
# What table and picture rely on; more fields, such as `threads`, may be there for the reader.
_RULES: dict[str, Rules] = {
    "run": {
        **dict.fromkeys(("train_images", "test_images", "parameters", "epochs", "steps"), _count),
        **dict.fromkeys(("window", "seeds", "batch_size"), _count),
        **dict.fromkeys(("lr", "momentum"), _number),
        **{"data": _text, "optimizers": _optimizers},
    },
    "step": {"step": _count, "epoch": _count, "loss": _loss, "lr": _number},
    "epoch": _EPOCH,
    "result": {**_EPOCH, "step_ms": _number, "overhead_percent": _quartiles},
}
_LINE: Rules = {"optimizer": _text, "seed": _count}  # of every record but the first
_ZENITH: Rules = dict.fromkeys(("grad_norm", "mean", "zenith", "scale"), _number)  # of its steps


def to_line(record: Record) -> str:
    r"""Return the record as one line of JSON.

    Examples:
        >>> to_line({"kind": "step", "loss": 1 / 3, "lr": float("inf")})
        '{"kind":"step","loss":0.333333,"lr":null}\n'
    """
    return json.dumps(rounded(record), separators=(",", ":"), allow_nan=False) + "\n"


def rounded(value: Any) -> Any:
    """Return `value` with every number in it at `DIGITS` significant digits, or null."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def read(path: Path) -> list[Record]:
    """Return the records in the file at `path`, the header first.

    Raises:
        UserError: naming the file and, where it is one line that is wrong, the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text in UTF-8") from None
    if not lines:
        raise UserError(f"{path}: empty, and not the records of `zenith demo`")
    records = [_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, start=1)]
    _check_order(records, path)
    return records


def of_kind(records: Iterable[Record], kind: str, optimizer: str) -> list[Record]:
    """Return the records of one kind and one optimizer, all seeds together."""
    return [r for r in records if r["kind"] == kind and r["optimizer"] == optimizer]


def _parse(line: str, place: str) -> Record:
    try:
        record = json.loads(line)
    except ValueError:
        raise UserError(f"{place}: not JSON") from None
    kind = record.get("kind") if isinstance(record, dict) else None
    if str(kind) not in _RULES:
        raise UserError(f"{place}: `kind` must be one of {', '.join(_RULES)}, got {kind!r}")
    for field, holds in _rules(record).items():
        if not holds(record.get(field, ...)):
            raise UserError(f"{place}: `{field}` is missing or not what it must be")
    return dict(record)


def _rules(record: Record) -> Rules:
    rules = _RULES[record["kind"]]
    if record["kind"] == "run":
        return rules
    schedule = record["kind"] == "step" and record.get("optimizer") == "zenith"
    return {**_LINE, **rules, **(_ZENITH if schedule else {})}


def _check_order(records: Sequence[Record], path: Path) -> None:
    header = records[0]
    if header["kind"] != "run" or header.get("format") != FORMAT:
        raise UserError(f"{path}, line 1: must be of kind `run` and `format` {FORMAT}")
    for n, record in enumerate(records[1:], start=2):
        if record["kind"] == "run" or record["optimizer"] not in header["optimizers"]:
            raise UserError(f"{path}, line {n}: belongs to no optimizer of line 1")
