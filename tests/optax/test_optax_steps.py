"""The steps of the optax transformations, against optax's own, numpy and Algorithm 1."""

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _reference import scales
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import zenith
from zenith.optax import scale_by_zenith, set_zenith_state, with_zenith, zenith_state
from zenith.optax import zenith as sgd_under_zenith

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


# --- SGD


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


def spoiled(value):
    tree = gradient(0)
    return {**tree, "b": tree["b"].at[1].set(value)}


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


# --- traces, shapes and buffers


def signature(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


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


# --- among optax's own


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


# --- the state


def test_the_state_is_found_under_any_nesting_and_put_back():
    optimizer = optax.apply_if_finite(optax.MultiSteps(optax.chain(scale_by_zenith(2)), 1), 3)
    state = optimizer.init(params())
    carried = zenith.from_dict(zenith.to_dict(zenith.update(zenith.init(2), 5.0)))
    after = set_zenith_state(state, carried)
    assert zenith_state(after).norms.tolist() == [5.0, 0.0]
    assert signature(after) == signature(state)
    assert zenith_state(state).norms.tolist() == [0.0, 0.0]
    metrics = jax.jit(lambda s: zenith.metrics(zenith_state(s)))(after)
    assert float(metrics["grad_norm"]) == 5.0


def test_none_or_several_states_are_refused_by_their_paths():
    state = scale_by_zenith(2).init(params())
    with pytest.raises(ValueError, match=r"must hold one ZenithState, got none$"):
        zenith_state((optax.EmptyState(), {"a": jnp.ones(2)}))
    with pytest.raises(ValueError, match=r"got 2, at \['x'\], \['y'\]\[0\]"):
        zenith_state({"x": state, "y": (state,)})


def test_a_state_that_does_not_fit_is_refused():
    state = scale_by_zenith(2).init(params())
    with pytest.raises(ValueError, match=r"`window` of the state must be .* 2, got 3"):
        set_zenith_state(state, zenith.init(3))
    with pytest.raises(TypeError, match="must be a ZenithState, got dict"):
        set_zenith_state(state, {})


def test_a_state_is_put_back_under_jit_and_into_each_member_of_a_population():
    optimizer = scale_by_zenith(2)
    carried = zenith.update(zenith.init(2), 5.0)

    def put(state):
        return set_zenith_state(state, carried)

    assert zenith_state(jax.jit(put)(optimizer.init(params()))).norms.tolist() == [5.0, 0.0]
    population = jax.vmap(optimizer.init)(jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"a single ZenithState, got one of shape \(3,\)"):
        put(population)
    assert zenith_state(jax.vmap(put)(population)).norms.tolist() == [[5.0, 0.0]] * 3


def test_a_state_takes_on_the_sharding_of_its_place():
    place = NamedSharding(Mesh(jax.devices(), "x"), PartitionSpec())
    state = jax.device_put(scale_by_zenith(2).init(params()), place)
    after = set_zenith_state(state, zenith.update(zenith.init(2), 5.0))
    assert {leaf.sharding for leaf in jax.tree.leaves(after)} == {place}


def test_stacked_states_have_no_metrics_together():
    population = jax.vmap(scale_by_zenith(4).init)(jnp.ones((3, 2)))
    grads = jnp.array([[3.0, 4.0], [30.0, 40.0], [300.0, 400.0]])
    _, population = jax.vmap(scale_by_zenith(4).update)(grads, population)
    with pytest.raises(ValueError, match=r"got norms of shape \(3, 4\).*jax.vmap"):
        zenith.metrics(population)
    assert jax.vmap(zenith.metrics)(population)["grad_norm"].tolist() == [5.0, 50.0, 500.0]


def test_a_pickled_run_goes_on_to_the_last_bit():
    optimizer = sgd_under_zenith(LR, WINDOW, 0.9)
    half = pickle.loads(pickle.dumps(jax.device_get(run(optimizer, range(5), jit=True))))
    own, state = jax.tree.map(jnp.asarray, half)
    resumed = run(optimizer, range(5, STEPS), state, own, jit=True)
    assert_same(resumed, run(optimizer, jit=True))


def test_bad_arguments_name_the_rule_and_the_value():
    for window, error in ((0, ValueError), (True, TypeError), (2.5, TypeError)):
        for make in (scale_by_zenith, lambda w: with_zenith(optax.sgd(1.0), w)):
            with pytest.raises(error, match=f"`window` must be an integer >= 1, got {window}"):
                make(window)
    with pytest.raises(ValueError, match=r"`learning_rate` must be >= 0, got -0\.1"):
        sgd_under_zenith(-0.1)
    with pytest.raises(ValueError, match='`nonfinite` must be "skip" or "propagate", got \'x\''):
        with_zenith(optax.sgd(1.0), nonfinite="x")


def test_without_optax_the_import_names_the_extra():
    script = "import sys; sys.modules['optax'] = None; import zenith.optax"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert 'pip install "zenith-optim[optax]"' in result.stderr
