"""The runs of the parity tests in Keras, on TensorFlow."""

import functools

import keras
import numpy as np
from _parity import PROBLEMS, RATES, WINDOW, Leg, Run, flat

import zenith
from zenith.tf import Zenith


def keeper(state, dtype):
    variable = keras.Variable([0.0], dtype=dtype)
    optimizer = Zenith(0.1, window=len(state.norms))
    optimizer.build([variable])
    optimizer.zenith_state = state

    def observe(norm):
        gradient = keras.ops.ones_like(variable)
        optimizer.apply([gradient], [variable], grad_norm=norm)
        return zenith.to_dict(optimizer.zenith_state)

    return observe


def run(name, schedule, momentum, dtype, leg=None):
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)  # of the variable that holds the learning rate, above all
    try:
        return run_in_floatx(name, schedule, momentum, dtype, leg)
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def run_in_floatx(name, schedule, momentum, dtype, leg):
    leg, problem = leg or Leg(), PROBLEMS[name]
    inputs = keras.Input(problem.inputs.shape[2:], dtype=dtype)
    dense = functools.partial(keras.layers.Dense, dtype=dtype)
    if name == "cnn":
        conv = keras.layers.Conv2D(2, 3, padding="same", activation="tanh", dtype=dtype)
        x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(conv(conv(inputs)))
    else:
        x = dense(8, activation="tanh")(inputs)
    model = keras.Model(inputs, dense(3)(x))
    model.set_weights(leg.weights or problem.weights)
    model.layers[1].trainable = problem.factors[0] is not None
    optimizer = Zenith(0.0, window=WINDOW, momentum=momentum)
    model.compile(optimizer, loss=keras.losses.MeanSquaredError(dtype=dtype))
    trained = [w.path for w in model.trainable_variables]
    frozen = [w for w in model.weights if w.path not in trained]
    if leg.document is not None:
        optimizer.build(model.trainable_variables)
        optimizer.zenith_state = zenith.from_dict(leg.document)
    scales, history = [], []
    for t, x, y in zip(leg.steps, *leg.data(problem), strict=True):
        optimizer.learning_rate = RATES[schedule](t)
        model.train_on_batch(x.astype(dtype), y.astype(dtype))
        scales.append(float(optimizer.zenith_state.scale))
        history.append(flat(w.numpy() for w in (*frozen, *model.trainable_variables)))
    leg.document = zenith.to_dict(optimizer.zenith_state)
    return Run(np.array(scales), np.array(history))
