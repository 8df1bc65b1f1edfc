"""What `Zenith` and `ZenithWrapper` share: a Keras optimizer whose rate follows the schedule."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
from keras import ops

from zenith import core
from zenith.tf._host import cond, first, once, overridden, reduced
from zenith.tf._norm import as_norm, global_norm
from zenith.tf._state import in_force
from zenith.tf._stateful import Stateful

__all__ = ["ZenithOptimizer"]


class ZenithOptimizer(Stateful):
    """A Keras optimizer under the schedule.

    Its *host* is the optimizer that takes the step, with its own rate, momentum and clipping: the
    optimizer itself (`Zenith`) or the one that it wraps (`ZenithWrapper`). The gradient is measured
    before the host sees it, and the host steps at its own rate times the scale.
    """

    def _host(self) -> Any:
        raise NotImplementedError

    def _step(self, grads: Sequence[Any], trainable_variables: Any) -> None:
        """Let the host apply these gradients."""
        raise NotImplementedError

    @property
    def effective_learning_rate(self) -> Any:
        """The rate in force: `learning_rate * scale`."""
        return in_force(self.learning_rate, self._scale())

    def zenith_metrics(self) -> dict[str, Any]:
        """Return the numbers of the last step, for a log: scalars, not yet read off the device.

        Returns:
            `lr`, the rate in force at that step, `grad_norm` (0 before the first), `mean`,
            `zenith`, `scale`, `count` and `skipped`. Where `learning_rate` was written since, `lr`
            is the rate that this gives; a callable is called for it.
        """
        state = self._state
        numbers = core.metrics(self.zenith_state) if state is None else state.metrics()
        return {"lr": in_force(self._last_learning_rate(), self._scale()), **numbers}

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
            ValueError: if the gradients do not match the variables, or `grad_norm` is no scalar or
                negative.
        """
        grads = list(grads)
        if not grads:
            return  # as in Keras
        variables = self._own(trainable_variables)
        if trainable_variables is not None and len(grads) != len(variables):
            raise ValueError(f"got {len(grads)} gradients for {len(variables)} variables")
        if len(grads) != len(variables) or not _measured(grads, variables):
            self._step(grads, trainable_variables)  # Keras knows what to say to that
        else:
            self._measure_and_step(grads, variables, grad_norm)

    def _measure_and_step(self, grads: Sequence[Any], variables: list[Any], grad_norm: Any) -> None:
        # Keras sums over the replicas after it has accumulated and clipped; without these the sum
        # that is measured is good for the step too.
        host = self._host()
        summed = grad_norm is None and not (self._clips() or host.gradient_accumulation_steps)
        if summed:
            grads = reduced(grads)
        update = self._is_update()
        if grad_norm is None:
            norm = self._norm(_measured(grads, variables), update, summed)
        else:
            norm = as_norm(grad_norm, self._state.dtype)
        accepted, rate = self._observe(norm, update)

        def advance(run: Callable[..., None], accepted: Any, rate: Any, grads: Any) -> None:
            with self._at(rate, summed):
                cond(
                    accepted,
                    lambda: run(self._step, grads, variables),
                    lambda: run(self._drop),
                    [*self._trainable_variables, *host.variables],
                    self.assign,
                )

        once(advance, accepted, rate, grads)

    def _scale(self) -> Any:
        return self.zenith_state.scale if self._state is None else self._state.variables.scale

    def _last_learning_rate(self) -> Any:
        """The host's own rate at its last update: a schedule has moved on since."""
        host = self._host()
        rate = host._learning_rate
        if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            return host.learning_rate
        steps = host.gradient_accumulation_steps or 1
        return rate(ops.maximum(host.iterations * steps - 1, 0))

    def _own(self, variables: Any) -> list[Any]:
        """The variables to update: those given, for which it builds itself if need be, or all."""
        if variables is None:
            return list(self._trainable_variables)
        given = list(variables)
        if not self.built:
            self.build(given)
        self._host()._check_variables_are_known(given)
        return given

    def _clips(self) -> bool:
        host = self._host()
        return any((host.clipnorm, host.clipvalue, host.global_clipnorm))

    def _is_update(self) -> Any:
        """Whether this call updates the variables: not while Keras accumulates gradients."""
        steps = self._host().gradient_accumulation_steps
        return True if not steps else ops.equal((self._host()._iterations + 1) % steps, 0)

    def _norm(self, pairs: Sequence[tuple[Any, Any]], update: Any, summed: bool) -> Any:
        """The norm of the gradient that the host is going to use, before it clips."""
        host, dtype = self._host(), self._state.dtype
        factor = host.loss_scale_factor
        grads = [grad if factor is None else ops.divide(grad, factor) for grad, _ in pairs]
        if update is True:
            return global_norm(grads if summed else reduced(grads), dtype)
        indices = [host._get_variable_index(variable) for _, variable in pairs]

        def accumulated() -> Any:
            accumulators = [host._accumulated_gradients[index] for index in indices]
            sums = [grad + each for grad, each in zip(grads, accumulators, strict=True)]
            return global_norm(reduced(sums), dtype) / host.gradient_accumulation_steps

        return ops.cond(update, accumulated, lambda: ops.zeros((), dtype))

    def _observe(self, norm: Any, update: Any) -> tuple[Any, Any]:
        """Advance the schedule; return whether the host may step, and at which rate."""
        own = ops.convert_to_tensor(self._host().learning_rate)
        accepted = self._state.observe(norm, own, self.assign, update)
        return True if self.nonfinite == "propagate" else accepted, self._state.rate(own)

    def _at(self, rate: Any, summed: bool) -> AbstractContextManager[None]:
        """The context in which the host steps at this rate."""
        # Gradients that were summed over the replicas to measure them need not be summed again.
        reduction = {"_all_reduce_sum_gradients": list} if summed else {}
        return overridden(self._host(), _learning_rate=first(rate), **reduction)

    def _drop(self) -> None:
        """Leave everything as it was, before the first of the gradients that were accumulated."""
        host = self._host()
        if host.gradient_accumulation_steps:
            for accumulator in host._accumulated_gradients:
                self.assign(accumulator, ops.zeros(accumulator.shape, accumulator.dtype))
            host._iterations.assign_sub(host.gradient_accumulation_steps - 1)


def _measured(grads: Iterable[Any], variables: Iterable[Any]) -> list[tuple[Any, Any]]:
    """The gradients that count: not those by which Keras only overwrites a variable, of float8."""
    return [
        (grad, variable)
        for grad, variable in zip(grads, variables, strict=True)
        if grad is not None and not getattr(variable, "overwrite_with_gradient", False)
    ]
