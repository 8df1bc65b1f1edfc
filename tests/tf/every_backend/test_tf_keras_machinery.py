"""What Keras' own machinery expects of an optimizer, and what a skipped step must not disturb."""

import pickle

import keras
import numpy as np
import pytest
from _keras import BACKEND, apply, arrays, assert_same, gradients, plain, tensors, variables
from _reference import ROUNDING

from zenith.tf import Zenith, ZenithSchedule, ZenithWrapper


def spoiled():
    return tensors([np.full_like(gradient, np.nan) for gradient in gradients(0)])


def steps(optimizer, own, count):
    for step in range(count):
        apply(optimizer, own, step)
    return optimizer


# --- a skipped step never happened


@pytest.mark.parametrize("kwargs", [{"use_ema": True}, {"gradient_accumulation_steps": 2}], ids=str)
def test_a_skipped_first_step_changes_nothing_of_the_run(kwargs):
    """Of Adam's correction of its bias, of a moving average and of accumulators among the rest."""
    outcomes = []
    for bad in (0, 1, 4):
        for make in (
            lambda: Zenith(0.1, window=2, momentum=0.9, **kwargs),
            lambda: ZenithWrapper(keras.optimizers.Adam(0.1, **kwargs), window=2),
        ):
            own, optimizer = variables(), make()
            for _ in range(bad * kwargs.get("gradient_accumulation_steps", 1)):
                optimizer.apply(spoiled(), own)
            steps(optimizer, own, 6)
            optimizer.finalize_variable_values(own)
            state = plain(optimizer.zenith_state)
            assert state.pop("skipped") == bad
            outcomes.append([*arrays(own), *state.values(), np.array(int(optimizer.iterations))])
    for zenith, wrapper in zip(outcomes[2::2], outcomes[3::2], strict=True):
        assert_same(zenith, outcomes[0])
        assert_same(wrapper, outcomes[1])


def test_a_skipped_step_leaves_the_variables_alone_that_it_was_not_given():
    own = variables()
    optimizer = Zenith(0.1, use_ema=True, ema_overwrite_frequency=2)
    steps(optimizer, own, 1)
    own[1].assign(np.full(4, 9.0))
    optimizer.apply(spoiled()[:1], own[:1])
    assert arrays(own)[1].tolist() == [9.0] * 4


# --- rates


def test_a_callable_rate_is_called_once_a_step_as_by_sgd():
    calls = []

    def rate():
        calls.append(None)
        return 0.1 * len(calls)

    trajectories = []
    for make in (Zenith, keras.optimizers.SGD, lambda r: ZenithWrapper(keras.optimizers.SGD(r))):
        calls.clear()
        own = variables()
        steps(make(rate), own, 3)
        assert len(calls) == 3
        trajectories.append(arrays(own))
    assert_same(trajectories[0], trajectories[1])
    assert_same(trajectories[2], trajectories[1])


def test_a_given_norm_is_not_rounded_by_floatx():
    own = [keras.Variable(np.ones(2), dtype="float32")]
    optimizer, schedule = Zenith(0.1, window=1), ZenithSchedule(0.1, window=1)
    keras.config.set_floatx("float16")
    try:
        optimizer.apply(tensors([np.ones(2)]), own, grad_norm=1e5)
        schedule.observe(grad_norm=1e5)
    finally:
        keras.config.set_floatx("float32")
    assert plain(optimizer.zenith_state)["norms"].tolist() == [1e5]
    assert plain(schedule.zenith_state)["norms"].tolist() == [1e5]


def test_no_gradients_are_no_step_and_build_nothing():
    optimizer, own = Zenith(), variables()
    optimizer.apply([], [])
    assert not optimizer.built
    steps(optimizer, own, 1)
    assert int(optimizer.zenith_state.count) == 1


# --- variables


def test_what_is_no_scalar_is_written_by_the_optimizers_assign(monkeypatch):
    for make in (
        lambda: Zenith(0.1, momentum=0.9, window=2, gradient_accumulation_steps=2),
        lambda: ZenithWrapper(keras.optimizers.SGD(0.1), window=2),
    ):
        written, optimizer = set(), make()
        assign = type(optimizer).assign

        def spy(variable, value, optimizer=optimizer, assign=assign, written=written):
            written.add(getattr(variable, "name", ""))
            assign(optimizer, variable, value)

        monkeypatch.setattr(optimizer, "assign", spy)
        own = variables()
        for step in range(2):
            apply(optimizer, own, step)
        optimizer.apply(spoiled(), own)
        assert "zenith_norms" in written


# --- weights


