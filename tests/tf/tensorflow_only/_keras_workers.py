"""A training loop under MultiWorkerMirroredStrategy: `python _keras_workers.py INDEX ADDRESSES`.

Without arguments the same run alone. Prints one JSON document. (Keras 3.15 has no `fit` under this
strategy: with any optimizer it hands the model a PerReplica value that it cannot convert.)
"""

import json
import os
import sys

ADDRESSES = sys.argv[2:]
if ADDRESSES:
    task = {"type": "worker", "index": int(sys.argv[1])}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": ADDRESSES}, "task": task})

import keras  # noqa: E402 - TensorFlow reads TF_CONFIG
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from zenith.tf import Zenith, ZenithWrapper  # noqa: E402

STEPS, BATCH = 10, 8
NUMBERS = np.random.default_rng(0)
INPUTS = NUMBERS.standard_normal((STEPS * BATCH, 3)).astype("float32")
TARGETS = NUMBERS.standard_normal((STEPS * BATCH, 2)).astype("float32")
TARGETS *= np.repeat(np.resize([1.0, 3.0, 0.3], STEPS), BATCH)[:, None]

if ADDRESSES:
    STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()
    assert STRATEGY.num_replicas_in_sync == 2
else:
    STRATEGY = tf.distribute.get_strategy()

OPTIMIZERS = {
    "zenith": lambda: Zenith(0.1, window=3, momentum=0.9),
    "adamw": lambda: ZenithWrapper(keras.optimizers.AdamW(0.2, weight_decay=0.1), window=3),
}


def train(make):
    with STRATEGY.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.set_weights([np.random.default_rng(1).standard_normal((3, 2)), np.zeros(2)])
        optimizer = make()
        optimizer.build(model.trainable_variables)

    def replica(x, y):
        with tf.GradientTape() as tape:
            # A share of the mean over the global batch: the replicas' gradients are summed.
            loss = tf.reduce_sum(tf.square(model(x) - y)) / (BATCH * 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    @tf.function
    def step(x, y):
        STRATEGY.run(replica, (x, y))

    scales = []
    data = tf.data.Dataset.from_tensor_slices((INPUTS, TARGETS)).batch(BATCH)
    for x, y in STRATEGY.experimental_distribute_dataset(data):
        step(x, y)
        scales.append(float(optimizer.zenith_state.scale))
    state = {n: x.numpy().tolist() for n, x in optimizer.zenith_state._asdict().items()}
    weights = [w.tolist() for w in model.get_weights()]
    return {"scales": scales, "state": state, "weights": weights}


print(json.dumps({name: train(make) for name, make in OPTIMIZERS.items()}))
