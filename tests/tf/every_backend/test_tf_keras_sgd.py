"""Zenith is keras.optimizers.SGD while the window fills, and Algorithm 1 from there on."""

import math
import re
from functools import partial

import keras
import numpy as np
import pytest
from _keras import (
    apply,
    arrays,
    assert_close,
    assert_same,
    everything,
    gradients,
    norm,
    plain,
    scale,
    tensors,
    variables,
)
from _reference import scales

import zenith
from zenith.tf import Zenith, ZenithSchedule

WINDOW = 4
STEPS = 14
LR = 0.1
NORMS = [norm(gradients(step)) for step in range(STEPS)]
SCALES = scales(NORMS, WINDOW)

# --- keras.optimizers.SGD while the window fills --------------------------------------------------

CASES = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "decay": {"momentum": 0.5, "weight_decay": 0.1},
    "ema": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "clipnorm": {"clipnorm": 0.5},
    "global_clipnorm": {"global_clipnorm": 0.5, "momentum": 0.9},
    "clipvalue": {"clipvalue": 0.1, "weight_decay": 0.1},
    "loss_scale_factor": {"loss_scale_factor": 4.0},
}


@pytest.mark.parametrize("kwargs", CASES.values(), ids=CASES.keys())
def test_equals_sgd_while_the_window_fills(kwargs):
    ours, theirs = variables(), variables()
    optimizer, sgd = Zenith(LR, window=6, **kwargs), keras.optimizers.SGD(LR, **kwargs)
    for step in range(6):
        apply(optimizer, ours, step)
        apply(sgd, theirs, step)
        assert_same(arrays(ours), arrays(theirs))
        assert_same(arrays(optimizer.variables[: len(sgd.variables)]), arrays(sgd.variables))
    assert scale(optimizer) == 1.0
    assert optimizer.zenith_state.count == 6
    optimizer.finalize_variable_values(ours)
    sgd.finalize_variable_values(theirs)
    assert_same(arrays(ours), arrays(theirs))


def test_constraints_unused_and_frozen_variables_are_as_in_sgd():
    runs = []
    for make in (Zenith, keras.optimizers.SGD):
        own = variables()
        own[0].constraint = keras.constraints.UnitNorm()
        unused, frozen = keras.Variable([1.0, 2.0]), keras.Variable([3.0], trainable=False)
        optimizer = make(LR, momentum=0.9)
        for step in range(3):
            with pytest.warns(UserWarning, match="Gradients do not exist"):
                optimizer.apply(tensors([*gradients(step), None]), [*own, unused])
        runs.append(arrays([*own, unused, frozen]))
    assert_same(*runs)
    np.testing.assert_array_equal(runs[0][3], [3.0])
    np.testing.assert_allclose(np.linalg.norm(runs[0][0], axis=0), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(runs[0][2], [1.0, 2.0])


def test_apply_gradients_and_exclusion_from_decay_are_as_in_sgd():
    runs = []
    for make in (Zenith, keras.optimizers.SGD):
        own = variables()
        optimizer = make(LR, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_list=[own[0]])
        for step in range(3):
            optimizer.apply_gradients(zip(tensors(gradients(step)), own, strict=True))
        runs.append(arrays(own))
    assert_same(*runs)


# --- Algorithm 1 ----------------------------------------------------------------------------------


def numpy_sgd(etas, momentum=0.0, nesterov=False, weight_decay=0.0, global_clipnorm=math.inf):
    """Keras' SGD in float64, with the given factor on the rate of each step."""
    weights = [np.float64(a) for a in arrays(variables())]
    buffers = [np.zeros_like(w) for w in weights]
    for step, eta in enumerate(etas):
        rate, clip = LR * eta, min(1.0, global_clipnorm / NORMS[step])
        for i, gradient in enumerate(gradients(step)):
            move = rate * clip * np.float64(gradient)
            weights[i] = weights[i] - rate * weight_decay * weights[i]
            buffers[i] = momentum * buffers[i] - move
            weights[i] = weights[i] + (momentum * buffers[i] - move if nesterov else buffers[i])
    return weights


TRAJECTORIES = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "decoupled decay at the rate in force": {"weight_decay": 0.5},
    "norm before clipping": {"global_clipnorm": 0.25, "momentum": 0.5},
}


