"""`zenith.logs` into TensorFlow's own event files, and a model with two optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from zenith.logs import MetricLog, to_tensorboard
from zenith.readers import series
from zenith.tf import Zenith, ZenithLogger


def test_tensorboard_of_tensorflow(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    with MetricLog(to_tensorboard(writer)) as log:
        for scale in (1.0, 0.75, 0.25):
            log({"scale": tf.constant(scale), "grad_norm": 4 * scale})
    writer.close()
    assert series(tmp_path) == ("zenith/grad_norm", [1, 2, 3], [4.0, 3.0, 1.0], 0, False)
    assert series(tmp_path, "zenith/scale").values == [1.0, 0.75, 0.25]


class Pair(keras.Model):
    """The shape of a GAN: two parts, each with an optimizer of its own."""

    def __init__(self):
        super().__init__()
        self.parts = [keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]) for _ in "ab"]

    def compile(self, first, second):
        super().compile()
        self.optimizers = [first, second]

    def train_step(self, x):
        for size, part, optimizer in zip((1.0, 2.0), self.parts, self.optimizers, strict=True):
            with tf.GradientTape() as tape:
                loss = size * tf.reduce_mean(tf.abs(part(x)))
                scaled = optimizer.scale_loss(loss)
            optimizer.apply(tape.gradient(scaled, part.variables), part.variables)
        return {"loss": loss}


def test_each_optimizer_of_a_model_is_logged_by_a_logger_of_its_own():
    rows, model = {"first_": [], "second_": []}, Pair()
    first, second = (
        Zenith(0.0, window=2),
        keras.optimizers.LossScaleOptimizer(Zenith(0.0, window=1)),
    )
    model.compile(first, second)
    loggers = [
        ZenithLogger(lambda *row, seen=seen: seen.append(row), optimizer=optimizer, prefix=name)
        for (name, seen), optimizer in zip(rows.items(), (first, second), strict=True)
    ]
    x = np.ones((12, 1), "float32")
    history = model.fit(x, batch_size=4, verbose=0, callbacks=loggers).history
    for factor, (name, seen) in zip((1, 2), rows.items(), strict=True):
        assert [step for step, _ in seen] == [1, 2, 3]
        assert seen[-1][1]["grad_norm"] == pytest.approx(factor * 2**0.5, rel=1e-6)
        assert history[f"{name}grad_norm"] == [seen[-1][1]["grad_norm"]]
    with pytest.raises(TypeError, match="`optimizer`, or that of the model, must be a Zenith"):
        model.fit(x, verbose=0, callbacks=[ZenithLogger()])
