"""A run that was saved in mid-window goes on to the last bit, and not with another window."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import serialization

from zenith.optax import scale_by_zenith, with_zenith, zenith, zenith_state

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


# --- a checkpoint of another window


def through_pickle(state, fresh, folder):
    return pickle.loads(pickle.dumps(jax.device_get(state)))


def through_orbax_as_the_item(state, fresh, folder):
    checkpointer = orbax.checkpoint.PyTreeCheckpointer()
    checkpointer.save(folder / "run", state)
    return checkpointer.restore(folder / "run", item=fresh)


# Of orbax, to which no sharding is told; the state lies where it lay all the same.
@pytest.mark.filterwarnings("ignore:Sharding info not provided")
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("load", [through_pickle, through_msgpack, through_orbax_as_the_item])
@pytest.mark.parametrize(
    "make",
    [
        lambda window: zenith(0.1, window, momentum=0.9),
        lambda window: with_zenith(optax.adamw(0.1), window),
        lambda window: optax.chain(scale_by_zenith(window), optax.sgd(0.1)),
    ],
    ids=["zenith", "with_zenith", "chain"],
)
def test_a_state_of_another_window_is_refused_at_the_first_update(make, load, jit, tmp_path):
    params = {"w": jnp.ones(4)}
    _, state = make(8).update(params, make(8).init(params), params)
    optimizer = make(4)
    restored = load(state, optimizer.init(params), tmp_path)
    update = jax.jit(optimizer.update) if jit else optimizer.update
    with pytest.raises(
        ValueError, match=r"`window` of this transformation is 4, .*\(4,\), got \(8,"
    ):
        update(params, restored, params)


def test_states_that_are_stacked_are_refused_and_mapped():
    optimizer = zenith(0.1, 3)
    population = jax.vmap(optimizer.init)(jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"must have shape \(3,\), got \(3, 3\)"):
        optimizer.update(jnp.ones((3, 2)), population)
    _, population = jax.vmap(optimizer.update)(jnp.ones((3, 2)), population)
    assert zenith_state(population).count.tolist() == [1, 1, 1]
