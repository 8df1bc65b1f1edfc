"""tf.function, GradientTape, IndexedSlices, tf.train.Checkpoint and TensorBoard."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from _keras import (
    assert_close,
    assert_same,
    assert_same_state,
    batches,
    dense_model,
    everything,
    fit,
    norm,
)
from _reference import ROUNDING, scales

from zenith.tf import Zenith, ZenithLogger, ZenithSchedule, ZenithWrapper

LR = 0.1
WINDOW = 3
STEPS = 9

OPTIMIZERS = {
    "Zenith": lambda: Zenith(LR, window=WINDOW, momentum=0.9),
    "ZenithWrapper": lambda: ZenithWrapper(keras.optimizers.AdamW(LR), window=WINDOW),
}


class Loop:
    """A custom loop over a model: a tf.function around a GradientTape, which counts its traces."""

    def __init__(self, optimizer, schedule=None, **options):
        self.model = dense_model()
        self.optimizer = optimizer
        self.optimizer.build(self.model.trainable_variables)
        self.schedule = schedule
        self.traces = 0
        self.step = tf.function(self._step, **options)

    def _step(self, x, y):
        self.traces += 1
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(x) - y))
        grads = tape.gradient(loss, self.model.trainable_variables)
        if self.schedule is not None:
            self.schedule.observe(grads)
        self.optimizer.apply_gradients(zip(grads, self.model.trainable_variables, strict=True))

    def run(self, start=0, stop=STEPS):
        for x, y in zip(*(a[start:stop] for a in batches(STEPS)), strict=True):
            self.step(tf.constant(x), tf.constant(y))
        return self

    def everything(self):
        return everything(self.optimizer, self.model.trainable_variables)


# --- tf.function


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_tape_under_tf_function_is_fit_in_one_trace(make):
    loop = Loop(make()).run()
    assert loop.traces == 1
    model = dense_model()
    model.compile(make(), loss="mse", jit_compile=False)
    fit(model, range(STEPS))
    assert float(loop.optimizer.zenith_state.scale) < 0.98
    assert_same_state(loop.optimizer.zenith_state, model.optimizer.zenith_state)
    assert_same(loop.everything(), everything(model.optimizer, model.trainable_variables))


def test_under_xla_it_is_the_same_to_rounding():
    compiled = Loop(OPTIMIZERS["Zenith"](), jit_compile=True).run()
    assert compiled.traces == 1
    assert_close(compiled.everything(), Loop(OPTIMIZERS["Zenith"]()).run().everything(), ROUNDING)


@pytest.mark.parametrize("base", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_a_schedule_observed_under_tf_function_is_the_wrapper(base):
    schedule = ZenithSchedule(LR, window=WINDOW)
    observed = Loop(base(schedule), schedule).run()
    wrapped = Loop(ZenithWrapper(base(LR), window=WINDOW)).run()
    assert observed.traces == 1
    assert float(schedule(0)) == float(wrapped.optimizer.effective_learning_rate) < 0.09
    assert_same_state(schedule.zenith_state, wrapped.optimizer.zenith_state)
    weights = (loop.model.get_weights() for loop in (observed, wrapped))
    assert_same(*weights)


# --- IndexedSlices

ROWS = [[0, 2, 2, 0], [1, 1, 1, 1], [3, 0, 3, 2], [2, 2, 1, 0]]


def slices(step):
    values = np.random.default_rng(step).standard_normal((4, 2)).astype("float32")
    dense = np.zeros((5, 2))
    np.add.at(dense, ROWS[step % 4], values)
    return indexed(values, ROWS[step % 4]), dense


def indexed(values, rows):
    indices = tf.constant(rows, tf.int32)
    return tf.IndexedSlices(tf.constant(values), indices, dense_shape=tf.constant((5, 2)))


def table():
    return keras.Variable(np.random.default_rng(9).standard_normal((5, 2)), dtype="float32")


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rows_that_repeat_add_up_before_the_norm(jit_compile):
    own, optimizer = table(), Zenith(LR, window=2)
    optimizer.build([own])
    step = tf.function(lambda grad: optimizer.apply([grad], [own]), jit_compile=jit_compile)
    expected, norms = own.numpy().astype("float64"), []
    for i in range(8):
        grad, dense = slices(i)
        norms.append(norm([dense]))
        step(grad)
        expected -= LR * scales(norms, 2)[-1] * dense
        assert float(optimizer.zenith_state.scale) == pytest.approx(scales(norms, 2)[-1], rel=1e-6)
    np.testing.assert_allclose(own.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kwargs", [{}, {"momentum": 0.9}, {"clipnorm": 0.5}], ids=str)
def test_sparse_gradients_are_as_in_sgd_while_the_window_fills(kwargs):
    ours, theirs = table(), table()
    optimizer, sgd = Zenith(LR, **kwargs), keras.optimizers.SGD(LR, **kwargs)
    for i in range(4):
        optimizer.apply([slices(i)[0]], [ours])
        sgd.apply([slices(i)[0]], [theirs])
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_no_row_at_all_is_a_norm_of_0():
    own, optimizer = table(), Zenith(LR, window=2)
    optimizer.apply([indexed(tf.zeros((0, 2)), [])], [own])
    assert optimizer.zenith_state.norms.numpy().tolist() == [0, 0]
    assert int(optimizer.zenith_state.count) == 1


# --- tf.train.Checkpoint


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("built", [True, False])
def test_a_checkpoint_resumes_to_the_last_bit(make, built, tmp_path):
    whole = Loop(make()).run()
    first = Loop(make()).run(0, 5)
    path = tf.train.Checkpoint(model=first.model, optimizer=first.optimizer).save(tmp_path / "run")

    model, optimizer = dense_model(seed=1), make()
    if built:
        optimizer.build(model.trainable_variables)
    status = tf.train.Checkpoint(model=model, optimizer=optimizer).restore(path)
    if not built:  # TensorFlow keeps the values until the variables are made
        optimizer.build(model.trainable_variables)
    status.assert_consumed()
    second = Loop(make())
    second.model, second.optimizer = model, optimizer
    assert_same(second.run(5, STEPS).everything(), whole.everything())


def test_a_checkpoint_of_the_optimizer_holds_its_schedule(tmp_path):
    def loop():
        schedule = ZenithSchedule(LR, window=WINDOW)
        return Loop(keras.optimizers.SGD(schedule, momentum=0.9), schedule)

    whole, first, second = loop().run(), loop().run(0, 5), loop()
    path = tf.train.Checkpoint(model=first.model, optimizer=first.optimizer).save(tmp_path / "run")
    checkpoint = tf.train.Checkpoint(model=second.model, optimizer=second.optimizer)
    checkpoint.restore(path).assert_consumed()
    assert_same(second.run(5, STEPS).everything(), whole.everything())
    assert_same_state(second.schedule.zenith_state, whole.schedule.zenith_state)


def test_a_checkpoint_of_another_window_is_refused(tmp_path):
    path = tf.train.Checkpoint(Loop(Zenith(LR, window=3)).run(0, 4).optimizer).save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"shape \(3,\).*shape \(5,\).*zenith_norms"):
        tf.train.Checkpoint(Loop(Zenith(LR, window=5)).optimizer).restore(path)


# --- TensorBoard


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_tensorboard_shows_the_users_rate_and_zeniths(make, tmp_path):
    model = dense_model()
    model.compile(make(), loss="mse")
    callbacks = [ZenithLogger(), keras.callbacks.TensorBoard(tmp_path, write_graph=False)]
    history = fit(model, range(STEPS), callbacks=callbacks).history
    shown = {}
    for path in (tmp_path / "train").glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                shown[value.tag] = float(tf.make_ndarray(value.tensor))
    assert shown["epoch_learning_rate"] == np.float32(LR)
    assert shown["epoch_scale"] == np.float32(history["scale"][-1]) < 0.98
    assert shown["epoch_effective_learning_rate"] == pytest.approx(LR * shown["epoch_scale"])
    assert shown["epoch_grad_norm"] == np.float32(history["grad_norm"][-1])
