"""One run of twelve steps that the tests of the transformations share, and comparisons."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _reference import scales

LR = 0.1
WINDOW = 3
STEPS = 12


def params(dtype="float32"):
    numbers = np.random.default_rng(0)
    return {
        "a": jnp.asarray(numbers.standard_normal((3, 2)), dtype),
        "none": None,
        "b": jnp.asarray(numbers.standard_normal(4), dtype),
    }


def gradient(step, dtype="float32"):
    numbers = np.random.default_rng(100 + step)
    size = (1.0, 3.0, 0.5, 2.0, 0.25, 0.1)[step % 6]
    return {
        "a": jnp.asarray(size * numbers.standard_normal((3, 2)), dtype),
        "none": None,
        "b": jnp.asarray(size * numbers.standard_normal(4), dtype),
    }


def norm(tree):
    leaves = [np.asarray(leaf, "complex128") for leaf in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(np.sum(np.abs(leaf) ** 2) for leaf in leaves)))


NORMS = [norm(gradient(step)) for step in range(STEPS)]
SCALES = scales(NORMS, WINDOW)


def run(optimizer, steps=range(STEPS), state=None, own=None, jit=False, **kwargs):
    """Return the parameters and the state after these steps."""
    own = params() if own is None else own
    state = optimizer.init(own) if state is None else state

    def step(own, state, grads):
        updates, state = optimizer.update(grads, state, own, **kwargs)
        return optax.apply_updates(own, updates), state

    step = jax.jit(step) if jit else step
    for i in steps:
        own, state = step(own, state, gradient(i))
    return own, state


def assert_same(ours, theirs):
    """Equal to the last bit, with dtypes and weak types."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert jnp.asarray(a).dtype == jnp.asarray(b).dtype
        assert jnp.asarray(a).weak_type == jnp.asarray(b).weak_type
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(jnp.signbit(a), jnp.signbit(b))  # 0 and -0


def assert_close(ours, theirs, tolerance=2e-6):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def spoiled(value):
    tree = gradient(0)
    return {**tree, "b": tree["b"].at[1].set(value)}


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
