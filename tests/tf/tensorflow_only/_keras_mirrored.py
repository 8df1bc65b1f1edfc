"""Runs of `fit` under MirroredStrategy, in a process of its own: `python _keras_mirrored.py N`.

Prints one JSON document. TensorFlow wants its logical devices before anything else, and one
strategy a process: the collective keys of a second one collide with those of the first.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from zenith.tf import Zenith, ZenithWrapper

DEVICES = int(sys.argv[1])
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * DEVICES
)
STRATEGY = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(DEVICES)])
STEPS, BATCH = 10, 8

NUMBERS = np.random.default_rng(0)
INPUTS = NUMBERS.standard_normal((STEPS * BATCH, 3)).astype("float32")
TOKENS = NUMBERS.integers(0, 5, (STEPS * BATCH, 4)).astype("int32")  # repeated in every batch
TARGETS = NUMBERS.standard_normal((STEPS * BATCH, 2)).astype("float32")


def dense():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), INPUTS


def embedding():
    layers = [keras.layers.Embedding(5, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((4,), dtype="int32"), *layers]), TOKENS


def fit(network, optimizer, strategy=None):
    """Return what a run of `STEPS` steps leaves, and what one more step, of a NaN, changes."""
    keras.utils.set_random_seed(0)
    CALLS.clear()
    with strategy.scope() if strategy is not None else tf.distribute.get_strategy().scope():
        model, inputs = network()
        model.compile(optimizer(), loss="mse")
    model.fit(inputs, TARGETS, batch_size=BATCH, shuffle=False, verbose=0)
    document = result(model)
    document["reductions"] = len(CALLS) / DEVICES
    if strategy is not None and "state" in document and network is dense:
        before = everything(model)
        bad = inputs[:BATCH].copy()
        bad[-1, 0] = np.nan  # the last replica's alone
        model.fit(bad, TARGETS[:BATCH], batch_size=BATCH, shuffle=False, verbose=0)
        after = everything(model)
        changed = [name for name in before if not np.array_equal(before[name], after[name])]
        document["changed by a NaN"] = sorted(path.rpartition("/")[2] for path in changed)
    return document


def everything(model):
    variables = [*model.trainable_variables, *model.optimizer.variables]
    return {variable.path: variable.numpy() for variable in variables}


def result(model):
    document = {"weights": [w.tolist() for w in model.get_weights()]}
    for optimizer in (model.optimizer, getattr(model.optimizer, "inner_optimizer", None)):
        if hasattr(type(optimizer), "zenith_state"):
            state = optimizer.zenith_state
            document["state"] = {n: x.numpy().tolist() for n, x in state._asdict().items()}
            document["rate"] = float(optimizer.effective_learning_rate)
            with STRATEGY.scope():
                document["count in scope"] = int(optimizer.zenith_state.count)
    return document


CALLS = []  # one for each replica that sums over the others, as a step of `fit` is traced
all_reduce = tf.distribute.ReplicaContext.all_reduce


def counted(self, *args, **kwargs):
    CALLS.append(self.replica_id_in_sync_group)
    return all_reduce(self, *args, **kwargs)


tf.distribute.ReplicaContext.all_reduce = counted


OPTIMIZERS = {
    "zenith": lambda: Zenith(0.1, window=3, momentum=0.9, weight_decay=0.01),
    "propagate": lambda: Zenith(0.1, window=3, momentum=0.9, nonfinite="propagate"),
    "adamw": lambda: ZenithWrapper(keras.optimizers.AdamW(0.2, weight_decay=0.1), window=3),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(Zenith(0.1, window=3)),
}
if DEVICES != 2:  # the matrix once, for tracing takes its time
    OPTIMIZERS = {name: OPTIMIZERS[name] for name in ("zenith", "adamw")}
CLIP = {"momentum": 0.9, "global_clipnorm": 0.1}


def accumulated(optimizer):
    """What three micro-steps of `strategy.run` move, of gradients that replicas share or not."""
    document = {}
    shared = tf.constant([[1.0, 1.0], [2.0, 2.0]])
    for name in ("shared", "own"):
        with STRATEGY.scope():
            v = keras.Variable([[1.0, 2.0], [3.0, 4.0]])
            made = optimizer()

        def step(v=v, made=made, name=name):
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            own = shared * (1.0 + tf.cast(number, tf.float32))
            made.apply_gradients([(shared if name == "shared" else own, v)])

        document[name] = []
        for _ in range(6):
            STRATEGY.run(step)
            document[name].append(v.numpy().tolist())
        if hasattr(made, "zenith_state"):
            document[f"{name} norms"] = made.zenith_state.norms.numpy().tolist()
    return document


ACCUMULATE = {"learning_rate": 1.0, "gradient_accumulation_steps": 3}

document = {
    "accumulated": {
        "sgd": accumulated(lambda: keras.optimizers.SGD(**ACCUMULATE)),
        "zenith": accumulated(lambda: Zenith(window=2, **ACCUMULATE)),
        "wrapper": accumulated(lambda: ZenithWrapper(keras.optimizers.SGD(**ACCUMULATE), window=2)),
    },
    "devices": DEVICES,
    "alone": {name: fit(dense, make) for name, make in OPTIMIZERS.items()},
    "mirrored": {name: fit(dense, make, STRATEGY) for name, make in OPTIMIZERS.items()},
    "embedding": [fit(embedding, OPTIMIZERS["zenith"], strategy) for strategy in (None, STRATEGY)],
    "sgd": fit(dense, lambda: keras.optimizers.SGD(0.1), STRATEGY),
    "clipped": fit(dense, lambda: Zenith(0.1, **CLIP), STRATEGY),
    "clipped sgd": fit(dense, lambda: keras.optimizers.SGD(0.1, **CLIP), STRATEGY),
}
print(json.dumps(document))
