"""A gradient that is not finite never gets into the schedule, and by default into nothing."""

import keras
import numpy as np
import pytest
from _keras import (
    apply,
    arrays,
    assert_close,
    assert_same,
    dense_model,
    everything,
    gradients,
    norm,
    plain,
    scale,
    stepper,
    tensors,
    variables,
)
from _reference import scales

from zenith.tf import Zenith, ZenithWrapper

LR = 0.1
KEYWORDS = {
    "momentum": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "ema": {"momentum": 0.9, "use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "clipping": {"global_clipnorm": 0.5},
}


def makers(kwargs):
    """Zenith and ZenithWrapper over the same SGD."""
    yield lambda **own: Zenith(LR, **own, **kwargs)
    yield lambda **own: ZenithWrapper(keras.optimizers.SGD(LR, **kwargs), **own)


def spoiled(step, value):
    first, *rest = gradients(step)
    first[0, 1] = value
    return tensors([first, *rest])


def without(optimizer, own, *names):
    """Everything but the named fields of the schedule, in copies."""
    left_out = [getattr(optimizer._state.variables, name) for name in names]
    return arrays(
        variable
        for variable in [*own, *optimizer.variables]
        if not any(variable is other for other in left_out)
    )


@pytest.mark.parametrize("kwargs", KEYWORDS.values(), ids=KEYWORDS.keys())
def test_skip_leaves_everything_as_it_was(kwargs):
    for make in makers(kwargs):
        own = variables()
        own[1].constraint = keras.constraints.NonNeg()
        optimizer = make(window=2)
        for step in range(3):
            apply(optimizer, own, step)
        own[1].assign(-np.ones(4, "float32"))  # a constraint that is applied would be seen
        for skipped, value in enumerate((np.nan, np.inf, -np.inf), start=1):
            before = without(optimizer, own, "skipped")
            optimizer.apply(spoiled(3, value), own)
            assert_same(without(optimizer, own, "skipped"), before)
            assert plain(optimizer.zenith_state)["skipped"] == skipped
            assert int(optimizer.iterations) == 3


def test_a_run_with_skipped_steps_goes_on_as_one_without():
    kwargs = {"momentum": 0.9, "weight_decay": 0.1}
    for make in makers(kwargs):
        runs = []
        for bad in (set(), {1, 5}):
            own, optimizer = variables(), make(window=3)
            for step in range(8):
                if step in bad:
                    optimizer.apply(spoiled(step, np.nan), own)
                apply(optimizer, own, step)
            runs.append(without(optimizer, own, "skipped"))
        assert_same(*runs)
        assert scale(optimizer) == pytest.approx(
            scales([norm(gradients(step)) for step in range(8)], 3)[-1], rel=2e-6
        )


def test_propagate_is_sgd_and_guards_the_schedule():
    kwargs = {"momentum": 0.9}
    for make in makers(kwargs):
        own, theirs = variables(), variables()
        optimizer, sgd = make(window=9, nonfinite="propagate"), keras.optimizers.SGD(LR, **kwargs)
        for step in range(3):
            apply(optimizer, own, step)
            apply(sgd, theirs, step)
        before = plain(optimizer.zenith_state)
        for each, its in ((optimizer, own), (sgd, theirs)):
            each.apply(spoiled(3, np.nan), its)
        after = plain(optimizer.zenith_state)
        assert after.pop("skipped") == before.pop("skipped") + 1
        assert_same(after.values(), before.values())
        assert_same(arrays(own), arrays(theirs))
        assert np.isnan(arrays(own)[0]).sum() == 1
        host = getattr(optimizer, "inner_optimizer", optimizer)
        assert_same(arrays(host.momentums), arrays(sgd.momentums))


# --- LossScaleOptimizer ---------------------------------------------------------------------------


def test_a_step_that_the_loss_scaler_drops_changes_no_field_of_the_schedule():
    for make in makers({"momentum": 0.5}):
        own, theirs = variables(), variables()
        inner, bare = make(window=2), make(window=2)
        scaler = keras.optimizers.LossScaleOptimizer(inner, initial_scale=16.0)
        scaled, plainly = stepper(scaler, own), stepper(bare, theirs)
        for step in range(3):
            scaled(tensors([16 * gradient for gradient in gradients(step)]))
            plainly(tensors(gradients(step)))
        assert_close(everything(inner, own), everything(bare, theirs))
        assert scale(inner) < 1
        before = everything(inner, own)
        for value in (np.inf, np.nan):
            scaled(spoiled(3, value))
            assert_same(everything(inner, own), before)
        assert float(scaler.dynamic_scale) == 4.0
        scaled(tensors([4 * gradient for gradient in gradients(4)]))
        plainly(tensors(gradients(4)))
        assert_close(
            [*plain(inner.zenith_state).values(), *arrays(own)],
            [*plain(bare.zenith_state).values(), *arrays(theirs)],
        )


def test_mixed_float16_with_an_infinite_step():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = dense_model(seed=1)
        model.compile(optimizer=Zenith(LR, window=2, momentum=0.9), loss="mse")
    finally:
        keras.config.set_dtype_policy("float32")
    scaler = model.optimizer
    assert isinstance(scaler, keras.optimizers.LossScaleOptimizer)
    x, y = np.ones((3, 4, 3), "float32"), np.zeros((3, 4, 1), "float32")
    y[1] = 1e4  # times the loss scale, its gradient passes the largest float16
    losses = [model.train_on_batch(*batch) for batch in zip(x[:1], y[:1], strict=True)]
    before = everything(scaler.inner_optimizer, model.trainable_variables)
    assert plain(scaler.inner_optimizer.zenith_state)["count"] == 1
    model.train_on_batch(x[1], y[1])
    assert_same(everything(scaler.inner_optimizer, model.trainable_variables), before)
    assert float(scaler.dynamic_scale) == 2.0**14
    model.train_on_batch(x[2], y[2])
    state = plain(scaler.inner_optimizer.zenith_state)
    assert (state["count"], state["skipped"]) == (2, 0)
    assert np.isfinite(losses).all()
    # The norms are those of the unscaled gradient, which float32 gives to the precision of float16.
    exact = dense_model(seed=1)
    exact.compile(optimizer=Zenith(LR, window=2, momentum=0.9), loss="mse")
    for i in (0, 2):
        exact.train_on_batch(x[i], y[i])
    wanted = plain(exact.optimizer.zenith_state)
    np.testing.assert_allclose(state["norms"], wanted["norms"], rtol=1e-2)


# --- gradient_accumulation_steps ------------------------------------------------------------------


ACCUMULATED = {
    "momentum": {"momentum": 0.9, "use_ema": True, "ema_momentum": 0.0},
    "clipping": {"global_clipnorm": 0.3, "weight_decay": 0.1},
}


@pytest.mark.parametrize("kwargs", ACCUMULATED.values(), ids=ACCUMULATED.keys())
def test_accumulated_gradients_are_one_update(kwargs):
    size, order = 3, list(reversed(range(12)))
    means = [
        [np.mean(g, axis=0) for g in zip(*map(gradients, order[i : i + size]), strict=True)]
        for i in range(0, 12, size)
    ]
    wanted = scales(map(norm, means), 2)
    assert len(set(wanted)) > 2
    for make in makers({"gradient_accumulation_steps": size, **kwargs}):
        own, big, theirs = variables(), Zenith(LR, window=2, **kwargs), variables()
        optimizer = make(window=2)
        step_both = stepper(optimizer, own), stepper(big, theirs)
        for i, step in enumerate(order):
            step_both[0](tensors(gradients(step)))
            updates = (i + 1) // size
            assert plain(optimizer.zenith_state)["count"] == updates
            assert int(optimizer.iterations) == updates
            if (i + 1) % size == 0:
                step_both[1](tensors(means[updates - 1]))
                assert scale(optimizer) == pytest.approx(wanted[updates - 1], rel=2e-6)
                norms = plain(optimizer.zenith_state)["norms"]
                seen = norm(means[updates - 1])
                assert norms[(updates - 1) % 2] == pytest.approx(seen, rel=2e-6)
                assert_close(arrays(own), arrays(theirs), 2e-6)


def test_a_bad_micro_batch_drops_its_update_and_no_other():
    kwargs = {"momentum": 0.9, "gradient_accumulation_steps": 2}
    for make in makers(kwargs):
        runs = []
        for bad in (False, True):
            own, optimizer = variables(), make(window=2)
            step_it = stepper(optimizer, own)
            for step in range(8):
                if bad and step == 4:
                    before = arrays(own)
                    step_it(spoiled(8, np.nan))
                    step_it(tensors(gradients(9)))
                    assert_same(arrays(own), before)
                    assert plain(optimizer.zenith_state)["skipped"] == 1
                step_it(tensors(gradients(step)))
            state = plain(optimizer.zenith_state)
            assert state.pop("skipped") == bad
            assert state["count"] == 4
            runs.append([*arrays(own), *state.values()])
        assert_same(*runs)
        assert scale(optimizer) != 1
