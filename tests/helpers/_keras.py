"""What the tests of the Keras adapter share: fixed variables, fixed gradients, and comparisons.

Every file test_tf_keras_*.py runs on each backend of Keras, chosen by KERAS_BACKEND.
"""

import math
from contextlib import nullcontext

import keras
import numpy as np

BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax
    from _x64 import enable_x64

FIELDS = ("norms", "count", "mean", "zenith", "scale", "skipped")
SHAPES = ((3, 2), (4,))
SIZES = (1.0, 3.0, 0.5, 2.0, 0.25, 0.1)  # of the gradients, in turn


def x64():
    """A context that allows float64, which JAX has only on demand."""
    return enable_x64(True) if BACKEND == "jax" else nullcontext()


def variables(dtype="float32", **kwargs):
    """The same variables at each call."""
    generator = np.random.default_rng(0)
    return [keras.Variable(generator.standard_normal(s), dtype=dtype, **kwargs) for s in SHAPES]


def gradients(step, size=None):
    """The gradient of a step of one fixed run, in float32: it depends on nothing but the step."""
    generator = np.random.default_rng(1000 + step)
    size = SIZES[step % len(SIZES)] if size is None else size
    return [(size * generator.standard_normal(shape)).astype("float32") for shape in SHAPES]


def tensors(arrays, dtype="float32"):
    return [None if a is None else keras.ops.convert_to_tensor(a, dtype=dtype) for a in arrays]


def norm(arrays):
    """The global L2 norm, in float64."""
    return math.sqrt(math.fsum(float(np.sum(np.float64(a) ** 2)) for a in arrays if a is not None))


def apply(optimizer, own, step, **kwargs):
    optimizer.apply(tensors(gradients(step)), own, **kwargs)


def stepper(optimizer, own):
    """`apply` as `fit` calls it: on JAX a function of the values of the variables, under jit."""
    if not optimizer.built:
        optimizer.build(own)
    if BACKEND != "jax":
        return lambda grads: optimizer.apply(grads, own)
    stateless = jax.jit(optimizer.stateless_apply)

    def step(grads):
        after = stateless([v.value for v in optimizer.variables], grads, [v.value for v in own])
        for variable, value in zip(
            [*own, *optimizer.variables], [*after[0], *after[1]], strict=True
        ):
            variable.assign(value)

    return step


def arrays(values):
    return [np.array(keras.ops.convert_to_numpy(value)) for value in values]


def plain(state):
    """A state's fields as numpy arrays."""
    return dict(zip(FIELDS, arrays(state), strict=True))


def scale(optimizer):
    return float(optimizer.zenith_state.scale)


def everything(optimizer, own):
    """All that a step may change, as numpy arrays."""
    return arrays([*own, *optimizer.variables])


def assert_same(ours, theirs):
    """Equal to the last bit, NaN included."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# Nine steps that round a product or a sum four times each.
def assert_close(ours, theirs, tolerance=9 * 4 * 2**-24):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_same_state(ours, theirs):
    assert_same(plain(ours).values(), plain(theirs).values())


def dense_model(seed=0, **kwargs):
    """A little network with known weights."""
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)],
        **kwargs,
    )
    generator = np.random.default_rng(seed)
    model.set_weights([generator.standard_normal(w.shape) for w in model.get_weights()])
    return model


def batches(count, size=4):
    """`count` batches of data, whose gradients differ in size."""
    generator = np.random.default_rng(7)
    x = generator.standard_normal((count, size, 3))
    y = generator.standard_normal((count, size, 1))
    y *= np.resize(SIZES, count)[:, None, None]
    return x.astype("float32"), y.astype("float32")


def fit(model, steps, **kwargs):
    """Fit the given steps (a range) of one fixed run, each on a batch of its own."""
    x, y = batches(steps.stop)
    x, y = (np.concatenate(a[steps.start :]) for a in (x, y))
    return model.fit(x, y, batch_size=4, shuffle=False, verbose=0, **kwargs)
