"""Leaves that are no floats, parameters of -0, and the norm of very many entries."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _x64 import enable_x64

from zenith.optax import scale_by_zenith, with_zenith, zenith, zenith_state

LR = 0.1
FORMS = {
    "zenith": lambda window: zenith(LR, window),
    "schedule": lambda window: zenith(lambda _: LR, window),
    "with_zenith": lambda window: with_zenith(optax.sgd(LR), window),
    "chain": lambda window: optax.chain(scale_by_zenith(window), optax.sgd(LR)),
    "propagate": lambda window: zenith(LR, window, nonfinite="propagate"),
}


# --- integers, booleans, functions


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "int32", "uint16"])
@pytest.mark.parametrize("form", FORMS)
def test_of_integers_the_product_is_no_integer(form, dtype, jit):
    optimizer = FORMS[form](1)
    state = optimizer.init(jnp.zeros(2))
    update = jax.jit(optimizer.update) if jit else optimizer.update
    found = []
    for gradient in ([8, 6], [4, 3]):  # of norm 10 and 5
        updates, state = update(jnp.array(gradient, dtype), state)
        assert updates.dtype == jnp.float32
        found.append(updates)
    np.testing.assert_allclose(found, [[-0.8, -0.6], [-0.2, -0.15]], rtol=1e-6)


def test_of_booleans_too_and_a_step_of_integers_is_skipped():
    optimizer = zenith(LR, 1)
    state = optimizer.init(jnp.zeros(2))
    for gradient in ([True, True, True, True], [True, False, False, False]):
        updates, state = optimizer.update(jnp.array(gradient), state)
    np.testing.assert_allclose(updates, [-LR / 2, 0, 0, 0], rtol=1e-6)
    updates, state = optimizer.update(jnp.array([8, 6]), state, grad_norm=jnp.nan)
    assert updates.tolist() == [0, 0]
    assert int(zenith_state(state).skipped) == 1


@pytest.mark.parametrize("label", ["name", np.str_("name"), np.array(["a", "b"]), np.array(object)])
@pytest.mark.parametrize("form", FORMS)
def test_a_leaf_that_is_no_number_has_no_part_in_the_dtype(form, label):
    params = {"label": label, "w": jnp.ones(2)}
    optax.sgd(LR).init(params)
    assert zenith_state(FORMS[form](1).init(params)).norms.dtype == jnp.float32


def test_while_the_window_fills_integers_give_what_they_give_in_sgd():
    gradient = jnp.array([8, -7])
    ours, theirs = zenith(LR, momentum=0.9), optax.sgd(LR, momentum=0.9)
    mine, others = ours.init(jnp.zeros(2)), theirs.init(jnp.zeros(2))
    for _ in range(3):
        a, mine = ours.update(gradient, mine)
        b, others = theirs.update(gradient, others)
        np.testing.assert_array_equal(a, b)


def loss(model):
    return jnp.sum(model(jnp.array([1.0, -2.0])) ** 2)


def test_the_functions_in_an_equinox_module_are_passed_over():
    model = eqx.nn.MLP(2, 3, 4, depth=1, key=jax.random.key(0))
    assert any(callable(leaf) for leaf in jax.tree.leaves(model))
    found = {}
    for name, optimizer in {"ours": zenith(LR), "sgd": optax.sgd(LR)}.items():
        state, own = optimizer.init(model), model
        for _ in range(3):
            updates, state = optimizer.update(eqx.filter_grad(loss)(own), state, own)
            own = eqx.apply_updates(own, updates)
        found[name] = jax.tree.leaves(eqx.filter(own, eqx.is_array))
        if name == "ours":
            assert int(zenith_state(state).count) == 3
    for a, b in zip(found["ours"], found["sgd"], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("params", "dtype"),
    [
        ([jnp.tanh, np.ones(2, "float32")], "float32"),
        ([jnp.tanh, np.ones(2, "float64")], "float64"),
        ([jnp.tanh, "float64"], "float32"),
        ([1.0], "float64"),  # a number of Python is as wide as it goes
        ([1], "float32"),
    ],
    ids=str,
)
def test_the_state_is_as_wide_as_the_widest_leaf_that_has_a_dtype(params, dtype):
    with enable_x64(True):
        assert scale_by_zenith(2).init(params).norms.dtype == dtype


def test_an_update_that_is_wider_than_the_state_loses_no_bit():
    with enable_x64(True):
        optimizer = scale_by_zenith(2)
        state = optimizer.init(jnp.zeros(1, "float32"))
        updates, state = optimizer.update(jnp.array([1 / 3], "float64"), state)
        assert state.norms.dtype == jnp.float32
        assert updates.tolist() == [1 / 3]


# --- a parameter of -0


def minus_zeros(dtype):
    """All zeros that there are, and a one."""
    reals = [-0.0, 0.0, 1.0]
    if dtype != "complex64":
        return jnp.array(reals, dtype)
    return jnp.array([complex(a, b) for a in reals for b in reals], dtype)


SKIPPING = {
    "plain": zenith(LR, 2),
    "nesterov": zenith(LR, 2, momentum=0.9, nesterov=True),
    "accumulator": zenith(LR, 2, momentum=0.9, accumulator_dtype=jnp.float32),
    "schedule": zenith(lambda _: LR, 2),
    "rate of 0": zenith(0, 2),
    "with_zenith": with_zenith(optax.sgd(LR, 0.9), 2),
    "injected": optax.inject_hyperparams(zenith, static_args=("window",))(LR, 2),
}
DTYPES = ("float32", "bfloat16", "float16", "complex64")
EVERY = [(form, dtype) for form in SKIPPING for dtype in DTYPES]
EVERY.remove(("accumulator", "complex64"))  # of which a real accumulator would keep half


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("form", "dtype"), EVERY)
def test_a_skipped_step_leaves_every_bit(form, dtype, jit):
    optimizer = SKIPPING[form]

    def step(own, state, gradient):
        updates, state = optimizer.update(gradient, state, own)
        return optax.apply_updates(own, updates), state

    step = jax.jit(step) if jit else step
    own = {"a": minus_zeros(dtype), "none": None}
    _, state = step(own, optimizer.init(own), jax.tree.map(jnp.ones_like, own))
    bad = jax.tree.map(lambda x: x.at[0].set(jnp.nan), own)
    after, skipped = step(own, state, bad)
    assert np.asarray(after["a"]).tobytes() == np.asarray(own["a"]).tobytes()
    assert int(zenith_state(skipped).skipped) == 1


def test_nan_goes_through_where_it_is_propagated():
    optimizer = zenith(LR, 2, nonfinite="propagate")
    updates, state = optimizer.update(jnp.array([jnp.nan, 1.0]), optimizer.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [jnp.nan, -LR], rtol=1e-6)
    assert int(zenith_state(state).skipped) == 1


# --- the norm of very many entries


@pytest.mark.parametrize("shape", [(20_000_000,), (5000, 4000), (20, 1_000_000), (10_000_000, 2)])
@pytest.mark.parametrize(("values", "bound"), [("equal", 1e-4), ("normal", 1e-5)])
def test_the_norm_of_20_million_entries_is_that_of_float64(shape, values, bound):
    if values == "equal":
        gradient = np.full(shape, 0.1, "float32")
    else:
        gradient = np.random.default_rng(0).standard_normal(shape, "float32")
    exact = np.sqrt(np.square(gradient, dtype="float64").sum())
    optimizer = scale_by_zenith(1)
    state = optimizer.init(jnp.zeros(1))
    for update in (optimizer.update, jax.jit(optimizer.update)):
        _, after = update(jnp.asarray(gradient), state)
        np.testing.assert_allclose(after.norms[0], exact, rtol=bound)