@pytest.mark.parametrize("kwargs", TRAJECTORIES.values(), ids=TRAJECTORIES.keys())
def test_follows_algorithm_1(kwargs):
    own = variables()
    optimizer = Zenith(LR, window=WINDOW, **kwargs)
    state = zenith.init(WINDOW)
    for step in range(STEPS):
        apply(optimizer, own, step)
        assert scale(optimizer) == pytest.approx(SCALES[step], rel=2e-6)
        assert float(optimizer.learning_rate) == np.float32(LR)
        rate = float(optimizer.effective_learning_rate)
        assert rate == pytest.approx(LR * SCALES[step], rel=2e-6)
        state = zenith.update(state, NORMS[step])
    assert len({round(s, 3) for s in SCALES}) > 6  # the norm of another step would be seen
    assert_close(arrays(own), numpy_sgd(SCALES, **kwargs))
    ours = plain(optimizer.zenith_state)
    for name, value in state._asdict().items():
        np.testing.assert_allclose(ours[name], value, rtol=2e-6, err_msg=name)


@pytest.mark.parametrize("clip", [{"clipnorm": 0.1}, {"clipvalue": 0.01}])
def test_the_norm_is_taken_before_clipping(clip):
    own = variables()
    optimizer = Zenith(LR, window=2, **clip)
    for step in range(5):
        apply(optimizer, own, step)
    assert scale(optimizer) == pytest.approx(scales(NORMS[:5], 2)[-1], rel=2e-6)
    np.testing.assert_allclose(plain(optimizer.zenith_state)["norms"][0], NORMS[4], rtol=2e-6)


def test_the_loss_scale_factor_is_taken_out_of_the_norm():
    own = variables()
    optimizer = Zenith(LR, window=1, loss_scale_factor=8.0)
    optimizer.apply(tensors([8 * gradient for gradient in gradients(0)]), own)
    assert float(optimizer.zenith_state.mean) == pytest.approx(NORMS[0], rel=2e-6)


def test_two_steps_by_hand():
    x = keras.Variable([3.0, 4.0])
    optimizer = Zenith(0.5, window=2, momentum=0.5)
    seen = []
    for gradient in ([3.0, 4.0], [3.0, 4.0], [0.6, 0.8]):
        optimizer.apply(tensors([gradient]), [x])
        seen.append((float(optimizer.effective_learning_rate), *arrays([x])[0].tolist()))
    # Rates .5, .5 and .5 * 3/5; buffers -(1.5, 2), -(2.25, 3), -(1.125 + .18, 1.5 + .24).
    assert seen == [
        (0.5, 1.5, 2.0),
        (0.5, -0.75, -1.0),
        (pytest.approx(0.3), pytest.approx(-2.055), pytest.approx(-2.74)),
    ]


# --- the norm that the caller has -----------------------------------------------------------------


def test_the_callers_norm_is_used():
    own = variables()
    optimizer = Zenith(LR, window=1)
    apply(optimizer, own, 0, grad_norm=8.0)
    apply(optimizer, own, 1, grad_norm=keras.ops.convert_to_tensor(np.float64(2.0)))
    assert zenith.to_dict(optimizer.zenith_state) == {
        "version": 1,
        "norms": [2.0],
        "count": 2,
        "mean": 2.0,
        "zenith": 8.0,
        "scale": 0.25,
        "skipped": 0,
    }
    weights = [np.float64(a) for a in arrays(variables())]
    for gradient, rate in ((gradients(0), LR), (gradients(1), LR / 4)):
        weights = [w - rate * g for w, g in zip(weights, gradient, strict=True)]
    assert_close(arrays(own), weights)


def test_the_callers_norm_decides_what_is_finite():
    own = variables()
    optimizer = Zenith(LR, window=1)
    before = arrays(own)
    apply(optimizer, own, 0, grad_norm=float("nan"))
    assert_same(arrays(own), before)
    assert plain(optimizer.zenith_state)["skipped"] == 1


@pytest.mark.parametrize("negative", [-1, -1.0, np.float32(-1.0), np.array(-1.0)])
def test_a_negative_norm_is_refused_where_it_is_known_and_else_skipped(negative):
    own, optimizer, schedule = variables(), Zenith(LR), ZenithSchedule(LR)
    for call in (partial(apply, optimizer, own, 0), schedule.observe):
        with pytest.raises(ValueError, match="`grad_norm` must be >= 0, got "):
            call(grad_norm=negative)
        call(grad_norm=tensors([negative])[0])
    for each in (optimizer, schedule):
        state = plain(each.zenith_state)
        assert (state["count"], state["skipped"]) == (0, 1)


