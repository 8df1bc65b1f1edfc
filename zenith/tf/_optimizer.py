"""`Zenith`, Keras' SGD under the schedule, and `ZenithWrapper`, any other optimizer under it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from zenith import core
from zenith.core import ZenithState
from zenith.tf._host import cond, once, overridden, reduced, untraced
from zenith.tf._norm import as_norm, global_norm
from zenith.tf._state import Schedule, dtype_for

__all__ = ["Zenith", "ZenithWrapper"]

# What `keras.optimizers.SGD(...)` makes: on the torch backend a subclass, of foreach kernels.
_SGD: Any = type(keras.optimizers.SGD.__new__(keras.optimizers.SGD))


class _Scheduled(keras.optimizers.Optimizer):  # type: ignore[misc]
    """A Keras optimizer under the schedule.

    Its *host* is the optimizer that takes the step, with its own rate, momentum and clipping: the
    optimizer itself (`Zenith`) or the one that it wraps (`ZenithWrapper`). The gradient is measured
    before the host sees it, and the host steps at its own rate times the scale.
    """

    _schedule: Schedule | None = None
    _loaded: Mapping[str, Any] | None = None  # what `build` is to restore

    def _host(self) -> Any:
        raise NotImplementedError

    def _step(self, grads: Sequence[Any], trainable_variables: Any) -> None:
        """Let the host apply these gradients."""
        raise NotImplementedError

    @property
    def effective_learning_rate(self) -> Any:
        """The rate in force: `learning_rate * scale`."""
        rate = self.learning_rate
        return ops.convert_to_tensor(rate) if self._schedule is None else self._schedule.rate(rate)

    @property
    def zenith_state(self) -> ZenithState:
        """The state of the schedule: a snapshot of plain tensors.

        It can be set, to the state of any framework, to carry a run over.

        Raises:
            TypeError: on setting what is no `ZenithState`.
            ValueError: if the optimizer is not built; on setting a state of another window, or with
                an impossible value.
        """
        return self._built_schedule().snapshot()

    @zenith_state.setter
    def zenith_state(self, state: ZenithState) -> None:
        self._built_schedule().restore(state)

    def apply(
        self, grads: Iterable[Any], trainable_variables: Any = None, grad_norm: Any = None
    ) -> None:
        """Update the variables, at the rate that the norm of this very gradient gives.

        Args:
            grads: the gradient of each variable, or None.
            trainable_variables: the variables; by default those that the optimizer was built with.
            grad_norm: the global norm of the gradient, a scalar, where the caller knows it already:
                before any clipping, summed over replicas, and with `gradient_accumulation_steps`
                the norm of the mean over them (heeded only where that makes an update).

        Raises:
            ValueError: if the gradients do not match the variables, or `grad_norm` is no scalar.
        """
        grads = list(grads)
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                with keras.name_scope(self.name):
                    self.build(trainable_variables)
            self._host()._check_variables_are_known(trainable_variables)
        variables = trainable_variables or self._trainable_variables
        if all(grad is None for grad in grads) or len(grads) != len(variables):
            self._step(grads, trainable_variables)  # Keras has its own answer to that
            return

        summed = grad_norm is None and not self._clips()
        total = grads if grad_norm is not None else reduced(grads)
        update = self._is_update()
        if grad_norm is None:
            norm = self._norm(total, variables, update)
        else:
            norm = as_norm(grad_norm, self._built_schedule().dtype)
        accepted = self._observe(norm, update)

        def advance(run: Callable[..., None], accepted: Any, grads: Sequence[Any]) -> None:
            with self._rate_in_force(summed):
                cond(
                    accepted,
                    lambda: run(self._step, grads, trainable_variables),
                    lambda: run(self._drop),
                    self._kept(variables),
                )

        once(advance, accepted, total if summed else grads)

    def save_own_variables(self, store: Any) -> None:
        """Write the variables, and the window, to the store of a `.keras` or weights file."""
        super().save_own_variables(store)
        store["zenith_window"] = np.asarray(self.window)

    def load_own_variables(self, store: Any) -> None:
        """Read the variables that `save_own_variables` wrote; before `build`, keep them for it.

        Raises:
            ValueError: if they are those of another window.
        """
        if "zenith_window" not in store.keys():  # noqa: SIM118  (an H5 store is no mapping)
            super().load_own_variables(
                store
            )  # of another optimizer: Keras warns, and loads nothing
            return
        values = {key: store[key][()] for key in store.keys()}  # noqa: SIM118
        window = int(values.pop("zenith_window"))
        if window != self.window:
            raise ValueError(
                f"`window` of the saved state must be that of the optimizer '{self.name}', "
                f"{self.window}, got {window}"
            )
        if self.built:
            super().load_own_variables(values)
        else:
            self._loaded = values

    def _set_up(self, window: int, nonfinite: str) -> None:
        if nonfinite not in ("skip", "propagate"):
            raise ValueError(f'`nonfinite` must be "skip" or "propagate", got {nonfinite!r}')
        self.window = len(core.init(window).norms)
        self.nonfinite = nonfinite

    def _build_schedule(self, variables: Sequence[Any]) -> None:
        self._schedule = Schedule(self.window, dtype_for(variables), self.add_variable)
        if self._loaded is not None:
            with untraced():
                super().load_own_variables(self._loaded)
            self._loaded = None

    def _built_schedule(self) -> Schedule:
        if self._schedule is None:
            raise ValueError(
                f"the optimizer '{self.name}' has no state before it is built: call "
                "`optimizer.build(model.trainable_variables)` first"
            )
        return self._schedule

    def _clips(self) -> bool:
        host = self._host()
        return any((host.clipnorm, host.clipvalue, host.global_clipnorm))

    def _is_update(self) -> Any:
        """Whether this call updates the variables: not while Keras accumulates gradients."""
        steps = self._host().gradient_accumulation_steps
        return True if not steps else ops.equal((self._host()._iterations + 1) % steps, 0)

    def _norm(self, grads: Sequence[Any], variables: Sequence[Any], update: Any) -> Any:
        """The norm of the gradient that the host is going to use, before it clips."""
        host, dtype = self._host(), self._built_schedule().dtype
        grads, variables = zip(
            *(
                (grad, variable)
                for grad, variable in zip(grads, variables, strict=True)
                if grad is not None and not host._overwrite_variable_with_gradient(variable)
            ),
            strict=True,
        )
        if host.loss_scale_factor is not None:
            grads = [ops.divide(grad, host.loss_scale_factor) for grad in grads]
        if update is True:
            return global_norm(grads, dtype)

        def accumulated() -> Any:
            sums = [
                grad + host._accumulated_gradients[host._get_variable_index(variable)]
                for grad, variable in zip(grads, variables, strict=True)
            ]
            return global_norm(sums, dtype) / host.gradient_accumulation_steps

        return ops.cond(update, accumulated, lambda: ops.zeros((), dtype))

    def _observe(self, norm: Any, update: Any) -> Any:
        """Advance the schedule, and return whether the host may step."""
        schedule = self._built_schedule()
        rate = ops.convert_to_tensor(self._host().learning_rate)
        # A gradient of 0 at a rate of 0 is nobody's gradient: a phantom step.
        counts = ops.logical_and(update, ops.logical_or(norm != 0, rate != 0))
        accepted = schedule.observe(norm, counts)
        return True if self.nonfinite == "propagate" else accepted

    def _rate_in_force(self, summed: bool) -> Any:
        rate = self._built_schedule().rate(self._host().learning_rate)
        # Gradients that were summed over the replicas to measure them need not be summed again.
        reduction = {"_all_reduce_sum_gradients": list} if summed else {}
        return overridden(self._host(), _learning_rate=rate, **reduction)

    def _kept(self, variables: Sequence[Any]) -> list[Any]:
        """The variables that a dropped step leaves alone."""
        host = self._host()
        moving = {id(host._iterations)}
        if host.gradient_accumulation_steps:
            moving.update(map(id, host._accumulated_gradients))
        return [
            variable for variable in [*variables, *host.variables] if id(variable) not in moving
        ]

    def _drop(self) -> None:
        """Let the host forget the gradient, and count the iteration."""
        if self._host().gradient_accumulation_steps:
            self._host()._backend_reset_gradient_accumulators()
        self._host()._iterations.assign_add(1)


@keras.saving.register_keras_serializable(package="zenith")
class Zenith(_Scheduled, _SGD):  # type: ignore[misc]
    """`keras.optimizers.SGD` that sets its own rate from the history of the gradient norm.

    Step t is a step of SGD at `learning_rate * mean_t / zenith_t`, where `mean_t` is the mean of
    the last `window` gradient norms, this step's included, and `zenith_t` the highest such mean so
    far (equations 1 to 3 and Algorithm 1 of Saha, arXiv 2601.15212). Until `window` norms are known
    it is SGD, to the last bit. The norm is the L2 norm over all variables together, taken in at
    least float32 and before any clipping: with `gradient_accumulation_steps`, of the accumulated
    gradient; in a replica of `tf.distribute`, of the sum over the replicas. That sum is made once;
    with one of Keras' clipping arguments it is made twice, as Keras clips before it sums.

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

    Example:
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
        nonfinite: str = "skip",
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
            self._build_schedule(variables)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs to make the same optimizer, without its state."""
        return {**super().get_config(), "window": self.window, "nonfinite": self.nonfinite}


@keras.saving.register_keras_serializable(package="zenith")
class ZenithWrapper(_Scheduled):
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

    Example:
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
        nonfinite: str = "skip",
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
            self._build_schedule(variables)

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
    if isinstance(inner, _Scheduled):
        raise ValueError(f"{rule} without a schedule of ZENITH, got a {type(inner).__name__}")
    if hasattr(inner, "optimizers"):
        raise ValueError(f"{rule} with one learning rate, got a {type(inner).__name__}")
