"""The norm that zenith.tf measures is right within 1e-5, and 1e-4 where all entries are equal."""

import math

import keras
import numpy as np
import pytest
from _keras import BACKEND

from zenith.tf._norm import global_norm

if BACKEND == "jax":
    import jax
if BACKEND == "tensorflow":
    import tensorflow as tf

SHAPES = [(20_000_003,), (3, 3, 512, 300), (2_000, 600)]


def compiled(function):
    """The function as XLA makes it, of which the torch backend knows nothing."""
    if BACKEND == "tensorflow":
        return tf.function(function, jit_compile=True)
    return jax.jit(function) if BACKEND == "jax" else function


def norm(gradient):
    return global_norm([gradient], "float32")


@pytest.mark.parametrize("made", [lambda function: function, compiled], ids=["eager", "compiled"])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_of_equal_entries(made, shape):
    """20 million of them: a plain sum of squares by TensorFlow's XLA makes an error of 1.7e-4."""
    gradient = keras.ops.full(shape, 0.697, dtype="float32")
    expected = float(np.float32(0.697)) * math.sqrt(math.prod(shape))
    assert float(made(norm)(gradient)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("made", [lambda function: function, compiled], ids=["eager", "compiled"])
@pytest.mark.parametrize("shape", [(3, 3, 512, 300), (2_359_297,), (1 << 20,), (1000,)])
def test_norm_of_normal_entries(made, shape):
    entries = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    expected = math.sqrt(math.fsum(np.square(entries, dtype=np.float64).ravel()))
    gradient = keras.ops.convert_to_tensor(entries)
    assert float(made(norm)(gradient)) == pytest.approx(expected, rel=1e-5)


def test_norm_of_gradients_of_several_kinds():
    kinds = [("float16", 40_000.0), ("bfloat16", 2.0), ("float32", 3.0), ("int32", 4)]
    gradients = [keras.ops.convert_to_tensor([value, value], dtype) for dtype, value in kinds]
    total = global_norm(gradients, "float32")
    assert keras.backend.standardize_dtype(total.dtype) == "float32"
    expected = math.sqrt(2 * math.fsum(value**2 for _, value in kinds))
    assert float(total) == pytest.approx(expected, rel=1e-6)