def test_set_weights_of_a_wrapper_reaches_the_inner_optimizer():
    own = variables()
    first = steps(ZenithWrapper(keras.optimizers.Adam(0.1), window=2), own, 4)
    second = ZenithWrapper(keras.optimizers.Adam(0.2), window=2)
    second.build(own)
    second.set_weights(arrays(first.variables))
    assert_same(arrays(second.variables), arrays(first.variables))
    assert int(second.iterations) == 4


@pytest.mark.parametrize("early", [True, False])
def test_the_paths_of_variables_do_not_depend_on_when_it_was_built(early):
    own = [keras.Variable(np.ones(2), dtype="float32", name="weight")]
    optimizer = Zenith(0.1, momentum=0.9, name="mine")
    if early:
        optimizer.build(own)
    optimizer.apply(tensors([np.ones(2)]), own)
    paths = [variable.path for variable in optimizer.variables]
    assert paths[:3] == ["mine/iteration", "mine/learning_rate", "mine/weight_momentum"]
    assert paths[3:] == [f"mine/zenith_{name}" for name in plain(optimizer.zenith_state)]


def model(optimizer, layers=3):
    network = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(3) for _ in range(layers))])
    network.compile(optimizer, loss="mse")
    network.optimizer.build(network.trainable_variables)
    return network


@pytest.mark.parametrize("layers", [2, 3])  # with 3, SGD has just as many variables as Zenith
def test_a_file_of_another_optimizer_is_left_alone(layers, tmp_path):
    path = tmp_path / "sgd.weights.h5"
    model(keras.optimizers.SGD(0.01, momentum=0.9), layers).save_weights(path)
    network = model(Zenith(0.1, window=3), layers)
    before = arrays(network.optimizer.variables)
    with pytest.warns(UserWarning, match="the saved optimizer has no schedule of ZENITH"):
        network.load_weights(path)
    assert_same(arrays(network.optimizer.variables), before)
    with pytest.warns(UserWarning, match="no schedule of ZENITH") as caught:
        network.optimizer.load_own_variables({})
    assert caught[0].filename == __file__


def test_an_optimizer_that_waits_to_be_built_can_be_pickled_again():
    own = variables()
    optimizer = steps(Zenith(0.1, window=3, momentum=0.9), own, 4)
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(optimizer))))
    copy.build(own)
    assert_same(arrays(copy.variables), arrays(optimizer.variables))


def test_apply_gradients_returns_the_iterations():
    own = variables()
    for optimizer in (Zenith(0.1), ZenithWrapper(keras.optimizers.Adam(0.1))):
        for step in range(2):
            pairs = zip(tensors(gradients(step)), own, strict=True)
            assert int(optimizer.apply_gradients(pairs)) == step + 1


# --- data parallelism of JAX


if BACKEND == "jax":
    import json
    import os
    import subprocess
    import sys

    import jax
    import jax.experimental.sparse

    def test_a_sparse_gradient_whose_rows_repeat_is_its_dense_one():
        rows = jax.numpy.asarray([[1.0, 2.0], [2.0, 2.0], [5.0, 0.0]])
        places = jax.numpy.asarray([[0], [0], [2]])
        sparse = jax.experimental.sparse.BCOO((rows, places), shape=(4, 2))
        found = []
        for gradient in (sparse, sparse.todense()):
            own, optimizer = [keras.Variable(np.ones((4, 2)))], Zenith(0.1, window=1, momentum=0.9)
            for _ in range(2):
                optimizer.apply([gradient], own)
            assert float(optimizer.zenith_state.mean) == pytest.approx(50**0.5, rel=1e-6)
            found.append(arrays(own)[0])
        np.testing.assert_allclose(*found, rtol=1e-6)

    SCRIPT = """
import json, sys
import keras, numpy as np
from zenith.tf import Zenith
if sys.argv[1] == "parallel":
    keras.distribution.set_distribution(keras.distribution.DataParallel())
keras.utils.set_random_seed(0)
network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
network.compile(Zenith(0.1, window=2, momentum=0.9), loss="mse")
numbers = np.random.default_rng(0)
x, y = (numbers.standard_normal((48, n)).astype("float32") for n in (3, 2))
network.fit(x, y, batch_size=8, shuffle=False, verbose=0)
state = network.optimizer.zenith_state
print(json.dumps([np.asarray(x).tolist() for x in (*network.get_weights(), *state)]))
"""

    def test_data_parallel_on_8_devices_is_one_device():
        flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
        outcomes = []
        for how in ("alone", "parallel"):
            command = [sys.executable, "-c", SCRIPT, how]
            environment = os.environ | flags
            result = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr[-2000:]
            outcomes.append(json.loads(result.stdout.splitlines()[-1]))
        alone, parallel = outcomes
        assert alone[6] < 0.99  # the scale
        for a, b in zip(alone, parallel, strict=True):
            np.testing.assert_allclose(a, b, rtol=ROUNDING, atol=ROUNDING)
