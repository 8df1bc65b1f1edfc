"""`ZenithLogger` with sinks: the numbers of every step, on each backend of Keras."""

import keras
import numpy as np
import pytest
from _keras import BACKEND, batches
from _reference import scales

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
    network = model(Zenith(0.1, window=WINDOW, **accumulation))
    execution = {k: v for k, v in options.items() if k.startswith("steps")}
    network.compile(network.optimizer, loss="mse", **execution)
    x, y = map(np.concatenate, batches(STEPS))
    fit = {"batch_size": len(x) // STEPS, "shuffle": False, "verbose": 0}
    network.fit(x, y, callbacks=[ZenithLogger(lambda *row: seen.append(row))], **fit)
    assert [step for step, _ in seen] == steps
    assert [numbers["count"] for _, numbers in seen] == steps


def test_a_schedule_is_logged_without_a_rate():
    seen = []
    schedule = ZenithSchedule(0.1, window=1)
    with MetricLog(lambda step, numbers: seen.append(numbers)) as log:
        for norm in (4.0, 3.0):
            schedule.observe(grad_norm=norm)
            log(schedule)
    assert [numbers["scale"] for numbers in seen] == [1.0, 0.75]
    assert "lr" not in seen[0]
