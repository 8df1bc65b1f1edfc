"""ZenithSchedule: the rate of a custom loop, fed by `observe`, equal to the optimizers' own."""

import keras
import numpy as np
import pytest
from _keras import (
    BACKEND,
    apply,
    arrays,
    assert_close,
    assert_same,
    assert_same_state,
    dense_model,
    gradients,
    norm,
    plain,
    scale,
    tensors,
    variables,
)
from _reference import scales

import zenith
from zenith.tf import Zenith, ZenithSchedule, ZenithWrapper

if BACKEND == "jax":
    import jax

LR = 0.1
WINDOW = 3
STEPS = 9
NORMS = [norm(gradients(step)) for step in range(STEPS)]
SCALES = scales(NORMS, WINDOW)

PAIRS = {
    "SGD": (
        lambda rate: keras.optimizers.SGD(rate, momentum=0.9, weight_decay=0.1, clipnorm=0.5),
        lambda: Zenith(LR, window=WINDOW, momentum=0.9, weight_decay=0.1, clipnorm=0.5),
    ),
    "Adam": (
        keras.optimizers.Adam,
        lambda: ZenithWrapper(keras.optimizers.Adam(LR), window=WINDOW),
    ),
}


@pytest.mark.parametrize(("make", "ours"), PAIRS.values(), ids=PAIRS.keys())
def test_a_custom_loop_is_the_optimizer_step_by_step(make, ours):
    own, theirs, others = variables(), variables(), variables()
    schedule, fed = ZenithSchedule(LR, WINDOW), ZenithSchedule(LR, WINDOW)
    optimizer, by_norm, wanted = make(schedule), make(fed), ours()
    for step in range(STEPS):
        schedule.observe(tensors(gradients(step)))
        apply(optimizer, own, step)
        fed.observe(grad_norm=np.float32(NORMS[step]))
        apply(by_norm, theirs, step)
        apply(wanted, others, step)
        # Bit for bit: the rate is the same product. Only a norm summed in float64 may differ.
        assert_same(arrays(own), arrays(others))
        assert_same_state(schedule.zenith_state, wanted.zenith_state)
        assert_close(arrays(theirs), arrays(others), 2e-6)
        assert scale(schedule) == pytest.approx(SCALES[step], rel=2e-6)
        assert float(schedule(step)) == pytest.approx(LR * SCALES[step], rel=2e-6)
        assert float(optimizer.learning_rate) == float(schedule(10**6))


