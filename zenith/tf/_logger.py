"""`ZenithLogger`: the callback that puts the schedule into the logs of `fit`."""

from typing import Any

import keras

from zenith import core
from zenith.logs import MetricLog, Sink

__all__ = ["ZenithLogger"]


class ZenithLogger(keras.callbacks.Callback):  # type: ignore[misc]
    """Puts ZENITH into the logs of `fit`, as they are after the last step of each epoch.

    It adds `grad_norm`, `scale` and `effective_learning_rate` (the rate in force), so that the
    progress bar, `History`, and every callback that comes after it in the list, `CSVLogger` and
    `TensorBoard` among them, show them.

    Args:
        sinks: where the numbers of every step go besides, such as
            `zenith.logs.to_csv("zenith.csv")`. With `steps_per_execution` the host sees only the
            last step of each execution.
        every: how many steps are read off the device together for them.

    Raises:
        TypeError: at the start of `fit`, if the model's optimizer is neither `Zenith` nor
            `ZenithWrapper`, nor a `LossScaleOptimizer` around one.

    Examples:
        >>> import keras, numpy
        >>> from zenith.tf import Zenith, ZenithLogger
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer=Zenith(0.1), loss="mse")
        >>> x = numpy.ones((8, 1), "float32")
        >>> history = model.fit(x, 2 * x, epochs=3, verbose=0, callbacks=[ZenithLogger()])
        >>> history.history["scale"]
        [1.0, 1.0, 1.0]
    """

    def __init__(self, *sinks: Sink, every: int = 50) -> None:
        super().__init__()
        self._sinks, self._every = sinks, every

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find ZENITH in the model's optimizer."""
        optimizer = self.model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = optimizer.inner_optimizer
        if not hasattr(type(optimizer), "effective_learning_rate"):
            raise TypeError(
                "the optimizer of the model must be a Zenith or a ZenithWrapper, "
                f"got a {type(optimizer).__name__}"
            )
        self._optimizer = optimizer
        self._micro_steps = getattr(self.model.optimizer, "gradient_accumulation_steps", None) or 1
        step = int(optimizer.iterations)
        self._batches = step * self._micro_steps
        self._log = MetricLog(*self._sinks, every=self._every, step=step)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count on from the batches before."""
        self._before = self._batches

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the numbers of a step for the sinks, if this batch made one."""
        self._batches = self._before + batch + 1  # the last of `steps_per_execution`
        step = self._batches // self._micro_steps
        if self._sinks and step > self._log.step:
            if hasattr(self.model, "jax_state_sync"):  # on JAX the variables lag behind the steps
                self.model.jax_state_sync()
            self._log(self._optimizer, step=step)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Hand what is waiting to the sinks."""
        self._log.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add to the logs."""
        if logs is not None:
            metrics = core.metrics(self._optimizer.zenith_state)
            logs["grad_norm"] = float(metrics["grad_norm"])
            logs["scale"] = float(metrics["scale"])
            logs["effective_learning_rate"] = float(self._optimizer.effective_learning_rate)
