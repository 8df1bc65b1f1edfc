"""`Zenith`, Keras' SGD under the schedule, and `ZenithWrapper`, any other optimizer under it."""

from collections.abc import Sequence
from typing import Any

import keras

from zenith.core import NonFinite
from zenith.tf._base import ZenithOptimizer

__all__ = ["Zenith", "ZenithWrapper"]

# What `keras.optimizers.SGD(...)` makes: on the torch backend a subclass, of foreach kernels.
_SGD: Any = type(keras.optimizers.SGD.__new__(keras.optimizers.SGD))


@keras.saving.register_keras_serializable(package="zenith")
class Zenith(ZenithOptimizer, _SGD):  # type: ignore[misc]
    """`keras.optimizers.SGD` that sets its own rate from the history of the gradient norm.

    Step t is a step of SGD at `learning_rate * mean_t / zenith_t`, where `mean_t` is the mean of
    the last `window` gradient norms, this step's included, and `zenith_t` the highest such mean so
    far (equations 1 to 3 and Algorithm 1 of Saha, arXiv 2601.15212). Until `window` norms are known
    it is SGD, to the last bit. The norm is the L2 norm over all variables together, taken in at
    least float32 and before any clipping: with `gradient_accumulation_steps`, of the accumulated
    gradient; in a replica of `tf.distribute`, of the sum over the replicas. That sum is made once;
    with one of Keras' clipping arguments, or where it accumulates gradients, it is made twice, as
    Keras does both before it sums.

    `learning_rate` stays the user's: a callback may read, change and write it, and a Keras schedule
    may drive it. ZENITH multiplies it at every step; the product is `effective_learning_rate`.

    Args:
        learning_rate: the highest rate: a float >= 0, a `LearningRateSchedule`, or a callable
            without arguments that returns the rate.
        window: how many gradient norms the mean is taken over; an integer >= 1.
        momentum: as of `keras.optimizers.SGD`: a float in [0, 1].
        nesterov: as of `keras.optimizers.SGD`.
        nonfinite: what to do with a gradient whose norm is NaN or infinite. `"skip"` leaves
            variables, momentum, moving averages and schedule as they were, and counts the step in
            `zenith_state.skipped`; `"propagate"` guards the schedule alone.
        **kwargs: every other argument of `keras.optimizers.SGD`: `weight_decay` (decoupled, by the
            rate in force), `clipnorm`, `clipvalue`, `global_clipnorm`, `use_ema`,
            `ema_momentum`, `ema_overwrite_frequency`, `loss_scale_factor`,
            `gradient_accumulation_steps` and `name`.

    Raises:
        TypeError: if `window` is not an integer.
        ValueError: if an argument is out of its range.

    Examples:
        >>> import keras
        >>> from zenith.tf import Zenith
        >>> x = keras.Variable([3.0, 4.0])
        >>> optimizer = Zenith(learning_rate=0.5, window=1)
        >>> for gradient in ([3.0, 4.0], [1.5, 2.0]):
        ...     optimizer.apply([keras.ops.convert_to_tensor(gradient)], [x])
        ...     print(float(optimizer.effective_learning_rate), x.numpy().tolist())
        0.5 [1.5, 2.0]
        0.25 [1.125, 1.5]
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        window: int = 500,
        momentum: float = 0.0,
        nesterov: bool = False,
        nonfinite: NonFinite = "skip",
        **kwargs: Any,
    ) -> None:
        if isinstance(learning_rate, float) and not learning_rate >= 0:
            raise ValueError(f"`learning_rate` must be >= 0, got {learning_rate!r}")
        super().__init__(learning_rate, momentum=momentum, nesterov=nesterov, **kwargs)
        self._set_up(window, nonfinite)

    def _host(self) -> Any:
        return self

    def _step(self, grads: Sequence[Any], trainable_variables: Any) -> None:
        _SGD.apply(self, grads, trainable_variables)

    def build(self, variables: Sequence[Any]) -> None:
        """Make the variables of the momentum and of the schedule."""
        if not self.built:
            super().build(variables)
            self._build_state(variables)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to make the same optimizer, without its state."""
        return {**super().get_config(), "window": self.window, "nonfinite": self.nonfinite}