def test_under_jit():
    """JAX: `variables` are threaded through a StatelessScope. Elsewhere a plain step is as good."""
    schedule, own = ZenithSchedule(LR, WINDOW), variables()
    optimizer = keras.optimizers.SGD(schedule, momentum=0.5)
    optimizer.build(own)
    theirs, wanted = variables(), Zenith(LR, window=WINDOW, momentum=0.5)
    threaded = [*schedule.variables, *own, *optimizer.variables]
    assert len(schedule.variables) == 6
    traces = []

    def pure(values, grads):
        traces.append(1)
        mapping = list(zip(threaded, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            schedule.observe(grads)
            optimizer.apply(grads, own)
        return [scope.get_current_value(variable) for variable in threaded]

    step_fn = jax.jit(pure) if BACKEND == "jax" else pure
    values = [keras.ops.convert_to_tensor(variable) for variable in threaded]
    for step in range(STEPS - 1):
        if BACKEND == "tensorflow":  # whose optimizers write into their variables: not stateless
            schedule.observe(tensors(gradients(step)))
            apply(optimizer, own, step)
        else:
            values = step_fn(values, tensors(gradients(step)))
        apply(wanted, theirs, step)
    if BACKEND != "tensorflow":
        for variable, value in zip(threaded, values, strict=True):
            variable.assign(value)
    assert len(traces) == {"jax": 1, "torch": STEPS - 1, "tensorflow": 0}[BACKEND]
    assert_close(arrays(own), arrays(theirs))
    assert scale(schedule) == pytest.approx(SCALES[-2], rel=2e-6)
    assert scale(schedule) < 0.96


def test_what_is_not_finite_or_nothing_is_not_recorded():
    schedule = ZenithSchedule(LR, 2)
    schedule.observe([None, *tensors(gradients(0))])
    before = plain(schedule.zenith_state)
    assert before["norms"][0] == pytest.approx(NORMS[0], rel=2e-6)
    schedule.observe([None, None])
    schedule.observe([])
    assert_same(plain(schedule.zenith_state).values(), before.values())
    for bad in (np.nan, np.inf):
        schedule.observe(grad_norm=bad)
    after = plain(schedule.zenith_state)
    assert after.pop("skipped") == 2
    del before["skipped"]
    assert_same(after.values(), before.values())
    idle = ZenithSchedule(0.0, 2)
    idle.observe(grad_norm=0.0)
    assert plain(idle.zenith_state)["count"] == 0
    idle.observe(grad_norm=1.0)
    assert plain(idle.zenith_state)["count"] == 1


def test_its_defaults_and_a_rate_of_0():
    schedule = ZenithSchedule()
    assert float(schedule(0)) == np.float32(0.1)
    assert plain(schedule.zenith_state)["norms"].shape == (500,)
    assert not any(variable.trainable for variable in schedule.variables)
    assert float(ZenithSchedule(0)(0)) == 0
    assert plain(Zenith().zenith_state)["norms"].shape == (500,)
    assert float(Zenith().learning_rate) == np.float32(0.1)
    wrapper = ZenithWrapper(keras.optimizers.Adam())
    assert plain(wrapper.zenith_state)["norms"].shape == (500,)
    for optimizer in (Zenith(), wrapper):
        assert optimizer.nonfinite == "skip"


def test_wrong_calls_are_refused():
    schedule = ZenithSchedule(LR, 2)
    for kwargs in ({}, {"grads": tensors(gradients(0)), "grad_norm": 1.0}):
        with pytest.raises(ValueError, match="takes `grads` or `grad_norm`, one and not the other"):
            schedule.observe(**kwargs)
    with pytest.raises(ValueError, match=r"`grad_norm` must be a scalar, got shape \(2,\)"):
        schedule.observe(grad_norm=np.ones(2, "float32"))
    assert plain(schedule.zenith_state)["count"] == 0


def test_is_saved_and_restored_with_the_model(tmp_path):
    model = dense_model()
    schedule = ZenithSchedule(LR, WINDOW)
    model.compile(optimizer=keras.optimizers.SGD(schedule, momentum=0.5), loss="mse")
    own = model.trainable_variables

    def train(model, steps):
        rate = model.optimizer._learning_rate
        for step in steps:
            generator = np.random.default_rng(step)
            arrays = [(step % 3 + 1) * generator.standard_normal(v.shape) for v in own]
            grads = tensors(arrays)
            rate.observe(grads)
            model.optimizer.apply(grads, model.trainable_variables)

    train(model, range(5))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.optimizer._learning_rate
    assert isinstance(again, ZenithSchedule)
    assert (again.initial_learning_rate, again.window) == (LR, WINDOW)
    assert_same_state(again.zenith_state, schedule.zenith_state)
    for each in (model, loaded):
        train(each, range(5, 9))
    assert_same_state(again.zenith_state, schedule.zenith_state)
    assert_same(arrays(loaded.weights), arrays(model.weights))
    assert scale(schedule) < 1


def test_the_configuration_holds_the_state():
    schedule = ZenithSchedule(0.25, 2)
    for value in (3.0, 5.0, 1.0):
        schedule.observe(grad_norm=value)
    config = schedule.get_config()
    state = {
        "norms": [1.0, 5.0],
        "count": 3,
        "mean": 3.0,
        "zenith": 4.0,
        "scale": 0.75,
        "skipped": 0,
    }
    assert config == {
        "initial_learning_rate": 0.25,
        "window": 2,
        "zenith_state": {"version": 1, **state},
    }
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert zenith.to_dict(again.zenith_state) == config["zenith_state"]
    assert float(again(0)) == 0.1875
