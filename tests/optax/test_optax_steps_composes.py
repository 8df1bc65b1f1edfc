"""Among optax's own: hyperparameters, accumulation, masks, and a norm that is given."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _optax_steps import (
    LR,
    NORMS,
    SCALES,
    STEPS,
    WINDOW,
    assert_close,
    assert_same,
    gradient,
    norm,
    params,
    run,
    spoiled,
)

from zenith.optax import scale_by_zenith, with_zenith, zenith_state
from zenith.optax import zenith as sgd_under_zenith


def test_a_rate_injected_and_changed_in_mid_run():
    factory = optax.inject_hyperparams(sgd_under_zenith, static_args=("window",))
    optimizer = factory(learning_rate=LR, window=WINDOW)
    own, state = run(optimizer, range(6))
    state.hyperparams["learning_rate"] = jnp.asarray(2 * LR)
    updates, state = optimizer.update(gradient(6), state, own)
    assert_close(updates, jax.tree.map(lambda g: -2 * LR * SCALES[6] * g, gradient(6)))


def test_a_traced_window_says_what_to_do():
    optimizer = optax.inject_hyperparams(sgd_under_zenith)(learning_rate=LR, window=WINDOW)
    with pytest.raises(TypeError, match=r"`window` must be a Python integer.*static_args"):
        optimizer.init(params())


@pytest.mark.parametrize("jit", [False, True])
def test_multi_steps_give_one_norm_for_each_update(jit):
    optimizer = optax.MultiSteps(sgd_under_zenith(LR, WINDOW), every_k_schedule=4)
    _, state = run(optimizer, jit=jit)
    means = [
        norm(jax.tree.map(lambda *g: sum(g) / 4, *map(gradient, range(i, i + 4))))
        for i in range(0, STEPS, 4)
    ]
    found = zenith_state(state)
    assert int(found.count) == 3
    np.testing.assert_allclose(found.norms, means, rtol=2e-6)


def test_a_norm_that_is_given_is_used_and_goes_through_chain_and_multi_steps():
    given = jnp.asarray(7.0)
    chain = optax.chain(optax.clip(0.01), scale_by_zenith(WINDOW), optax.sgd(LR))
    assert zenith_state(run(chain, range(3), grad_norm=given)[1]).norms.tolist() == [7.0] * 3
    multi = optax.MultiSteps(sgd_under_zenith(LR, WINDOW), every_k_schedule=2)
    assert zenith_state(run(multi, range(4), grad_norm=given)[1]).norms.tolist() == [7.0, 7.0, 0.0]
    with pytest.raises(ValueError, match=r"`grad_norm` must be a scalar, got shape \(2,\)"):
        chain.update(gradient(0), chain.init(params()), grad_norm=jnp.ones(2))
    with pytest.raises(ValueError, match=r"`grad_norm` must be real, got 1j"):
        chain.update(gradient(0), chain.init(params()), grad_norm=1j)
    for negative in (-1, -1.0, np.float32(-1), np.array(-1.0)):
        with pytest.raises(ValueError, match=r"`grad_norm` must be >= 0, got -1\.0"):
            chain.update(gradient(0), chain.init(params()), grad_norm=negative)


@pytest.mark.parametrize("jit", [False, True])
def test_a_negative_norm_that_only_the_device_knows_is_skipped(jit):
    optimizer = scale_by_zenith(window=1)
    update = jax.jit(optimizer.update) if jit else optimizer.update
    _, state = update(gradient(0), optimizer.init(params()), grad_norm=jnp.asarray(-1.0))
    assert (int(state.count), int(state.skipped)) == (0, 1)


def test_a_norm_that_is_given_is_handed_on_to_the_inner_optimizer():
    inner = scale_by_zenith(WINDOW)
    _, state = run(with_zenith(inner, WINDOW), range(2), grad_norm=jnp.asarray(7.0))
    assert state.inner.norms.tolist() == state.zenith.norms.tolist() == [7.0, 7.0, 0.0]


def test_what_relies_on_its_own_updates_goes_outside():
    lookahead = optax.lookahead(sgd_under_zenith(LR, 1), sync_period=2, slow_step_size=0.5)
    own = optax.LookaheadParams.init_synced(jnp.ones(1))
    state = lookahead.init(own)
    for size in (1.0, 0.5):
        updates, state = lookahead.update(jnp.array([size]), state, own)
        own = optax.apply_updates(own, updates)
    assert float(own.fast[0]) == float(own.slow[0]) == pytest.approx(1 - (LR + 0.25 * LR) / 2)


def test_a_lookahead_that_resets_its_state_empties_the_schedule():
    lookahead = optax.lookahead(sgd_under_zenith(LR, 3), 2, 0.5, reset_state=True)
    own = optax.LookaheadParams.init_synced(jnp.ones(1))
    state, counts = lookahead.init(own), []
    for _ in range(4):
        updates, state = lookahead.update(jnp.ones(1), state, own)
        own = optax.apply_updates(own, updates)
        counts.append(int(zenith_state(state).count))
    assert counts == [1, 0, 1, 0]


def test_a_partition_has_its_own_norm_unless_zenith_is_outermost():
    labels = {"a": "x", "none": "x", "b": "y"}
    inside = optax.partition({"x": sgd_under_zenith(LR, 1), "y": optax.sgd(LR)}, labels)
    _, state = run(inside, range(1))
    assert float(zenith_state(state).norms[0]) == pytest.approx(norm(gradient(0)["a"]), rel=1e-6)
    outside = with_zenith(optax.partition({"x": optax.sgd(LR), "y": optax.adam(LR)}, labels), 1)
    _, state = run(outside, range(1))
    assert float(zenith_state(state).norms[0]) == pytest.approx(NORMS[0], rel=1e-6)
    masked = optax.masked(sgd_under_zenith(LR, 1), {"a": True, "none": False, "b": False})
    _, state = run(masked, range(1))
    assert float(zenith_state(state).norms[0]) == pytest.approx(norm(gradient(0)["a"]), rel=1e-6)


def test_a_step_that_apply_if_finite_drops_changes_no_field():
    optimizer = optax.apply_if_finite(sgd_under_zenith(LR, WINDOW), max_consecutive_errors=3)
    own, state = run(optimizer, range(4))
    _, after = optimizer.update(spoiled(jnp.nan), state, own)
    assert_same(zenith_state(after), zenith_state(state))


def test_tree_map_params_takes_no_field_of_the_schedule_for_a_parameter():
    optimizer = sgd_under_zenith(LR, WINDOW, 0.9)
    _, state = run(optimizer, range(5))
    mapped = optax.tree_utils.tree_map_params(optimizer, lambda x: 0 * x, state)
    assert_same(zenith_state(mapped), zenith_state(state))
    assert float(jnp.abs(mapped[0].inner.trace["a"]).max()) == 0


def test_reduce_on_plateau_after_it_multiplies_its_rate():
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=2)
    optimizer = optax.chain(sgd_under_zenith(LR, WINDOW), plateau)
    own, state = run(optimizer, range(4), value=1.0)  # the loss stands still
    assert float(optax.tree.get(state, "plateau_count")) == 1
    updates, state = optimizer.update(gradient(4), state, own, value=1.0)
    factor = float(state[1].scale)
    assert factor == 0.25  # halved at the third step and at the fifth
    assert_close(updates, jax.tree.map(lambda g: -LR * SCALES[4] * factor * g, gradient(4)))


def test_optax_finds_and_sets_the_fields_by_their_names():
    optimizer = optax.chain(optax.clip(1.0), scale_by_zenith(WINDOW), optax.adam(LR))
    _, state = run(optimizer, range(2))
    assert optax.tree.get(state, "norms").tolist() == zenith_state(state).norms.tolist()
    assert int(optax.tree.get(state, "ZenithState").count) == 2
    assert int(zenith_state(optax.tree.set(state, skipped=jnp.int32(7))).skipped) == 7
