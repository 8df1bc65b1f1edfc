"""`ZenithLogger`: the callback that puts the schedule into the logs of `fit`."""

from collections.abc import Mapping
from typing import Any

import keras

from zenith.logs import MetricLog, Sink, find

__all__ = ["ZenithLogger"]


class ZenithLogger(keras.callbacks.Callback):  # type: ignore[misc]
    """Puts ZENITH into the logs of `fit`, as they are after the last step of each epoch.

    It adds `grad_norm`, `scale` and `effective_learning_rate` (the rate in force at that step), so
    that the progress bar, `History`, and every callback that comes after it in the list,
    `CSVLogger` and `TensorBoard` among them, show them.

    Args:
        sinks: where the numbers of every step go besides, such as
            `zenith.logs.to_csv("zenith.csv")`. A step is an update of the variables, or one that
            was skipped for its norm: its number is `count + skipped`. With `steps_per_execution`
            the host sees only the last step of each execution.
        every: how many batches are read off the device together for them.
        optimizer: the optimizer to log, where it is not `model.optimizer`: a model that has
            several, such as a GAN, takes a logger for each.
        prefix: goes before the three names in the logs, to tell several loggers apart.

    Raises:
        TypeError: if a sink is no function.
        ValueError: if `every` is not an integer >= 1.
        TypeError: at the start of `fit`, if the optimizer is neither `Zenith` nor `ZenithWrapper`,
            nor a `LossScaleOptimizer` around one.

    Warns:
        ZenithWarning: once for each optimizer, where ZENITH is off: a `fit` that ends before the
            window is full, or norms that are all one value, as after a clipping that it cannot see.

    Examples:
        >>> import keras, numpy
        >>> from zenith.tf import Zenith, ZenithLogger
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer=Zenith(0.1, window=2), loss="mse")
        >>> x = numpy.ones((8, 1), "float32")
        >>> history = model.fit(x, 2 * x, epochs=3, verbose=0, callbacks=[ZenithLogger()])
        >>> [scale < 1 for scale in history.history["scale"]]
        [False, False, True]
    """

    def __init__(
        self, *sinks: Sink, every: int = 50, optimizer: Any = None, prefix: str = ""
    ) -> None:
        super().__init__()
        MetricLog(*sinks, every=every)  # which says what is wrong with them
        self._sinks, self._every = sinks, every
        self._given, self._prefix = optimizer, prefix

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find ZENITH in the optimizer, and say so if this `fit` is too short for it."""
        given = self.model.optimizer if self._given is None else self._given
        rule = "`optimizer`, or that of the model, must be a Zenith or a ZenithWrapper"
        (self._optimizer,) = find([given], rule)
        self._updates = _Updates()
        self._log = MetricLog(self._updates, every=self._every)
        self._read()
        self._updates.sinks = self._sinks
        self._warn_if_short()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the numbers of a step for the sinks."""
        if self._sinks:
            self._take()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add to the logs."""
        numbers = self._read()
        if logs is not None:
            logs[f"{self._prefix}grad_norm"] = numbers["grad_norm"]
            logs[f"{self._prefix}scale"] = numbers["scale"]
            logs[f"{self._prefix}effective_learning_rate"] = numbers["lr"]

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Hand what is waiting to the sinks."""
        self._log.flush()
        if not self.params.get("steps"):  # or it was known, and said, at the start
            self._log.watch.ended()

    def _take(self) -> None:
        if hasattr(self.model, "jax_state_sync"):  # on JAX the variables lag behind the steps
            self.model.jax_state_sync()
        self._log(self._optimizer)

    def _read(self) -> Mapping[str, float]:
        self._take()
        self._log.flush()
        return self._updates.numbers

    def _warn_if_short(self) -> None:
        batches = (self.params.get("epochs") or 0) * (self.params.get("steps") or 0)
        host = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        if batches:
            updates = batches // (host.gradient_accumulation_steps or 1)
            self._log.expect(self._optimizer, updates)


class _Updates:
    """A sink that hands on the rows of updates alone, numbered by them, and knows the last row.

    A batch whose gradient was only accumulated, or dropped by a loss scaler, repeats a row.
    """

    def __init__(self) -> None:
        self.sinks: tuple[Sink, ...] = ()  # until the state at the start is known
        self.step = 0
        self.numbers: Mapping[str, float] = {}

    def __call__(self, _: int, numbers: Mapping[str, float]) -> None:
        self.numbers = numbers
        step = int(numbers["count"] + numbers["skipped"])
        if step != self.step:
            for sink in self.sinks:
                sink(step, numbers)
        self.step = step
