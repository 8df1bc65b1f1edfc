"""ZENITH's numbers in a training log, without waiting for the device at every step.

One line before the loop and one in it:

    log = MetricLog(to_csv("zenith.csv"))
    ...
    log(optimizer)

A *sink* is where the numbers go: any function of a step and a dictionary of floats. Here are those
for TensorBoard, Weights & Biases, CSV and `logging`.
"""

import csv
import logging
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from zenith.core import ZenithState, metrics

__all__ = ["MetricLog", "Sink", "to_csv", "to_logging", "to_tensorboard", "to_wandb"]

Sink = Callable[[int, Mapping[str, float]], None]


class MetricLog:
    """Collects ZENITH's numbers step by step, and reads them off the device many steps at a time.

    Args:
        sinks: where the numbers go, once they are read.
        every: how many steps are read together. A read waits for the device, so that a loop with
            `every=1` runs as slowly as one that prints its loss at every step.
        step: of the first step, less one; for a run that is resumed.

    Raises:
        ValueError: if `every` is less than 1.

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
        if not every >= 1:
            raise ValueError(f"`every` must be an integer >= 1, got {every!r}")
        self.sinks = sinks
        self.every = every
        self.step = step
        self._waiting: list[tuple[int, dict[str, Any]]] = []

    def __call__(self, source: Any, step: int | None = None, **more: Any) -> None:
        """Take the numbers of one step.

        Args:
            source: an optimizer or schedule of `zenith.torch` or `zenith.tf`, a `ZenithState`, or
                a mapping such as `zenith.metrics` returns (in JAX, out of the jitted step).
            step: by default one more than the last.
            more: other scalars to log beside them, such as `loss=loss`.
        """
        self.step = self.step + 1 if step is None else step
        self._waiting.append((self.step, _numbers_of(source) | more))
        if len(self._waiting) >= self.every:
            self.flush()

    def flush(self) -> None:
        """Read what is waiting, all of it together, and hand it to the sinks."""
        waiting, self._waiting = self._waiting, []
        for name in dict.fromkeys(name for _, numbers in waiting for name in numbers):
            holders = [numbers for _, numbers in waiting if name in numbers]
            for numbers, value in zip(holders, _read([n[name] for n in holders]), strict=True):
                numbers[name] = value
        for step, numbers in waiting:
            for sink in self.sinks:
                sink(step, numbers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        self.flush()


def to_csv(path: str | PathLike[str]) -> Sink:
    """Return a sink that appends to a CSV file, a row for each step, on disk after each.

    The first row decides on the columns; a file that is there already is gone on with, if it has
    the same.

    Raises:
        ValueError: at the first row, if the file has other columns.
    """

    def write(step: int, numbers: Mapping[str, float]) -> None:
        row = {"step": step, **numbers}
        with Path(path).open("a+", newline="", encoding="utf-8") as file:
            file.seek(0)
            found = next(csv.reader(file), None)
            if found is not None and found != list(row):
                raise ValueError(f"the columns of {path} must be {list(row)}, got {found}")
            writer = csv.DictWriter(file, list(row))
            if found is None:
                writer.writeheader()
            writer.writerow(row)

    return write


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


def _numbers_of(source: Any) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, ZenithState):
        return metrics(source)
    if not hasattr(source, "zenith_state"):
        raise TypeError(
            "`source` must be an optimizer under ZENITH, a ZenithState or a mapping, "
            f"got a {type(source).__name__}"
        )
    numbers = metrics(source.zenith_state)
    rate = _rate(source, numbers["scale"])
    return numbers if rate is None else numbers | {"lr": rate}


def _rate(source: Any, scale: Any) -> Any:
    """The rate in force, without a read, where `source` knows one."""
    if hasattr(source, "effective_learning_rate"):  # an optimizer of Keras
        return source.effective_learning_rate
    if hasattr(source, "param_groups"):  # of torch, whose get_last_lr() would read
        return (source._rates or [source.param_groups[0]["lr"] * scale])[0]
    return source.get_last_lr()[0] if hasattr(source, "get_last_lr") else None


def _read(values: list[Any]) -> list[Any]:
    """Numbers or scalars of any framework as plain numbers, by one read for all of them."""
    libraries = {type(value).__module__.partition(".")[0] for value in values}
    if "torch" in libraries:
        import torch

        values = torch.stack([torch.as_tensor(value) for value in values]).tolist()
    elif "tensorflow" in libraries:
        import tensorflow as tf

        values = tf.stack(values).numpy().tolist()
    elif libraries & {"jax", "jaxlib"}:
        import jax

        values = jax.device_get(values)
    return [value.item() if hasattr(value, "item") else value for value in values]
