"""The schedule's state as Keras variables, and the call that advances it there."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from zenith import core
from zenith.core import ZenithState

__all__ = ["Schedule", "dtype_for"]


_INT = "int32" if keras.backend.backend() == "jax" else "int64"  # which JAX has not by default


class _Ops:
    """The library `keras.ops`, but for one function."""

    where = staticmethod(ops.where)
    sum = staticmethod(ops.sum)
    arange = staticmethod(ops.arange)

    @staticmethod
    def maximum(a: Any, b: Any) -> Any:
        return ops.where(b > a, b, a)  # ops.maximum of float64 is float32 on the torch backend


def dtype_for(variables: Iterable[Any]) -> str:
    """The dtype of the state: float64 as soon as one variable is, and never less than float32."""
    dtypes = {keras.backend.standardize_dtype(variable.dtype) for variable in variables}
    return "float64" if "float64" in dtypes else "float32"


class Schedule:
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

    def observe(self, norm: Any, counts: Any) -> Any:
        """Advance the state by a norm, if it `counts`; return False where the norm was rejected."""
        before = self._values()
        after = core.update(before, norm, _Ops)
        after = ZenithState(*(ops.where(counts, *pair) for pair in zip(after, before, strict=True)))
        accepted = ops.equal(after.skipped, before.skipped)  # now: `assign` may write into `before`
        for variable, value in zip(self.variables, after, strict=True):
            variable.assign(value)
        return accepted

    def rate(self, learning_rate: Any) -> Any:
        """Return `learning_rate * scale`, in the dtype of `learning_rate`."""
        learning_rate = ops.convert_to_tensor(learning_rate)
        scale = ops.convert_to_tensor(self.variables.scale)
        return ops.multiply(learning_rate, ops.cast(scale, learning_rate.dtype))

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
        for variable, value in zip(self.variables, state, strict=True):
            variable.assign(np.asarray(value, keras.backend.standardize_dtype(variable.dtype)))

    def _values(self) -> ZenithState:
        return ZenithState(*(ops.convert_to_tensor(variable) for variable in self.variables))
