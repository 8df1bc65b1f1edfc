"""`ZenithSchedule`: the rate as a `LearningRateSchedule`, for a custom loop and any optimizer."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import keras

from zenith import core
from zenith.core import ZenithState
from zenith.tf._host import Trackable, reduced
from zenith.tf._norm import as_norm, global_norm
from zenith.tf._state import StateVariables, dtype_for

__all__ = ["ZenithSchedule"]


@keras.saving.register_keras_serializable(package="zenith")
class ZenithSchedule(keras.optimizers.schedules.LearningRateSchedule, Trackable):  # type: ignore[misc]
    """ZENITH's rate for a custom training loop, with any Keras optimizer.

    `schedule.observe(grads)` goes before `optimizer.apply(grads)`; the optimizer then asks the
    schedule for its rate, `initial_learning_rate * mean_t / zenith_t` (equations 1 to 3 and
    Algorithm 1 of Saha, arXiv 2601.15212), in which the norm of these very gradients counts. Hand
    it the gradients before any clipping and after any unscaling. It owns no step: a gradient that
    is not finite leaves the schedule as it was, and is still the optimizer's to apply.

    A `.keras` file of a model that was compiled with the optimizer holds the schedule's state, and
    so does a `tf.train.Checkpoint` of the optimizer. A file of weights alone does not.

    On the JAX backend thread `schedule.variables` through a `keras.StatelessScope`, as you thread
    the optimizer's. In `model.fit` nothing calls `observe`: use `Zenith` or `ZenithWrapper` there.

    Args:
        initial_learning_rate: the highest rate; a number >= 0.
        window: how many gradient norms the mean is taken over; an integer >= 1.

    Attributes:
        variables: the Keras variables of the state.

    Raises:
        TypeError: if `window` is not an integer.
        ValueError: if an argument is out of its range.

    Examples:
        >>> import keras
        >>> from zenith.tf import ZenithSchedule
        >>> x = keras.Variable([3.0, 4.0])
        >>> schedule = ZenithSchedule(0.5, window=1)
        >>> optimizer = keras.optimizers.SGD(schedule)
        >>> for gradient in ([3.0, 4.0], [1.5, 2.0]):
        ...     grads = [keras.ops.convert_to_tensor(gradient)]
        ...     schedule.observe(grads)
        ...     optimizer.apply(grads, [x])
        ...     print(float(schedule(0)), x.numpy().tolist())
        0.5 [1.5, 2.0]
        0.25 [1.125, 1.5]
    """

    def __init__(self, initial_learning_rate: float = 0.1, window: int = 500) -> None:
        super().__init__()
        if not 0 <= initial_learning_rate < math.inf:
            raise ValueError(f"`initial_learning_rate` must be >= 0, got {initial_learning_rate!r}")
        self.initial_learning_rate = float(initial_learning_rate)
        self.window = len(core.init(window).norms)
        variable = partial(keras.Variable, trainable=False)
        self._state = StateVariables(self.window, dtype_for([keras.config.floatx()]), variable)
        self.variables = list(self._state.variables)

    def observe(self, grads: Iterable[Any] | None = None, *, grad_norm: Any = None) -> None:
        """Advance the schedule by the gradient that the optimizer is about to apply.

        Args:
            grads: the gradients, with None for a variable that has none.
            grad_norm: or their global norm, a scalar, where the caller knows it already.

        Raises:
            ValueError: if both are given or neither is, or `grad_norm` is no scalar or negative.
        """
        if (grads is None) == (grad_norm is None):
            raise ValueError("`observe` takes `grads` or `grad_norm`, one and not the other")
        if grads is None:
            norm = as_norm(grad_norm, self._state.dtype)
        else:
            known = [grad for grad in reduced(list(grads)) if grad is not None]
            if not known:
                return
            norm = global_norm(known, self._state.dtype)
        self._state.observe(norm, self.initial_learning_rate, keras.Variable.assign)

    def __call__(self, step: Any) -> Any:
        """Return the rate in force, `initial_learning_rate * scale`, whatever the step."""
        return self._state.rate(self.initial_learning_rate)

    @property
    def zenith_state(self) -> ZenithState:
        """The state of the schedule: a snapshot of plain tensors.

        It can be set, to the state of any framework, to carry a run over.

        Raises:
            TypeError: on setting what is no `ZenithState`.
            ValueError: on setting a state of another window, or with an impossible value.
        """
        return self._state.snapshot()

    @zenith_state.setter
    def zenith_state(self, state: ZenithState) -> None:
        self._state.restore(state)

    def zenith_metrics(self) -> dict[str, Any]:
        """Return the numbers of the last step, for a log: scalars, not yet read off the device.

        Returns:
            `lr`, the rate in force, `grad_norm` (0 before the first), `mean`, `zenith`, `scale`,
            `count` and `skipped`.
        """
        return {"lr": self(0), **self._state.metrics()}

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs, the state included: a schedule has no weights file."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "window": self.window,
            "zenith_state": core.to_dict(self.zenith_state),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ZenithSchedule":
        """Make a schedule, in the same state, from what `get_config` returned."""
        schedule = cls(config["initial_learning_rate"], config["window"])
        schedule.zenith_state = core.from_dict(config["zenith_state"])
        return schedule
