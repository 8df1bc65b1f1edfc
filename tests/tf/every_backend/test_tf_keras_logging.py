"""`ZenithLogger` with sinks: the numbers of every step, on each backend of Keras."""

import warnings

import keras
import numpy as np
import pytest
from _keras import BACKEND, batches
from _reference import scales

from zenith import ZenithWarning
from zenith.logs import MetricLog
from zenith.tf import Zenith, ZenithLogger, ZenithSchedule, ZenithWrapper

WINDOW = 3
STEPS = 9


def model(optimizer):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    network.set_weights([np.array([[1.0], [-2.0], [0.5]])])
    network.compile(optimizer, loss="mse")
    return network


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: Zenith(0.1, window=WINDOW),
        lambda: ZenithWrapper(keras.optimizers.SGD(0.1), window=WINDOW),
        lambda: keras.optimizers.LossScaleOptimizer(Zenith(0.1, window=WINDOW), initial_scale=8.0),
    ],
    ids=["Zenith", "wrapper", "loss scale"],
)
def test_a_sink_gets_every_step(optimizer):
    seen = []
    logger = ZenithLogger(lambda *row: seen.append(row), every=4)
    x, y = map(np.concatenate, batches(STEPS))
    network = model(optimizer())
    fit = {"batch_size": len(x) // STEPS, "shuffle": False, "verbose": 0}
    network.fit(x, y, epochs=1, callbacks=[logger], **fit)
    network.fit(x, y, epochs=1, callbacks=[logger], **fit)  # goes on counting
    assert [step for step, _ in seen] == list(range(1, 2 * STEPS + 1))
    norms = [numbers["grad_norm"] for _, numbers in seen]
    assert len(set(norms)) == len(norms)
    wanted = scales(norms, WINDOW)
    assert [numbers["scale"] for _, numbers in seen] == pytest.approx(wanted, rel=1e-6)
    rates = [0.1 * scale for scale in wanted]
    assert [numbers["lr"] for _, numbers in seen] == pytest.approx(rates, rel=1e-6)
    assert [numbers["count"] for _, numbers in seen] == list(range(1, 2 * STEPS + 1))


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"gradient_accumulation_steps": 3}, [1, 2, 3]),
        *(
            [({"steps_per_execution": 3}, [3, 6, 9])] if BACKEND != "torch" else []
        ),  # which has none
    ],
)
def test_a_step_is_an_update(options, steps):
    seen = []
    accumulation = {k: v for k, v in options.items() if k.startswith("gradient")}
    network = model(Zenith(0.1, window=2, **accumulation))
    execution = {k: v for k, v in options.items() if k.startswith("steps")}
    network.compile(network.optimizer, loss="mse", **execution)
    x, y = map(np.concatenate, batches(STEPS))
    fit = {"batch_size": len(x) // STEPS, "shuffle": False, "verbose": 0}
    network.fit(x, y, callbacks=[ZenithLogger(lambda *row: seen.append(row))], **fit)
    assert [step for step, _ in seen] == steps
    assert [numbers["count"] for _, numbers in seen] == steps


def fit(network, count, *callbacks, bad=(), epochs=1, start=0):
    """Fit `count` batches an epoch, those in `bad` with a NaN."""
    x, y = (a[start:].copy() for a in batches(start + count))
    x[list(bad)] = np.nan
    x, y = map(np.concatenate, (x, y))
    options = {"batch_size": len(x) // count, "shuffle": False, "verbose": 0, "epochs": epochs}
    return network.fit(x, y, callbacks=list(callbacks), **options).history


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda sgd: ZenithWrapper(keras.optimizers.SGD(**sgd), window=1),
        lambda sgd: keras.optimizers.LossScaleOptimizer(Zenith(window=1, **sgd), initial_scale=8.0),
    ],
    ids=["wrapper", "loss scale"],
)
def test_accumulation_inside_of_a_wrapper_is_seen(optimizer):
    seen = []
    network = model(optimizer({"learning_rate": 0.1, "gradient_accumulation_steps": 2}))
    logger = ZenithLogger(lambda step, numbers: seen.append((step, int(numbers["count"]))))
    fit(network, 5, logger)  # which ends between two updates
    fit(network, 3, logger)
    assert seen == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_no_step_is_numbered_twice():
    seen = []
    network = model(Zenith(0.1, window=2))
    for bad in ((1,), (0, 2), ()):
        logger = ZenithLogger(
            lambda step, numbers: seen.append((step, numbers["count"], numbers["skipped"]))
        )
        fit(network, 4, logger, bad=bad)
    counts = [1, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9]
    assert seen == [(i, count, i - count) for i, count in enumerate(counts, start=1)]


