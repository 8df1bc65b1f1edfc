"""ZENITH's numbers in a training log, without waiting for the device at every step.

One line before the loop and one in it:

    with MetricLog(to_csv("zenith.csv")) as log:
        for batch in batches:
            ...
            log(optimizer)

A *sink* is where the numbers go: any function of a step and a dictionary of numbers. Here are those
for TensorBoard, Weights & Biases, CSV and `logging`.
"""

import csv
import logging
import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zenith.core import ZenithState, metrics

__all__ = ["MetricLog", "Sink", "to_csv", "to_logging", "to_tensorboard", "to_wandb"]

Sink = Callable[[int, Mapping[str, float]], object]


class MetricLog:
    """Collects ZENITH's numbers step by step, and reads them off the device many steps at a time.

    What is waiting is handed on by `flush()`, at the end of a `with` block, and, at the latest,
    when the log is no longer used or the program ends.

    Args:
        sinks: where the numbers go, once they are read.
        every: how many steps are read together. A read waits for the device, so that a loop with
            `every=1` runs as slowly as one that prints its loss at every step.
        step: of the first step, less one; for a run that is resumed.

    Raises:
        TypeError: if a sink is not a function.
        ValueError: if `every` is not an integer >= 1.

    Examples:
        >>> import zenith
        >>> with MetricLog(lambda step, numbers: print(step, numbers["scale"]), every=2) as log:
        ...     state = zenith.init(window=1)
        ...     for norm in [4.0, 3.0, 1.0]:
        ...         state = zenith.update(state, norm)
        ...         log(state)
        1 1.0
        2 0.75
        3 0.25
    """

    def __init__(self, *sinks: Sink, every: int = 50, step: int = 0) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` must be an integer >= 1, got {every!r}")
        if wrong := [sink for sink in sinks if not callable(sink)]:
            raise TypeError(
                f"`sinks` must be functions such as to_csv({wrong[0]!r}) returns, got {wrong[0]!r}"
            )
        self.every: int = every
        self.step: int = step
        self._sinks: Sequence[Sink] = sinks
        self._waiting: list[_Row] = []
        weakref.finalize(self, _flush, self._waiting, sinks)

    def __call__(self, source: Any, step: int | None = None, **more: Any) -> None:
        """Take the numbers of one step.

        Args:
            source: an optimizer or schedule of `zenith.torch` or `zenith.tf`, a `ZenithState`, or
                a mapping such as `zenith.metrics` returns. In JAX, what comes out of the jitted
                step: an array of a state that is donated is gone by the time it is read.
            step: by default one more than the last.
            more: other scalars to log beside them, such as `loss=loss`.

        Raises:
            TypeError: if `source` is none of these.
            ValueError: if what is to be logged is not a single number.
        """
        given = {**source, **more} if isinstance(source, Mapping) else more
        numbers = {} if isinstance(source, Mapping) else _numbers_of(source)
        numbers |= {name: _kept(name, value) for name, value in given.items()}
        self.step = self.step + 1 if step is None else step
        self._waiting.append((self.step, numbers))
        if len(self._waiting) >= self.every:
            self.flush()

    def flush(self) -> None:
        """Read what is waiting, all of it together, and hand it to the sinks."""
        _flush(self._waiting, self._sinks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except Exception:
            if kind is None:
                raise
            logging.getLogger("zenith").exception("the last steps could not be logged")


class _Csv:
    """The sink that `to_csv` returns."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.more = list(columns)
        self.file: Any = None
        self.columns: list[str] | None = None
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.columns = next(csv.reader(file), None)

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
            self.file = self.path.open("a", newline="", encoding="utf-8", buffering=1)
        writer = csv.DictWriter(self.file, self.columns)
        if fresh:
            writer.writeheader()
        writer.writerow(row)

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()


def to_csv(path: str | PathLike[str], columns: Sequence[str] = ()) -> Sink:
    """Return a sink that appends to a CSV file, a row for each step, on disk after each.

    A file that is there already is gone on with, in its own columns; those of a new one are
    the names in the first row.

    Args:
        path: of the file.
        columns: names that only later rows have, such as that of a loss that is taken now and then.
            Where a row lacks a number its cell stays empty.

    Raises:
        ValueError: by the sink, if a row has a name that is no column; the file stays as it was.
    """
    return _Csv(Path(path), columns)


def to_tensorboard(writer: Any, prefix: str = "zenith/") -> Sink:
    """Return a sink for a `SummaryWriter` of torch or Flax, or one of `tf.summary`."""

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

    return write


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


_Row = tuple[int, dict[str, Any]]


def _flush(waiting: list[_Row], sinks: Sequence[Sink]) -> None:
    """Hand on what is waiting; what a sink fails to take goes on waiting."""
    _read(waiting)
    while waiting:
        for sink in sinks:
            sink(*waiting[0])
        del waiting[0]


def _numbers_of(source: Any) -> dict[str, Any]:
    if isinstance(source, ZenithState):
        return metrics(source)
    if not hasattr(source, "zenith_state"):
        raise TypeError(
            "`source` must be an optimizer under ZENITH, a ZenithState or a mapping, "
            f"got a {type(source).__name__}"
        )
    # In torch `zenith_state` would copy all the norms; the state itself is never written in place.
    state = source._state if hasattr(source, "_state") else source.zenith_state
    numbers = metrics(state)
    rate = _rate(source, numbers["scale"])
    return numbers if rate is None else numbers | {"lr": rate}


def _rate(source: Any, scale: Any) -> Any:
    """The rate in force, without a read, where `source` knows one."""
    if hasattr(source, "effective_learning_rate"):  # an optimizer of Keras
        return source.effective_learning_rate
    if hasattr(source, "param_groups"):  # of torch, whose get_last_lr() would read
        return (source._rates or [source.param_groups[0]["lr"] * scale])[0]
    return source.get_last_lr()[0] if hasattr(source, "get_last_lr") else None


def _kept(name: str, value: Any) -> Any:
    """One number, as it is now: a tensor of torch may be written in place before it is read."""
    if math.prod(getattr(value, "shape", ())) != 1:
        raise ValueError(f"`{name}` must be one number, got shape {tuple(value.shape)}")
    return value.detach().clone().reshape(()) if hasattr(value, "detach") else value


def _read(rows: Sequence[_Row]) -> None:
    """Put plain numbers in place of tensors: one read for all of one dtype, on one device."""
    groups: defaultdict[Any, list[tuple[dict[str, Any], str]]] = defaultdict(list)
    for _, numbers in rows:
        for name, value in numbers.items():
            if not isinstance(value, int | float):
                groups[_library(value), str(getattr(value, "device", "")), value.dtype].append(
                    (numbers, name)
                )
    for (library, *_), places in groups.items():
        values = _values(library, [numbers[name] for numbers, name in places])
        for (numbers, name), value in zip(places, values, strict=True):
            numbers[name] = value


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _values(library: str, scalars: list[Any]) -> list[Any]:
    if library == "torch":
        import torch

        return list(torch.stack(scalars).tolist())
    if library == "tensorflow":
        import tensorflow as tf

        return list(tf.stack(scalars).numpy().tolist())
    if library in ("jax", "jaxlib"):
        import jax

        scalars = jax.device_get(scalars)
    return [scalar.item() for scalar in scalars]