def test_a_norm_that_is_no_scalar_is_refused():
    own = variables()
    optimizer = Zenith(LR)
    with pytest.raises(ValueError, match=re.escape("`grad_norm` must be a scalar, got shape (1,)")):
        apply(optimizer, own, 0, grad_norm=np.ones(1, "float32"))
    assert plain(optimizer.zenith_state)["count"] == 0


# --- steps that do not count ----------------------------------------------------------------------


def test_a_norm_of_0_at_a_rate_of_0_records_nothing():
    own = variables()
    optimizer = Zenith(0.0, window=2)
    nothing = [np.zeros_like(gradient) for gradient in gradients(0)]
    optimizer.apply(tensors(nothing), own)
    assert plain(optimizer.zenith_state)["count"] == 0
    apply(optimizer, own, 0)  # a real norm at a rate of 0 counts
    assert plain(optimizer.zenith_state)["count"] == 1
    optimizer.learning_rate = LR
    optimizer.apply(tensors(nothing), own)  # and a norm of 0 at a real rate
    state = plain(optimizer.zenith_state)
    assert state["count"] == 2
    assert state["mean"] == pytest.approx(NORMS[0] / 2, rel=2e-6)
    assert int(optimizer.iterations) == 3


def test_only_gradients_of_0_leave_the_scale_at_1():
    own = variables()
    optimizer = Zenith(LR, window=2)
    for _ in range(3):
        optimizer.apply(tensors([np.zeros_like(gradient) for gradient in gradients(0)]), own)
    state = plain(optimizer.zenith_state)
    assert (state["count"], state["zenith"], state["scale"]) == (3, 0, 1)


def test_no_gradient_at_all_is_kerases_own_error():
    own = variables()
    optimizer, sgd = Zenith(LR), keras.optimizers.SGD(LR)
    messages = []
    for each in (optimizer, sgd):
        with pytest.raises(ValueError, match="No gradients provided for any variable") as error:
            each.apply([None, None], own)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    before = everything(optimizer, own)
    optimizer.apply([])
    assert_same(everything(optimizer, own), before)
    assert plain(optimizer.zenith_state)["count"] == 0


def test_gradients_that_do_not_match_are_kerases_own_error():
    own = variables()
    optimizer = Zenith(LR)
    optimizer.build(own)
    with pytest.raises(ValueError, match=r"must match `optimizer.variables` one-to-on"):
        optimizer.apply(tensors(gradients(0)[:1]))
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply(tensors(gradients(0)), variables())
    assert plain(optimizer.zenith_state)["count"] == 0


# --- precision ------------------------------------------------------------------------------------


def test_float16_gradients_whose_norm_passes_65504():
    own = [keras.Variable(np.ones(4), dtype="float16")]
    optimizer = Zenith(2.0**-20, window=1)
    optimizer.apply(tensors([np.full(4, 60000.0)], "float16"), own)
    state = plain(optimizer.zenith_state)
    assert (state["norms"][0], state["scale"], state["skipped"]) == (120000.0, 1.0, 0)
    assert state["norms"].dtype == np.float32
    optimizer.apply(tensors([np.full(4, 30000.0)], "float16"), own)
    assert scale(optimizer) == 0.5


def test_a_million_equal_bfloat16_gradients():
    own = [keras.Variable(np.ones(1_000_000), dtype="bfloat16")]
    optimizer = Zenith(LR, window=1)
    optimizer.apply(tensors([np.full(1_000_000, 0.01, "float32")], "bfloat16"), own)
    entry = float(tensors([[0.01]], "bfloat16")[0][0])
    assert float(optimizer.zenith_state.mean) == pytest.approx(1000 * entry, rel=1e-3)


def test_a_sum_of_squares_that_overflows_counts_as_infinite():
    own = [keras.Variable(np.ones(2), dtype="float32")]
    optimizer = Zenith(LR, window=1)
    optimizer.apply(tensors([[1e30, 1e30]]), own)
    np.testing.assert_array_equal(arrays(own)[0], 1.0)
    assert plain(optimizer.zenith_state)["skipped"] == 1
