"""A run that was saved in mid-window by msgpack or orbax goes on to the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import serialization

from zenith.optax import with_zenith, zenith, zenith_state

STEPS, CUT = 9, 5
OPTIMIZERS = {
    "zenith": lambda: zenith(0.1, window=3, momentum=0.9),
    "adamw": lambda: with_zenith(optax.adamw(0.1), window=3),
}


def start(optimizer):
    params = {"w": jnp.asarray(np.random.default_rng(0).standard_normal(4), "float32")}
    return params, optimizer.init(params)


def run(optimizer, carry, steps):
    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for i in steps:
        size = (1.0, 3.0, 0.5)[i % 3]
        gradient = size * np.random.default_rng(i).standard_normal(4).astype("float32")
        carry = step(*carry, {"w": jnp.asarray(gradient)})
    return carry


def through_msgpack(carry, fresh, folder):
    (folder / "run.msgpack").write_bytes(serialization.to_bytes(carry))
    return serialization.from_bytes(fresh, (folder / "run.msgpack").read_bytes())


def through_orbax(carry, fresh, folder):
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "run", carry)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "run", fresh)


@pytest.mark.parametrize("save", [through_msgpack, through_orbax])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_saved_run_goes_on_to_the_last_bit(save, make, tmp_path):
    whole = run(make(), start(make()), range(STEPS))
    half = run(make(), start(make()), range(CUT))
    resumed = run(make(), save(half, start(make()), tmp_path), range(CUT, STEPS))
    assert jax.tree.structure(resumed) == jax.tree.structure(whole)
    for ours, theirs in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert float(zenith_state(resumed[1]).scale) < 1
