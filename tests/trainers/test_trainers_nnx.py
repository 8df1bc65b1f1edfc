"""Flax NNX: `nnx.Optimizer`, saved by orbax as a part of the state of model and optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from zenith.optax import zenith, zenith_state

STEPS, CUT, WINDOW = 20, 10, 4
SIZES = (1.0, 3.0, 0.3, 2.0, 0.1)


def fresh():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 1, rngs=rngs))
    return model, nnx.Optimizer(model, zenith(0.1, WINDOW, momentum=0.9), wrt=nnx.Param)


@nnx.jit
def step(model, optimizer, x, y):
    grads = nnx.grad(lambda m: jnp.mean(jnp.square(m(x) - y)))(model)
    optimizer.update(model, grads)
    return zenith_state(optimizer.opt_state).scale


def train(model, optimizer, steps):
    scales = []
    for i in steps:
        numbers = np.random.default_rng(i)
        x, y = numbers.standard_normal((8, 3)), numbers.standard_normal((8, 1))
        y *= SIZES[i % len(SIZES)]
        scales.append(float(step(model, optimizer, jnp.asarray(x), jnp.asarray(y))))
    return scales


def leaves(model, optimizer):
    return jax.tree.leaves(nnx.as_pure(nnx.state((model, optimizer))))


def test_a_run_that_was_saved_goes_on_where_it_was(tmp_path):
    whole = fresh()
    scales = train(*whole, range(STEPS))
    assert min(scales) < 0.8

    half = fresh()
    first = train(*half, range(CUT))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "half", nnx.as_pure(nnx.state(half)))
        checkpointer.wait_until_finished()
        resumed = fresh()
        places = nnx.as_pure(nnx.state(resumed))
        restored = checkpointer.restore(tmp_path / "half", places)
    nnx.update(resumed, restored)
    assert first + train(*resumed, range(CUT, STEPS)) == scales
    for ours, theirs in zip(leaves(*resumed), leaves(*whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
