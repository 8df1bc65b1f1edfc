"""Keras' `fit`, interrupted and gone on with by its own BackupAndRestore."""

import keras
import numpy as np
import pytest

from zenith.tf import Zenith

STEPS, CUT, BATCH, WINDOW = 20, 10, 8, 4
SIZES = (1.0, 3.0, 0.3, 2.0, 0.1)  # of the targets: they move the scale


class Rates(keras.callbacks.Callback):
    """The rate in force at every step; and an interruption, as a machine that is lost makes one."""

    def __init__(self, stop=None):
        super().__init__()
        self.rates, self.stop = [], stop

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.effective_learning_rate))

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.stop:
            raise KeyboardInterrupt


def fit(backup=None, stop=None):
    numbers = np.random.default_rng(0)
    x = numbers.standard_normal((CUT * BATCH, 3)).astype("float32")
    y = numbers.standard_normal((CUT * BATCH, 1)).astype("float32")
    y *= np.repeat(np.resize(SIZES, CUT), BATCH)[:, None]
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.set_weights([np.ones((3, 1)), np.zeros(1)])
    model.compile(Zenith(0.1, window=WINDOW, momentum=0.9), loss="mse")
    rates = Rates(stop)
    callbacks = [rates] if backup is None else [keras.callbacks.BackupAndRestore(backup), rates]
    options = {"batch_size": BATCH, "epochs": STEPS // CUT, "shuffle": False, "verbose": 0}
    if stop is None:
        model.fit(x, y, callbacks=callbacks, **options)
    else:
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y, callbacks=callbacks, **options)
    return rates.rates, model.get_weights()


def test_a_run_that_was_interrupted_goes_on_where_it_was(tmp_path):
    rates, weights = fit()
    assert len(rates) == STEPS
    assert min(rates) < 0.08
    first, _ = fit(str(tmp_path / "backup"), stop=STEPS // CUT - 1)
    rest, resumed = fit(str(tmp_path / "backup"))
    assert first + rest == rates
    for ours, theirs in zip(resumed, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
