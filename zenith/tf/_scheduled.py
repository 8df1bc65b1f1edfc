"""What `Zenith` and `ZenithWrapper` share: a Keras optimizer whose rate follows the schedule."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
from keras import ops

from zenith import core
from zenith.core import ZenithState
from zenith.tf._host import cond, first, once, overridden, reduced, untraced
from zenith.tf._norm import as_norm, global_norm
from zenith.tf._state import Schedule, dtype_for

__all__ = ["Scheduled"]


class Scheduled(keras.optimizers.Optimizer):  # type: ignore[misc]
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
        if not grads:
            return  # as in Keras
        variables = self._own(trainable_variables)
        if trainable_variables is not None and len(grads) != len(variables):
            raise ValueError(f"got {len(grads)} gradients for {len(variables)} variables")
        if len(grads) != len(variables) or not _measured(grads, variables):
            self._step(grads, trainable_variables)  # Keras knows what to say to that
            return

        # Keras clips before it sums over replicas: then the sum is good for the norm alone.
        total = reduced(grads) if grad_norm is None else grads
        summed = grad_norm is None and not self._clips()
        update = self._is_update()
        if grad_norm is None:
            norm = self._norm(_measured(total, variables), update)
        else:
            norm = as_norm(grad_norm, self._built_schedule().dtype)
        accepted, rate = self._observe(norm, update)

        def advance(run: Callable[..., None], accepted: Any, rate: Any, grads: Any) -> None:
            with self._at(rate, summed):
                cond(
                    accepted,
                    lambda: run(self._step, grads, variables),
                    lambda: run(self._drop),
                    [*self._trainable_variables, *self._host().variables],
                )

        once(advance, accepted, rate, total if summed else grads)

    def save_own_variables(self, store: Any) -> None:
        """Write the variables, and which are the schedule's, to a `.keras` or weights file.

        From the variable `zenith_at` on, six are the fields of the `ZenithState`.
        """
        if self._loaded is not None:
            for key, value in self._loaded.items():
                store[key] = value
            return
        super().save_own_variables(store)
        if self._schedule is not None:
            norms = self._schedule.variables.norms
            store["zenith_at"] = np.asarray([v is norms for v in self.variables].index(True))

    def load_own_variables(self, store: Any) -> None:
        """Read the variables that `save_own_variables` wrote; before `build`, keep them for it.

        Those of another optimizer are left alone, with a warning, as in Keras.

        Raises:
            ValueError: if they are those of another window.
        """
        values = {key: store[key][()] for key in store.keys()}  # noqa: SIM118  (it is no mapping)
        if "zenith_at" not in values:
            warnings.warn(
                f"Skipping variable loading for optimizer '{self.name}', because the saved "
                "optimizer has no schedule of ZENITH.",
                stacklevel=2,
            )
            return
        window = len(values[str(int(values["zenith_at"]))])
        if window != self.window:
            raise ValueError(
                f"`window` of the saved state must be that of the optimizer '{self.name}', "
                f"{self.window}, got {window}"
            )
        if self.built:
            self._load(values)
        else:
            self._loaded = values

    def _load(self, values: Mapping[str, Any]) -> None:
        super().load_own_variables({k: v for k, v in values.items() if k != "zenith_at"})

    def _set_up(self, window: int, nonfinite: str) -> None:
        if nonfinite not in ("skip", "propagate"):
            raise ValueError(f'`nonfinite` must be "skip" or "propagate", got {nonfinite!r}')
        self.window = len(core.init(window).norms)
        self.nonfinite = nonfinite

    def _build_schedule(self, variables: Sequence[Any]) -> None:
        self._schedule = Schedule(self.window, dtype_for(variables), self.add_variable)
        if self._loaded is not None:
            with untraced():
                self._load(self._loaded)
            self._loaded = None

    def _built_schedule(self) -> Schedule:
        if self._schedule is None:
            raise ValueError(
                f"the optimizer '{self.name}' has no state before it is built: call "
                "`optimizer.build(model.trainable_variables)` first"
            )
        return self._schedule

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

    def _norm(self, pairs: Sequence[tuple[Any, Any]], update: Any) -> Any:
        """The norm of the gradient that the host is going to use, before it clips."""
        host, dtype = self._host(), self._built_schedule().dtype
        if host.loss_scale_factor is not None:
            pairs = [
                (ops.divide(grad, host.loss_scale_factor), variable) for grad, variable in pairs
            ]
        if update is True:
            return global_norm((grad for grad, _ in pairs), dtype)

        def accumulated() -> Any:
            sums = (
                grad + host._accumulated_gradients[host._get_variable_index(variable)]
                for grad, variable in pairs
            )
            return global_norm(sums, dtype) / host.gradient_accumulation_steps

        return ops.cond(update, accumulated, lambda: ops.zeros((), dtype))

    def _observe(self, norm: Any, update: Any) -> tuple[Any, Any]:
        """Advance the schedule; return whether the host may step, and at which rate."""
        schedule = self._built_schedule()
        own = ops.convert_to_tensor(self._host().learning_rate)
        # A gradient of 0 at a rate of 0 is nobody's gradient: a phantom step.
        counts = ops.logical_and(update, ops.logical_or(norm != 0, own != 0))
        accepted = schedule.observe(norm, counts)
        return True if self.nonfinite == "propagate" else accepted, schedule.rate(own)

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
                accumulator.assign(ops.zeros(accumulator.shape, accumulator.dtype))
            host._iterations.assign_sub(host.gradient_accumulation_steps - 1)


def _measured(grads: Iterable[Any], variables: Iterable[Any]) -> list[tuple[Any, Any]]:
    """The gradients that count: not those by which Keras only overwrites a variable, of float8."""
    return [
        (grad, variable)
        for grad, variable in zip(grads, variables, strict=True)
        if grad is not None and not getattr(variable, "overwrite_with_gradient", False)
    ]
