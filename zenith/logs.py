"""ZENITH's numbers in a training log, without waiting for the device at every step.

One line before the loop and one in it:

    with MetricLog(to_csv("zenith.csv")) as log:
        for batch in batches:
            ...
            log(optimizer)

A *sink* is where the numbers go: any function of a step and a dictionary of numbers. Here are those
for TensorBoard, Weights & Biases, CSV and `logging`.
"""

import logging
import math
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from zenith._sinks import Sink, to_csv, to_logging, to_tensorboard, to_wandb
from zenith._watch import Watch, find
from zenith.core import ZenithState, metrics

__all__ = [
    "MetricLog",
    "Sink",
    "Watch",
    "find",
    "to_csv",
    "to_logging",
    "to_tensorboard",
    "to_wandb",
]


class MetricLog:
    """Collects ZENITH's numbers step by step, and reads them off the device many steps at a time.

    What is waiting is handed on by `flush()`, at the end of a `with` block, and, at the latest,
    when the log is no longer used or the program ends.

    Args:
        sinks: where the numbers go, once they are read.
        every: how many steps are read together. A read waits for the device, so that a loop with
            `every=1` runs as slowly as one that prints its loss at every step.
        step: of the first step, less one; by default that a CSV file ends with, or 0.
        remedy: what a warning of clipped norms advises; by default what fits the framework.

    Raises:
        TypeError: if a sink is not a function.
        ValueError: if `every` is not an integer >= 1.

    Warns:
        ZenithWarning: where the rows show that ZENITH is off: a full window of norms that are all
            one value, as after clipping, or a `with` block that ends before the window is full.

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

    def __init__(
        self, *sinks: Sink, every: int = 50, step: int | None = None, remedy: str = ""
    ) -> None:
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` must be an integer >= 1, got {every!r}")
        if wrong := [sink for sink in sinks if not callable(sink)]:
            raise TypeError(
                f"`sinks` must be functions such as to_csv({wrong[0]!r}) returns, got {wrong[0]!r}"
            )
        self.every: int = every
        ends = [getattr(sink, "last_step", 0) for sink in sinks]
        self.step: int = max([0, *ends]) if step is None else step
        self.watch = Watch(remedy)
        self._sinks: Sequence[Sink] = sinks
        self._waiting: list[_Row] = []
        weakref.finalize(self, _flush, self._waiting, self._sinks)

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
        numbers = _numbers_of(source) | more
        numbers = {name: _kept(name, value) for name, value in numbers.items()}
        look = self.watch.see(source)
        self.watch.remedy = self.watch.remedy or _remedy(source, numbers)
        self.step = self.step + 1 if step is None else step
        self._waiting.append((self.step, numbers, look))
        if len(self._waiting) >= self.every:
            self.flush()

    def expect(self, source: Any, steps: float, clips: str = "", schedules: str = "") -> None:
        """Warn of what is known before a run of so many steps: see `Watch.run_of`."""
        self.watch.see(source)
        self.watch.run_of(int(source.zenith_metrics()["count"]) + steps, clips, schedules)

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
            if kind is None:
                self.watch.ended()
        except Exception:
            if kind is None:
                raise
            logging.getLogger("zenith").exception("the last steps could not be logged")


_Row = tuple[int, dict[str, Any], Sink]  # the last, of the watch


def _flush(waiting: list[_Row], sinks: Sequence[Sink]) -> None:
    """Hand on what is waiting; what a sink fails to take goes on waiting."""
    _read(waiting)
    while waiting:
        step, numbers, look = waiting[0]
        for sink in (look, *sinks):
            sink(step, numbers)
        del waiting[0]
    for sink in sinks:
        getattr(sink, "flush", bool)()


def _numbers_of(source: Any) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, ZenithState):
        return metrics(source)
    if not hasattr(source, "zenith_metrics"):
        raise TypeError(
            "`source` must be an optimizer under ZENITH, a ZenithState or a mapping, "
            f"got a {type(source).__name__}"
        )
    return dict(source.zenith_metrics())


def _remedy(source: Any, numbers: Mapping[str, Any]) -> str:
    if hasattr(source, "effective_learning_rate") or hasattr(source, "observe"):
        return _REMEDIES["keras"]
    if hasattr(source, "zenith_metrics"):
        return _REMEDIES["torch"]
    return _REMEDIES.get(_library(numbers.get("mean")), "")


_REMEDIES = {
    "torch": "Hand on the norm that clipping returns, `step(grad_norm=...)`, or leave the clipping "
    "to `Zenith(max_grad_norm=...)`.",
    "keras": "Leave the clipping to the optimizer's own `global_clipnorm`, or hand on the norm, "
    "`grad_norm=...`.",
    "jaxlib": "Put ZENITH first in the `optax.chain`, or the clipping inside `with_zenith`.",
}


def _kept(name: str, value: Any) -> Any:
    """One number, as it is now: an adapter may write its state in place before it is read."""
    if math.prod(getattr(value, "shape", ())) != 1:
        raise ValueError(f"`{name}` must be one number, got shape {tuple(value.shape)}")
    if hasattr(value, "detach"):
        return value.detach().clone().reshape(())
    if hasattr(value, "read_value"):  # a variable of TensorFlow
        return value.read_value()
    return value.copy() if _library(value) == "numpy" else value


def _read(rows: Sequence[_Row]) -> None:
    """Put plain numbers in place of tensors: one read for all of one dtype, on one device."""
    groups: defaultdict[Any, list[tuple[dict[str, Any], str]]] = defaultdict(list)
    for _, numbers, _ in rows:
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
    if library == "jaxlib":
        import jax

        scalars = jax.device_get(scalars)
    return [scalar.item() for scalar in scalars]
