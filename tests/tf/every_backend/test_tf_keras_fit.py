"""`fit` in each of its modes, the user's learning rate, and the callbacks that use it."""

import csv
from functools import partial

import keras
import numpy as np
import pytest
from _keras import (
    BACKEND,
    apply,
    arrays,
    assert_close,
    batches,
    dense_model,
    fit,
    gradients,
    norm,
    plain,
    scale,
    tensors,
    variables,
)
from _reference import ROUNDING, scales

from zenith.tf import Zenith, ZenithLogger, ZenithWrapper

if BACKEND == "torch":
    import torch

LR = 0.1
WINDOW = 3
STEPS = range(9)


# --- fit ------------------------------------------------------------------------------------------


def linear_model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0], [-2.0], [0.5]])])
    return model


def linear_run(momentum):
    """The run of `fit` with a linear model, in float64: the norms, the scales and the weights."""
    weights, buffer, norms = np.array([[1.0], [-2.0], [0.5]]), np.zeros((3, 1)), []
    for x, y in zip(*map(np.float64, batches(len(STEPS))), strict=True):
        gradient = 2 / len(x) * x.T @ (x @ weights - y)
        norms.append(norm([gradient]))
        buffer = momentum * buffer - LR * scales(norms, WINDOW)[-1] * gradient
        weights = weights + buffer
    return norms, scales(norms, WINDOW), weights


@pytest.mark.parametrize(
    "mode",
    [{"jit_compile": False}, {"jit_compile": True}, {"run_eagerly": True}, None],
    ids=["fit", "jit_compile", "run_eagerly", "train_on_batch"],
)
def test_each_way_to_train_follows_algorithm_1(mode, monkeypatch):
    if (
        BACKEND == "torch"
    ):  # there `jit_compile` is torch.compile: trace, but spare the C++ compiler
        monkeypatch.setattr("torch.compile", partial(torch.compile, backend="eager"))
    norms, wanted, weights = linear_run(momentum=0.5)
    assert wanted[-1] < 0.9
    model = linear_model()
    model.compile(optimizer=Zenith(LR, window=WINDOW, momentum=0.5), loss="mse", **(mode or {}))
    if mode is None:
        for i, batch in enumerate(zip(*batches(len(STEPS)), strict=True)):
            model.train_on_batch(*batch)
            assert scale(model.optimizer) == pytest.approx(wanted[i], rel=ROUNDING)
    else:
        fit(model, STEPS)
    state = plain(model.optimizer.zenith_state)
    np.testing.assert_allclose(state["norms"], norms[-WINDOW:], rtol=ROUNDING)  # 9 % 3 == 0
    assert state["scale"] == pytest.approx(wanted[-1], rel=ROUNDING)
    assert (state["count"], state["skipped"]) == (9, 0)
    assert_close(model.get_weights(), [weights], ROUNDING)


def test_accumulation_in_fit_is_the_big_batch_and_a_bad_micro_batch_drops_its_update():
    x, y = batches(18)
    bad = x.copy()
    bad[7] = np.nan  # of the third update
    good = [i for i in range(18) if not 6 <= i < 9]
    kwargs = {"momentum": 0.9, "gradient_accumulation_steps": 3}
    big = dense_model()
    big.compile(optimizer=Zenith(LR, window=2, momentum=0.9), loss="mse")
    for i in range(0, 15, 3):
        rows = good[i : i + 3]
        big.train_on_batch(np.concatenate(x[rows]), np.concatenate(y[rows]))
    wanted = plain(big.optimizer.zenith_state)
    assert wanted["scale"] < 0.9
    for optimizer in (
        Zenith(LR, window=2, **kwargs),
        ZenithWrapper(keras.optimizers.SGD(LR, **kwargs), window=2),
    ):
        model = dense_model()
        model.compile(optimizer=optimizer, loss="mse")
        model.fit(np.concatenate(bad), np.concatenate(y), batch_size=4, shuffle=False, verbose=0)
        state = plain(optimizer.zenith_state)
        assert (state["count"], state["skipped"], int(optimizer.iterations)) == (5, 1, 5)
        np.testing.assert_allclose(state["norms"], wanted["norms"], rtol=ROUNDING)
        np.testing.assert_allclose(state["scale"], wanted["scale"], rtol=ROUNDING)
        assert_close(model.get_weights(), big.get_weights(), ROUNDING)


def test_a_bad_batch_in_a_compiled_step_changes_nothing():
    model = dense_model()
    model.layers[1].kernel.constraint = keras.constraints.MaxNorm(1.0)
    optimizer = Zenith(LR, window=2, momentum=0.9, use_ema=True, weight_decay=0.1)
    model.compile(optimizer=optimizer, loss="mse")
    x, y = batches(4)
    for i in range(3):
        model.train_on_batch(x[i], y[i])
    before = {v.path: np.array(v) for v in [*model.variables, *optimizer.variables]}
    model.train_on_batch(np.full_like(x[3], np.nan), y[3])
    changed = {}
    for v in [*model.variables, *optimizer.variables]:
        if not np.array_equal(np.array(v), before[v.path]):
            changed[v.path.split("/")[-1]] = (int(before[v.path]), int(np.array(v)))
    assert changed == {"zenith_skipped": (0, 1)}


# --- the user's rate ------------------------------------------------------------------------------


