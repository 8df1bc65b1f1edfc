"""ZenithWrapper: any Keras optimizer, at its own rate times the scale."""

import keras
import numpy as np
import pytest
from _keras import (
    BACKEND,
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

LR = 0.125
WINDOW = 3
STEPS = 8
SCALES = scales([norm(gradients(step)) for step in range(STEPS)], WINDOW)


class Sign(keras.optimizers.Optimizer):
    """An optimizer of somebody else: sign descent with a sum of what it saw."""

    def build(self, variables):
        super().build(variables)
        self.sums = [self.add_variable_from_reference(v, name="sum") for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        total = self.sums[self._get_variable_index(variable)]
        self.assign_add(total, gradient)
        self.assign_sub(variable, learning_rate * keras.ops.sign(total))


INNER = {
    "Adam": lambda rate: keras.optimizers.Adam(rate),
    "AdamW": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.5, amsgrad=True),
    "RMSprop": lambda rate: keras.optimizers.RMSprop(rate, momentum=0.5, centered=True),
    "of the user": lambda rate: Sign(rate),
}


@pytest.mark.parametrize("make", INNER.values(), ids=INNER.keys())
def test_is_the_inner_optimizer_at_the_rate_times_the_scale(make):
    (own, theirs), bare = (variables(), variables()), make(LR)
    optimizer = ZenithWrapper(make(LR), window=WINDOW)
    for step in range(STEPS):
        apply(optimizer, own, step)
        assert scale(optimizer) == pytest.approx(SCALES[step], rel=2e-6)
        bare.learning_rate = LR * SCALES[step]
        apply(bare, theirs, step)
        if step < WINDOW:
            assert_same(arrays(own), arrays(theirs))
        assert_close(arrays(own), arrays(theirs), 2e-6)
    assert float(optimizer.inner_optimizer.learning_rate) == LR == float(optimizer.learning_rate)
    bare.learning_rate = LR
    assert_close(arrays(optimizer.inner_optimizer.variables), arrays(bare.variables), 2e-6)
    assert len(set(SCALES)) > 3


def test_while_the_window_fills_it_is_the_inner_optimizer_with_all_that_it_has():
    kwargs = {"clipnorm": 0.25, "use_ema": True, "ema_overwrite_frequency": 2, "weight_decay": 0.1}
    own, theirs = variables(), variables()
    bare = keras.optimizers.Adam(LR, loss_scale_factor=4.0, **kwargs)
    optimizer = ZenithWrapper(keras.optimizers.Adam(LR, loss_scale_factor=4.0, **kwargs), window=9)
    optimizer.exclude_from_weight_decay(var_list=own[:1])
    bare.exclude_from_weight_decay(var_list=theirs[:1])
    assert float(optimizer.scale_loss(1.0)) == 4.0 == optimizer.loss_scale_factor
    for step in range(5):
        apply(optimizer, own, step)
        apply(bare, theirs, step)
        assert_same(arrays(own), arrays(theirs))
    assert_same(arrays(optimizer.inner_optimizer.variables), arrays(bare.variables))
    assert int(optimizer.iterations) == 5
    optimizer.finalize_variable_values(own)
    bare.finalize_variable_values(theirs)
    assert_same(arrays(own), arrays(theirs))
    seen = float(optimizer.zenith_state.norms[4])  # before clipping, without the loss scale
    assert seen == pytest.approx(norm(gradients(4)) / 4, rel=2e-6)


def test_over_sgd_it_is_zenith():
    kwargs = {"momentum": 0.5, "weight_decay": 0.25, "clipvalue": 0.5}
    own, theirs = variables(), variables()
    optimizer = ZenithWrapper(keras.optimizers.SGD(LR, **kwargs), window=WINDOW)
    zenith = Zenith(LR, window=WINDOW, **kwargs)
    for step in range(STEPS):
        apply(optimizer, own, step)
        apply(zenith, theirs, step)
    assert_same(arrays(own), arrays(theirs))
    assert_same(plain(optimizer.zenith_state).values(), plain(zenith.zenith_state).values())


def test_the_loss_scaler_goes_around_it():
    own, theirs = variables(), variables()
    inner = ZenithWrapper(keras.optimizers.Adam(LR, loss_scale_factor=4.0), window=WINDOW)
    inner.loss_scale_factor = None  # which the scaler does itself, from Keras 3.10 on
    bare = ZenithWrapper(keras.optimizers.Adam(LR), window=WINDOW)
    scaler = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0, dynamic_growth_steps=4)
    scaled, plainly = stepper(scaler, own), stepper(bare, theirs)
    for step in range(6):
        factor = float(scaler.dynamic_scale)
        scaled(tensors([factor * gradient for gradient in gradients(step)]))
        plainly(tensors(gradients(step)))
    # Bit for bit, but for what XLA fuses: the scales are powers of 2.
    same = assert_close if BACKEND == "jax" else assert_same
    same(everything(inner, own), everything(bare, theirs))
    assert float(scaler.dynamic_scale) == 16.0
    assert plain(inner.zenith_state)["count"] == 6
    assert scale(inner) < 1


# --- with other parts of Keras --------------------------------------------------------------------


def test_swap_ema_weights():
    for optimizer in (
        Zenith(LR, window=2, use_ema=True, ema_momentum=0.5),
        ZenithWrapper(keras.optimizers.Adam(LR, use_ema=True, ema_momentum=0.5), window=2),
    ):
        host = getattr(optimizer, "inner_optimizer", optimizer)
        model = dense_model()
        model.compile(optimizer=optimizer, loss="mse")
        seen = []

        class Record(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None, seen=seen, host=host):
                seen.append(
                    (self.model.get_weights(), arrays(host._model_variables_moving_average))
                )

        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        x = np.ones((4, 3), "float32")
        y = np.ones((4, 1), "float32")
        fitted = {"epochs": 3, "shuffle": False, "verbose": 0, "batch_size": 4}
        model.fit(x, y, callbacks=[Record(), swap, Record()], **fitted)
        # In the first epochs the callback swaps the two, up to the rounding of Keras' own swap; at
        # the end it leaves the average in both.
        for before, after in zip(seen[0:4:2], seen[1:4:2], strict=True):
            assert_close(after[0], before[1])
            assert_close(after[1], before[0])
            assert np.abs(before[0][0] - before[1][0]).max() > 1e-4 or before is seen[0]
        assert_close(model.get_weights(), seen[4][1])
        assert plain(optimizer.zenith_state)["count"] == 3