def test_a_step_that_the_loss_scaler_drops_has_no_row():
    seen = []
    scaler = keras.optimizers.LossScaleOptimizer(Zenith(0.1, window=2), initial_scale=8.0)
    logger = ZenithLogger(lambda step, numbers: seen.append((step, numbers["count"])))
    fit(model(scaler), 5, logger, bad=(1, 2))
    assert seen == [(1, 1), (2, 2), (3, 3)]


def test_the_rate_of_an_epoch_is_that_of_its_last_step():
    halving = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    logger = ZenithLogger(prefix="my_")
    history = fit(model(Zenith(halving, window=2)), 1, logger, epochs=3)
    rates = [0.5 * 0.5**step * scale for step, scale in enumerate(history["my_scale"])]
    assert history["my_effective_learning_rate"] == pytest.approx(rates, rel=1e-6)


def test_a_schedule_is_logged():
    seen = []
    schedule = ZenithSchedule(0.5, window=1)
    with MetricLog(lambda step, numbers: seen.append(numbers)) as log:
        for norm in (4.0, 3.0):
            schedule.observe(grad_norm=norm)
            log(schedule)
    assert [numbers["scale"] for numbers in seen] == [1.0, 0.75]
    assert [numbers["lr"] for numbers in seen] == [0.5, 0.375]


def test_wrong_arguments_are_refused_at_once():
    with pytest.raises(TypeError, match="`sinks` must be functions"):
        ZenithLogger("zenith.csv")
    with pytest.raises(ValueError, match="`every` must be an integer >= 1, got 0"):
        ZenithLogger(every=0)


# --- never silently off


def warned(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    return [str(each.message) for each in caught if each.category is ZenithWarning]


@pytest.mark.parametrize(
    ("optimizer", "epochs", "short"),
    [
        (lambda: Zenith(0.1, window=8), 2, True),
        (lambda: Zenith(0.1, window=7), 2, False),
        (lambda: Zenith(0.1, window=4, gradient_accumulation_steps=2), 2, True),
        (lambda: Zenith(0.1, window=3, gradient_accumulation_steps=2), 2, False),
        (
            lambda: ZenithWrapper(keras.optimizers.SGD(gradient_accumulation_steps=2), window=4),
            2,
            True,
        ),
    ],
)
def test_a_fit_no_longer_than_the_window_is_said_once(optimizer, epochs, short):
    network = model(optimizer())
    first = warned(lambda: fit(network, 4, ZenithLogger(), epochs=epochs))
    assert len(first) == short
    if short:
        inner = getattr(network.optimizer, "inner_optimizer", network.optimizer)
        steps = 8 // (inner.gradient_accumulation_steps or 1)
        window = network.optimizer.window
        assert f"the run of {steps} steps is no longer than the `window` of {window}" in first[0]
    assert not warned(lambda: fit(network, 4, ZenithLogger(), epochs=epochs))


def test_a_fit_that_goes_on_with_a_full_window_is_long_enough():
    network = model(Zenith(0.1, window=4))
    assert not warned(lambda: fit(network, 5, ZenithLogger()))
    assert not warned(lambda: fit(network, 2, ZenithLogger()))


def generator(count):
    yield from zip(*batches(count), strict=True)


def test_where_the_length_is_not_known_it_is_said_at_the_end():
    network = model(Zenith(0.1, window=5))
    (text,) = warned(lambda: network.fit(generator(4), verbose=0, callbacks=[ZenithLogger()]))
    assert "ended after 4 gradient norms" in text
    network = model(Zenith(0.1, window=4))
    assert not warned(lambda: network.fit(generator(4), verbose=0, callbacks=[ZenithLogger()]))


def test_norms_that_were_clipped_before_are_said_once():
    """As by a `train_step` of the user's, or by gradients that a layer clips."""

    def run(callbacks, epochs=25):
        network.fit(x, y, epochs=epochs, verbose=0, callbacks=callbacks)

    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    network.compile(Zenith(1e-3, window=2), loss="mae")  # its gradient is 1 for ever
    x, y = np.ones((4, 1), "float32"), np.full((4, 1), 100.0, "float32")
    (text,) = warned(lambda: run([ZenithLogger()]))
    assert "gradient norms are all 1" in text
    assert "`global_clipnorm`" in text
    assert not warned(lambda: run([ZenithLogger(lambda *row: None)]))
