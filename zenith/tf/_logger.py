"""`ZenithLogger`: the callback that puts the schedule into the logs of `fit`."""

from typing import Any

import keras

from zenith import core

__all__ = ["ZenithLogger"]


class ZenithLogger(keras.callbacks.Callback):  # type: ignore[misc]
    """Puts ZENITH into the logs of `fit`, as they are after the last step of each epoch.

    It adds `grad_norm`, `scale` and `effective_learning_rate` (the rate in force), so that the
    progress bar, `History`, and every callback that comes after it in the list, `CSVLogger` and
    `TensorBoard` among them, show them.

    Raises:
        TypeError: at the start of `fit`, if the model's optimizer is neither `Zenith` nor
            `ZenithWrapper`, nor a `LossScaleOptimizer` around one.

    Example:
        >>> import keras, numpy
        >>> from zenith.tf import Zenith, ZenithLogger
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer=Zenith(0.1), loss="mse")
        >>> x = numpy.ones((8, 1), "float32")
        >>> history = model.fit(x, 2 * x, epochs=3, verbose=0, callbacks=[ZenithLogger()])
        >>> history.history["scale"]
        [1.0, 1.0, 1.0]
    """

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

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add to the logs."""
        if logs is not None:
            metrics = core.metrics(self._optimizer.zenith_state)
            logs["grad_norm"] = float(metrics["grad_norm"])
            logs["scale"] = float(metrics["scale"])
            logs["effective_learning_rate"] = float(self._optimizer.effective_learning_rate)
