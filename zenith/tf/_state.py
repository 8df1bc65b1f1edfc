"""The schedule's state as Keras variables, and the call that advances it there."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from zenith import core
from zenith.core import ZenithState

__all__ = ["StateVariables", "as_tensors", "dtype_for", "in_force"]


_INT = "int32" if keras.backend.backend() == "jax" else "int64"  # which JAX has not by default


class _Ops:
    """The library `keras.ops`, with a maximum that keeps the dtype on every backend."""

    where = staticmethod(ops.where)
    sum = staticmethod(ops.sum)
    arange = staticmethod(ops.arange)

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        return ops.where(b > a, b, a)  # ops.maximum of float64 is float32 on the torch backend


def dtype_for(dtypes: Iterable[Any]) -> str:
    """The dtype of the state: float64 as soon as one of these is, and never less than float32."""
    return core.dtype_for(map(keras.backend.standardize_dtype, dtypes))


def as_tensors(state: ZenithState, dtype: str) -> ZenithState:
    """The state of any framework as tensors, its norms of `dtype`."""
    dtypes = ZenithState(dtype, _INT, dtype, dtype, dtype, _INT)
    pairs = zip(state, dtypes, strict=True)
    return ZenithState(*(ops.convert_to_tensor(np.asarray(x, kind)) for x, kind in pairs))


def in_force(learning_rate: Any, scale: Any = 1.0) -> Any:
    """Return `learning_rate * scale`, in the dtype of the rate; an integer is cast to floatx."""
    rate = ops.convert_to_tensor(learning_rate)
    if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(rate.dtype)):
        rate = ops.cast(rate, keras.config.floatx())
    return ops.multiply(rate, ops.cast(scale, rate.dtype))


class StateVariables:
    """The state of the schedule, each field in a Keras variable of its own.

    Attributes:
        variables: the `keras.Variable` of every field.
        window: how many norms the mean is taken over.
        dtype: of the norms, `"float32"` or `"float64"`.
    """

    def __init__(self, window: int, dtype: str, variable: Callable[..., Any]) -> None:
        """Make the variables by `variable(shape=, initializer=, dtype=, aggregation=, name=)`."""

        def make(name: str, *, shape: tuple[int, ...] = (), dtype: str = dtype) -> Any:
            return variable(
                shape=shape,
                initializer="ones" if name == "scale" else "zeros",
                dtype=dtype,
                aggregation="only_first_replica",  # as Keras does for its iterations
                name=f"zenith_{name}",
            )

        self.window, self.dtype = window, dtype
        self.variables = ZenithState(
            norms=make("norms", shape=(window,)),
            count=make("count", dtype=_INT),
            mean=make("mean"),
            zenith=make("zenith"),
            scale=make("scale"),
            skipped=make("skipped", dtype=_INT),
        )

    def observe(
        self, norm: Any, rate: Any, assign: Callable[[Any, Any], Any], update: Any = True
    ) -> Any:
        """Advance the state by a norm, if this is an `update`; return False if it was rejected.

        A norm of 0 at a rate of 0 is nobody's gradient: a phantom step, which records nothing.
        """
        counts = ops.logical_and(update, ops.logical_or(norm != 0, rate != 0))
        before = self._values()
        after = core.update(before, norm, _Ops)
        after = ZenithState(*(ops.where(counts, *pair) for pair in zip(after, before, strict=True)))
        accepted = ops.equal(after.skipped, before.skipped)  # now: `assign` may write into `before`
        for variable, value in zip(self.variables, after, strict=True):
            assign(variable, value)
        return accepted

    def rate(self, learning_rate: Any) -> Any:
        """Return the rate in force, `learning_rate * scale`."""
        return in_force(learning_rate, self.variables.scale)

    def metrics(self) -> dict[str, Any]:
        """Return copies of the scalars of `zenith.metrics`."""
        return {name: ops.copy(x) for name, x in core.metrics(self._values()).items()}

    def snapshot(self) -> ZenithState:
        """Return a copy of the state as plain tensors."""
        return ZenithState(*(ops.copy(value) for value in self._values()))

    def restore(self, state: ZenithState) -> None:
        """Take over a state of any framework.

        Raises:
            TypeError: if it is no `ZenithState`.
            ValueError: if it is of another window, or holds an impossible value, among them one
                that the dtype of this state cannot hold.
        """
        state = core.checked(state, self.window, float(np.finfo(self.dtype).max))
        for variable, value in zip(self.variables, as_tensors(state, self.dtype), strict=True):
            variable.assign(value)

    def _values(self) -> ZenithState:
        return ZenithState(*(ops.convert_to_tensor(variable) for variable in self.variables))
