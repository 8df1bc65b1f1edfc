"""The golden vectors through the optimizers and the schedule: gradients in, the state out."""

import keras
import pytest
from _golden import CASES, assert_golden, norms
from _keras import tensors, x64

from zenith.tf import Zenith, ZenithSchedule, ZenithWrapper

MAKERS = {
    "Zenith": lambda window: Zenith(0.1, window=window),
    "ZenithWrapper": lambda window: ZenithWrapper(keras.optimizers.Adam(0.1), window=window),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [("Zenith", "float32", 1e-6), ("ZenithWrapper", "float64", 1e-14)],
)
def test_the_optimizers(name, dtype, tolerance, case):
    with x64():
        own = [keras.Variable([0.0], dtype=dtype)]
        optimizer, states = MAKERS[name](case["window"]), []
        for norm in norms(case):
            optimizer.apply(tensors([[norm]], dtype), own)
            states.append(optimizer.zenith_state)
        assert_golden(case, states, tolerance)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_schedule(case):
    schedule, states = ZenithSchedule(0.1, window=case["window"]), []
    for norm in norms(case):
        schedule.observe(tensors([[norm]]))
        states.append(schedule.zenith_state)
    assert_golden(case, states, 1e-6)