@keras.saving.register_keras_serializable(package="zenith")
class ZenithWrapper(ZenithOptimizer):
    """Any Keras optimizer, at its own rate times ZENITH's scale.

    The schedule is that of `Zenith`: every step of `inner_optimizer` is taken at
    `learning_rate * mean_t / zenith_t`. What the inner optimizer has, it keeps: its clipping, its
    moving averages, its accumulation of gradients, its decoupled weight decay (by the rate in
    force). The paper proves its theorem for SGD alone.

    For mixed precision put a `LossScaleOptimizer` outside, around the wrapper, as `model.compile`
    does by itself.

    Args:
        inner_optimizer: the `keras.optimizers.Optimizer` that takes the steps. Its `learning_rate`,
            a float, a schedule or a callable, is also the wrapper's, and is not written.
        window: how many gradient norms the mean is taken over; an integer >= 1.
        nonfinite: what to do with a gradient whose norm is NaN or infinite. `"skip"` leaves
            variables, inner optimizer and schedule as they were, and counts the step in
            `zenith_state.skipped`; `"propagate"` guards the schedule alone.
        name: of the optimizer.

    Raises:
        TypeError: if `inner_optimizer` is no Keras optimizer or `window` is not an integer.
        ValueError: if `inner_optimizer` is a `LossScaleOptimizer` or another optimizer that cannot
            be wrapped, or an argument is out of its range.

    Examples:
        >>> import keras
        >>> from zenith.tf import ZenithWrapper
        >>> x = keras.Variable([3.0, 4.0])
        >>> optimizer = ZenithWrapper(keras.optimizers.Adam(0.25), window=1)
        >>> for gradient in ([3.0, 4.0], [1.5, 2.0]):
        ...     optimizer.apply([keras.ops.convert_to_tensor(gradient)], [x])
        >>> print(f"{float(optimizer.learning_rate)}, {float(optimizer.effective_learning_rate)}")
        0.25, 0.125
    """

    def __init__(
        self,
        inner_optimizer: Any,
        window: int = 500,
        nonfinite: NonFinite = "skip",
        name: str | None = None,
    ) -> None:
        _check_inner(inner_optimizer)
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self._set_up(window, nonfinite)

    def _host(self) -> Any:
        return self.inner_optimizer

    def _step(self, grads: Sequence[Any], trainable_variables: Any) -> None:
        self.inner_optimizer.apply(grads, trainable_variables)

    def build(self, variables: Sequence[Any]) -> None:
        """Make the variables of the inner optimizer and of the schedule."""
        if not self.built:
            self.inner_optimizer.build(variables)
            super().build(variables)
            self._build_state(variables)

    @property
    def variables(self) -> list[Any]:
        """The schedule's variables and those of the inner optimizer."""
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's own rate, which ZENITH multiplies and never writes."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> Any:
        """The inner optimizer's count of steps."""
        return self.inner_optimizer.iterations

    @property
    def loss_scale_factor(self) -> Any:
        """The inner optimizer's fixed scale of the loss."""
        inner = vars(self).get("inner_optimizer")
        return None if inner is None else inner.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: Any) -> None:
        if "inner_optimizer" in vars(self):  # not yet where Keras' own __init__ sets a default
            self.inner_optimizer.loss_scale_factor = factor

    def apply_gradients(self, grads_and_vars: Any) -> Any:
        """Apply pairs of a gradient and its variable, and return `iterations`."""
        super().apply_gradients(grads_and_vars)
        return self.iterations

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the values of `variables`."""
        own = len(self._variables)
        super().set_weights(weights[:own])
        self.inner_optimizer.set_weights(weights[own:])

    def scale_loss(self, loss: Any) -> Any:
        """Return the loss as the inner optimizer scales it."""
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Let the inner optimizer set the final values, those of a moving average for instance."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Exclude variables from the inner optimizer's weight decay."""
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to make the same optimizer, without its state."""
        return {
            "name": self.name,
            "inner_optimizer": keras.optimizers.serialize(self.inner_optimizer),
            "window": self.window,
            "nonfinite": self.nonfinite,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "ZenithWrapper":
        """Make an optimizer from what `get_config` returned."""
        inner = keras.optimizers.deserialize(config["inner_optimizer"], custom_objects)
        return cls(**{**config, "inner_optimizer": inner})


def _check_inner(inner: Any) -> None:
    rule = "`inner_optimizer` must be a keras.optimizers.Optimizer"
    if not isinstance(inner, keras.optimizers.Optimizer):
        raise TypeError(f"{rule}, got {inner!r}")
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            f"{rule} that sees unscaled gradients, got a LossScaleOptimizer: use "
            "LossScaleOptimizer(ZenithWrapper(...)) instead"
        )
    if isinstance(inner, ZenithOptimizer):
        raise ValueError(f"{rule} without a schedule of ZENITH, got a {type(inner).__name__}")
    if hasattr(inner, "optimizers"):
        raise ValueError(f"{rule} with one learning rate, got a {type(inner).__name__}")
