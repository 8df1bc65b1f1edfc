"""`MultiOptimizer`, which Keras has from 3.15 on: leave this file out on an older one."""

import keras
import pytest
from _keras import dense_model, fit, norm, plain
from _reference import scales

from zenith.tf import Zenith, ZenithWrapper

LR = 0.125


def test_zenith_inside_a_multi_optimizer_measures_its_own_variables():
    def split(path):
        return keras.optimizers.OptimizerMap(other, {path: optimizer})

    model = dense_model()
    kernel = model.trainable_variables[0]
    optimizer = Zenith(LR, window=2)
    other = keras.optimizers.SGD(LR)
    multi = keras.optimizers.MultiOptimizer(split(kernel.path))
    model.compile(optimizer=multi, loss="mse")
    seen, before = [], model.get_weights()
    for step in range(4):
        fit(model, range(step, step + 1))
        after = model.get_weights()
        seen.append(norm([after[0] - before[0]]) / LR)  # of the kernel alone, at the scale
        before = after
    state = plain(optimizer.zenith_state)
    assert state["count"] == 4
    norms = [seen[0], seen[1], *map(float, state["norms"])]
    wanted = scales(norms, 2)
    assert state["scale"] == pytest.approx(wanted[3], rel=1e-4)
    assert seen[3] == pytest.approx(norms[3] * wanted[3], rel=1e-4)


def test_it_cannot_be_wrapped():
    multi = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD()))
    with pytest.raises(ValueError, match="with one learning rate, got a MultiOptimizer"):
        ZenithWrapper(multi)
