"""The state: found, put back and carried over, and arguments that are refused."""

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import optax
import pytest
from _optax_steps import LR, STEPS, WINDOW, assert_same, params, run, signature
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import zenith
from zenith.optax import scale_by_zenith, set_zenith_state, with_zenith, zenith_state
from zenith.optax import zenith as sgd_under_zenith


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
