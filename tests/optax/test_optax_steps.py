"""The steps of the optax transformations, against optax's own, numpy and Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _optax_steps import (
    LR,
    NORMS,
    SCALES,
    WINDOW,
    assert_close,
    assert_same,
    gradient,
    params,
    run,
    spoiled,
)

from zenith.optax import scale_by_zenith, set_zenith_state, with_zenith, zenith_state
from zenith.optax import zenith as sgd_under_zenith


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "accumulator_dtype": jnp.bfloat16},
    ],
    ids=str,
)
@pytest.mark.parametrize("rate", [LR, optax.linear_schedule(0.0, LR, 5)], ids=["float", "warm-up"])
def test_it_is_sgd_while_the_window_fills(kwargs, rate):
    ours, theirs = sgd_under_zenith(rate, **kwargs), optax.sgd(rate, **kwargs)
    assert_same(run(ours)[0], run(theirs)[0])
    assert_close(run(ours, jit=True)[0], run(theirs, jit=True)[0])
    assert_same(run(with_zenith(theirs))[0], run(theirs)[0])


def test_by_default_it_is_plain_sgd_at_a_tenth():
    optimizer = sgd_under_zenith()
    state = optimizer.init(jnp.zeros(1))
    for _ in range(2):
        updates, state = optimizer.update(jnp.ones(1), state)
        np.testing.assert_allclose(updates, [-0.1], rtol=1e-6)
    assert zenith_state(state).norms.shape == (500,)
    assert scale_by_zenith().init(jnp.zeros(1)).norms.shape == (500,)
    assert with_zenith(optax.sgd(0.1)).init(jnp.zeros(1)).zenith.norms.shape == (500,)


def numpy_run(momentum, into_momentum):
    """SGD in float64 by Algorithm 1: the rate after the momentum, or the scale in it."""
    own = {k: np.asarray(v, "float64") for k, v in params().items() if v is not None}
    buffer = {k: np.zeros_like(v) for k, v in own.items()}
    for step, scale in enumerate(SCALES):
        inner, outer = (scale, 1) if into_momentum else (1, scale)
        for k in own:
            g = np.asarray(gradient(step)[k], "float64")
            buffer[k] = inner * g + momentum * buffer[k]
            own[k] = own[k] - LR * outer * buffer[k]
    return own


def test_the_trajectory_is_that_of_algorithm_1():
    assert min(SCALES) < 0.8
    base = optax.sgd(LR, 0.9)
    for optimizer in (sgd_under_zenith(LR, WINDOW, 0.9), with_zenith(base, WINDOW)):
        for jit in (False, True):
            own, state = run(optimizer, jit=jit)
            found = zenith_state(state)
            np.testing.assert_allclose(found.scale, SCALES[-1], rtol=2e-6)
            np.testing.assert_allclose(found.norms, NORMS[-WINDOW:], rtol=2e-6)
            assert_close(own, numpy_run(0.9, into_momentum=False))


def test_in_a_chain_before_sgd_the_scale_goes_into_the_momentum():
    own, _ = run(optax.chain(scale_by_zenith(WINDOW), optax.sgd(LR, 0.9)))
    assert_close(own, numpy_run(0.9, into_momentum=True))
    apart = numpy_run(0.9, into_momentum=False)
    assert max(np.max(np.abs(own[k] - apart[k])) for k in apart) > 1e-3


def test_the_norm_of_a_step_counts_in_its_own_scale():
    optimizer = scale_by_zenith(WINDOW)
    state = optimizer.init(params())
    for step, scale in enumerate(SCALES):
        updates, state = optimizer.update(gradient(step), state)
        assert_close(updates, jax.tree.map(lambda g, s=scale: s * g, gradient(step)))


# --- a gradient that is not finite


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("jit", [False, True])
def test_skip_changes_nothing_but_the_count(value, jit):
    own = params()
    for optimizer in (
        sgd_under_zenith(LR, WINDOW, 0.9, nesterov=True),
        sgd_under_zenith(LR, WINDOW, 0.9),
        with_zenith(optax.adamw(LR), WINDOW),
    ):
        _, state = run(optimizer, range(4))
        update = jax.jit(optimizer.update) if jit else optimizer.update
        updates, after = update(spoiled(value), state, own)
        assert_same(optax.apply_updates(own, updates), own)
        found = zenith_state(after)
        assert int(found.skipped) == 1
        before = zenith_state(state)._replace(skipped=found.skipped)
        assert_same(after, set_zenith_state(state, before))


def test_propagate_is_the_inner_optimizer_and_guards_the_schedule():
    inner = optax.sgd(LR, 0.9)
    optimizer = with_zenith(inner, WINDOW, nonfinite="propagate")
    _, state = run(optimizer, range(2))
    _, bare = run(inner, range(2))
    updates, after = optimizer.update(spoiled(jnp.nan), state)
    assert_same((updates, after.inner), inner.update(spoiled(jnp.nan), bare))
    assert_same(after.zenith._replace(skipped=state.zenith.skipped), state.zenith)
    assert int(after.zenith.skipped) == 1


def test_the_bare_factor_lets_it_through():
    optimizer = scale_by_zenith(WINDOW)
    updates, state = optimizer.update(spoiled(jnp.nan), optimizer.init(params()))
    assert_same(updates, spoiled(jnp.nan))
    assert (int(state.count), int(state.skipped)) == (0, 1)