def rates_of(kind):
    """A rate, and what it is at each step."""
    schedules = keras.optimizers.schedules
    if kind == "callable":
        return lambda: 0.2, [0.2] * 9
    if kind == "warm-up":
        return schedules.PolynomialDecay(0.0, 4, 0.2), [0.0, 0.05, 0.1, 0.15] + [0.2] * 5
    cosine = [0.1 * (1 + np.cos(np.pi * min(step / 6, 1.0))) for step in range(9)]
    return schedules.CosineDecay(0.2, 6), cosine


@pytest.mark.parametrize("kind", ["warm-up", "cosine", "callable"])
def test_a_schedule_or_a_callable_is_multiplied(kind):
    wanted = scales([norm(gradients(step)) for step in range(9)], WINDOW)
    for make in (
        lambda rate: Zenith(rate, window=WINDOW),
        lambda rate: ZenithWrapper(keras.optimizers.SGD(rate), window=WINDOW),
    ):
        rate, rates = rates_of(kind)
        optimizer, own = make(rate), variables()
        weights = [np.float64(a) for a in arrays(own)]
        for step in range(9):
            assert float(optimizer.learning_rate) == pytest.approx(rates[step], abs=1e-7)
            apply(optimizer, own, step)
            assert scale(optimizer) == pytest.approx(wanted[step], rel=2e-6)
            for i, gradient in enumerate(gradients(step)):
                weights[i] -= rates[step] * wanted[step] * gradient
        assert_close(arrays(own), weights)
        next_rate = float(optimizer.learning_rate)
        assert float(optimizer.effective_learning_rate) == pytest.approx(
            next_rate * wanted[-1], rel=2e-6
        )


def test_the_rate_can_be_read_and_written_and_is_never_touched():
    own = variables()
    for optimizer in (Zenith(0.25), ZenithWrapper(keras.optimizers.SGD(0.25))):
        assert float(optimizer.effective_learning_rate) == 0.25  # before it is built, too
        assert float(optimizer.learning_rate) == 0.25
    optimizer = Zenith(0.25, window=1)
    for step in range(3):
        apply(optimizer, own, step)
    assert float(optimizer.learning_rate) == 0.25
    optimizer.learning_rate = 2.0
    assert float(optimizer.learning_rate) == 2.0
    assert float(optimizer.effective_learning_rate) == pytest.approx(2 * scale(optimizer))
    assert scale(optimizer) < 1
    optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    assert float(optimizer.learning_rate) == 0.5 / 8


@pytest.mark.parametrize("kind", ["callable", "schedule"])
def test_a_rate_of_integers_is_scaled(kind):
    """Scales of 1, 2/4 and 1/4: as integers they would be 0, and nothing would move."""

    class Steps(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return keras.ops.where(step < 100, 1, 0)

    for make in (
        lambda rate: Zenith(rate, window=1),
        lambda rate: ZenithWrapper(keras.optimizers.SGD(rate), window=1),
    ):
        optimizer, own = (
            make((lambda: 1) if kind == "callable" else Steps()),
            [keras.Variable([0.0])],
        )
        assert float(optimizer.effective_learning_rate) == 1.0
        for gradient, place in ((4.0, -4.0), (2.0, -5.0), (1.0, -5.25)):
            optimizer.apply(tensors([[gradient]]), own)
            assert arrays(own)[0].tolist() == [place]
        assert float(optimizer.effective_learning_rate) == 0.25
        assert float(optimizer.zenith_metrics()["lr"]) == 0.25


# --- callbacks ------------------------------------------------------------------------------------

EPOCHS = 6


def fit_epochs(optimizer, callbacks):
    """Fit one batch an epoch, so that the logs show every step."""
    model = dense_model()
    model.compile(optimizer=optimizer, loss="mse")
    x, y = batches(1)
    history = model.fit(x[0], y[0], epochs=EPOCHS, verbose=0, callbacks=callbacks)
    return history.history


def test_callbacks_share_the_rate_with_zenith(tmp_path):
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = fit_epochs(Zenith(0.5, window=2), [halve, ZenithLogger(), log])
    assert history["learning_rate"] == [0.5 / 2**i for i in range(EPOCHS)]
    assert min(history["scale"]) < 0.95
    assert history["scale"] == pytest.approx(scales(history["grad_norm"], 2), rel=2e-6)
    products = np.multiply(history["learning_rate"], history["scale"])
    assert history["effective_learning_rate"] == pytest.approx(products, rel=1e-6)
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    for name in ("grad_norm", "scale", "effective_learning_rate", "learning_rate"):
        assert [float(row[name]) for row in rows] == pytest.approx(history[name], rel=1e-6)


def test_callbacks_reach_through_the_wrapper_and_the_loss_scaler():
    reduce = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    inner = ZenithWrapper(keras.optimizers.Adam(0.5), window=2)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
    history = fit_epochs(optimizer, [ZenithLogger(), reduce])
    # The log of an epoch shows the rate in it; the first plateau is seen after the second epoch.
    assert history["learning_rate"] == [0.5, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert float(inner.inner_optimizer.learning_rate) == 0.015625
    assert history["scale"] == pytest.approx(scales(history["grad_norm"], 2), rel=2e-6)
    products = np.multiply(history["learning_rate"], history["scale"])
    assert history["effective_learning_rate"] == pytest.approx(products, rel=1e-6)


def test_the_logger_refuses_another_optimizer():
    with pytest.raises(TypeError, match=r"must be a Zenith or a ZenithWrapper, got SGD"):
        fit_epochs(keras.optimizers.SGD(), [ZenithLogger()])
