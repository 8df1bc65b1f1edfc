"""Traces, shapes, dtypes and buffers: one trace, and the same state in and out."""

import subprocess
import sys

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
    signature,
)
from _reference import scales

from zenith.optax import scale_by_zenith, with_zenith, zenith_state
from zenith.optax import zenith as sgd_under_zenith


def test_one_trace_over_1000_steps():
    optimizer, traces = sgd_under_zenith(LR, WINDOW, 0.9), []

    @jax.jit
    def step(own, state, grads):
        traces.append(None)
        updates, state = optimizer.update(grads, state, own)
        return optax.apply_updates(own, updates), state

    own, state = params(), optimizer.init(params())
    grads = gradient(0)
    for _ in range(1000):
        own, state = step(own, state, grads)
    assert len(traces) == 1
    assert signature(state) == signature(optimizer.init(params()))


def test_scan_cond_while_and_vmap_are_the_loop():
    optimizer = sgd_under_zenith(LR, WINDOW, 0.9)
    wanted = run(optimizer, jit=True)
    stack = jax.tree.map(lambda *g: jnp.stack(g), *map(gradient, range(STEPS)))
    start = (params(), optimizer.init(params()))

    def step(carry, grads):
        updates, state = optimizer.update(grads, carry[1], carry[0])
        return (optax.apply_updates(carry[0], updates), state), None

    def conditional(carry, grads):
        return jax.lax.cond(True, lambda: step(carry, grads)[0], lambda: carry), None

    assert_close(jax.lax.scan(step, start, stack)[0], wanted)
    assert_close(jax.lax.scan(conditional, start, stack)[0], wanted)

    def body(carry):
        i, own = carry
        return i + 1, step(own, jax.tree.map(lambda g: g[i], stack))[0]

    assert_close(jax.lax.while_loop(lambda c: c[0] < STEPS, body, (0, start))[1], wanted)

    def whole(factor):
        scaled = jax.tree.map(lambda g: factor * g, stack)
        return zenith_state(jax.lax.scan(step, start, scaled)[0][1])

    population = jax.vmap(whole)(jnp.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(population.scale, [SCALES[-1]] * 3, rtol=2e-6)
    np.testing.assert_allclose(population.norms[:, -1], NORMS[-1] * np.array([1, 2, 4]), rtol=2e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_updates_keep_their_dtype_and_the_state_is_float32(dtype):
    optimizer = with_zenith(optax.identity(), window=2)
    state = optimizer.init(params(dtype))
    seen = [norm(gradient(step, dtype)) for step in range(6)]
    for step, scale in enumerate(scales(seen, 2)):
        updates, state = optimizer.update(gradient(step, dtype), state)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
        np.testing.assert_allclose(state.zenith.scale, scale, rtol=1e-5)
    assert state.zenith.norms.dtype == jnp.float32
    assert signature(state) == signature(optimizer.init(params(dtype)))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float16", "bfloat16", "float32", "complex64"])
def test_no_promotion_is_implicit(dtype):
    ours = {"a": jnp.ones(2, dtype)}
    with jax.numpy_dtype_promotion("strict"):
        for optimizer in (sgd_under_zenith(LR, 1, momentum=0.9), scale_by_zenith(1)):
            state = optimizer.init(ours)
            for factor in (1, 0.5):  # of the norm, and so of the second step
                grads = jax.tree.map(lambda x: x * x.dtype.type(factor), ours)  # noqa: B023
                updates, state = jax.jit(optimizer.update)(grads, state, ours)
            assert updates["a"].dtype == jnp.dtype(dtype)
            assert float(zenith_state(state).scale) == 0.5
        assert float(updates["a"].real.astype("float32")[0]) == 0.25


def test_norms_that_half_precision_cannot_hold():
    optimizer = scale_by_zenith(window=1)
    large = jnp.full(4, 60000, "float16")
    _, state = optimizer.update(large, optimizer.init(large))
    assert float(state.norms[0]) == 120000
    equal = jnp.full(1_000_000, 0.1, "bfloat16")
    _, state = jax.jit(optimizer.update)(equal, optimizer.init(equal))
    assert float(state.norms[0]) == pytest.approx(1000 * float(equal[0]), rel=1e-3)


def test_under_x64_the_state_is_float64_where_a_parameter_is():
    script = """
import jax, jax.numpy as jnp, numpy as np
from zenith.optax import zenith, zenith_state
for dtype, wide in (("float32", "float32"), ("float64", "float64"), ("complex128", "float64")):
    optimizer = zenith(0.1, window=2)
    first = state = optimizer.init({"a": jnp.ones(3, "float32"), "b": jnp.ones(2, dtype)})
    for step in range(5):
        g = {"a": jnp.full(3, 1 + step, "float32"), "b": jnp.full(2, 0.1, dtype)}
        updates, state = jax.jit(optimizer.update)(g, state)
        assert updates["b"].dtype == dtype and updates["a"].dtype == "float32"
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(state), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
    found = zenith_state(state)
    assert found.norms.dtype == wide and found.count.dtype == "int32"
    exact = np.sqrt(3 * 25.0 + 2 * 0.1**2)
    assert abs(float(found.norms[0]) / exact - 1) < (1e-15 if wide == "float64" else 1e-7), found
"""
    command = [sys.executable, "-c", script]
    environment = {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "PATH": "", **_python_path()}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def _python_path():
    import os

    return {key: os.environ[key] for key in ("PYTHONPATH", "COVERAGE_FILE") if key in os.environ}


def test_parameters_and_state_can_be_donated_together():
    optimizer = sgd_under_zenith(LR, WINDOW, 0.9)
    own, state = params(), optimizer.init(params())

    def pointers(tree):
        return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]

    def step(own, state, grads):
        updates, state = optimizer.update(grads, state, own)
        return optax.apply_updates(own, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1))
    for i in range(STEPS):
        assert len(set(pointers((own, state)))) == len(pointers((own, state)))
        own, state = donating(own, state, gradient(i))
    assert_close((own, state), run(optimizer, jit=True))


def test_no_gradient_at_all_records_nothing():
    optimizer = sgd_under_zenith(LR, WINDOW)
    for empty in ({}, {"a": None}):
        state = optimizer.init(empty)
        updates, after = optimizer.update(empty, state, empty)
        assert updates == empty
        assert_same(after, state)


def test_a_gradient_of_zero_has_no_nan_in_it():
    optimizer = sgd_under_zenith(LR, 1)
    with jax.debug_nans(True):
        state = optimizer.init(jnp.zeros(2))
        for _ in range(3):
            _, state = jax.jit(optimizer.update)(jnp.zeros(2), state)
        slope = jax.grad(lambda g: optimizer.update(g, state)[0].sum())(jnp.zeros(2))
    np.testing.assert_allclose(slope, [-LR, -LR])


def test_a_schedule_counts_skipped_steps_in_zenith_and_not_inside_of_with_zenith():
    def rate(count):
        return LR * (count + 1)

    bad, good = jnp.array([jnp.nan]), jnp.array([1.0])
    rates = {}
    for optimizer in (sgd_under_zenith(rate, 9), with_zenith(optax.sgd(rate), 9)):
        state = optimizer.init(good)
        _, state = optimizer.update(bad, state)
        updates, _ = optimizer.update(good, state)
        rates[len(rates)] = -float(updates[0])
    assert rates == pytest.approx({0: 2 * LR, 1: LR})
