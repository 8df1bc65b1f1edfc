"""The schedule over the arrays of a library that has nothing but what `update` may ask of it."""

import math
from collections.abc import Iterable
from typing import Any

import pytest
from _core import DOCUMENT, STATE

from zenith import init, metrics, to_dict, update


class Count(int):
    dtype = "an integer"

    def __add__(self, other: int) -> "Count":
        return Count(int(self) + other)


class Array:
    def __init__(self, values: Iterable[Any]) -> None:
        self.values = list(values)
        self.shape = (len(self.values),)

    def __truediv__(self, number: int) -> "Array":
        return Array(value / number for value in self.values)

    def __eq__(self, number: object) -> Any:
        return Array(value == number for value in self.values)

    def __rand__(self, accepted: bool) -> "Array":
        return Array(accepted and value for value in self.values)

    def take(self, index: int) -> float:
        return float(self.values[index])

    def tolist(self) -> list[float]:
        return self.values

    def numpy(self) -> None:
        raise AssertionError("as of a tensor of torch on a device")


class Library:
    maximum = staticmethod(max)

    @staticmethod
    def where(condition: Any, chosen: Any, other: Any) -> Any:
        if not isinstance(condition, Array):
            return chosen if condition else other
        pairs = zip(condition.values, other.values, strict=True)
        return Array(chosen if yes else value for yes, value in pairs)

    @staticmethod
    def arange(end: int, *, dtype: str) -> Array:
        assert dtype == "an integer"
        return Array(range(end))

    @staticmethod
    def sum(array: Array) -> float:
        return float(sum(array.values))


def test_arrays_go_the_way_of_plain_numbers() -> None:
    norms = [6.0, 3.0, 0.0, math.nan, 3.0, 9.0, -1.0, 3.0, 0.0]
    plain = init(3)
    state = plain._replace(norms=Array(plain.norms), count=Count(0))
    for norm in norms:
        state, plain = update(state, norm, Library), update(plain, norm)
        assert repr(to_dict(state)) == repr(to_dict(plain))  # an Array is equal to anything
        assert metrics(state) == metrics(plain)


def test_a_norm_of_another_kind_is_kept_as_a_float() -> None:
    assert repr(update(init(1), 3)) == repr(update(init(1), 3.0))


def test_stacked_states_have_no_metrics() -> None:
    stacked = Array([])
    stacked.shape = (4, 3)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="single") as caught:
        metrics(init(3)._replace(norms=stacked))
    assert str(caught.value) == (
        "`state` must be a single ZenithState, got norms of shape (4, 3): "
        "of several that are stacked, use jax.vmap(zenith.metrics)"
    )


def test_a_tensor_that_only_numpy_can_read_is_read_by_it() -> None:
    class Eager:  # of TensorFlow
        def numpy(self) -> Array:
            return Array([1.0, 2.0, 3.0])

    assert repr(to_dict(STATE._replace(norms=Eager()))) == repr(DOCUMENT)
