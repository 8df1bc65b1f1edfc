"""What a step of Keras' `fit` costs from end to end; KERAS_BACKEND chooses the backend.

The same network is trained by `model.fit` with `keras.optimizers.SGD`, `Zenith` and
`ZenithWrapper`. One repetition fits a few steps with each.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from experiments.cost.cases import NETWORKS, Document, full, made, table, variants
from experiments.cost.paired import clock, interleaved
from experiments.tasks import shapes
from zenith.tf import Zenith, ZenithWrapper

__all__ = ["measure", "table"]

LR = 1e-3
STEPS = {"vgg19": 2, "small": 40}  # in a repetition
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "SGD": lambda: keras.optimizers.SGD(LR, momentum=0.9),
    "Zenith": lambda: Zenith(LR, momentum=0.9),
    'Zenith, nonfinite="propagate"': lambda: Zenith(LR, momentum=0.9, nonfinite="propagate"),
    "SGD, global_clipnorm": lambda: keras.optimizers.SGD(LR, momentum=0.9, global_clipnorm=1.0),
    "ZenithWrapper(SGD)": lambda: ZenithWrapper(keras.optimizers.SGD(LR, momentum=0.9)),
}


def built(network: shapes.Network) -> Any:
    """Return the network in Keras.

    Where a stride is 2, TensorFlow's "same" pads the other side than torch: the same work.
    """
    layers = [keras.Input((network.size, network.size, network.channels))]
    for kind, _, outputs, stride, relu in network.layers:
        activation = "relu" if relu else None
        if kind == "pool":
            layers.append(keras.layers.MaxPooling2D())
        elif kind == "flat":
            layers.append(keras.layers.Flatten())
        elif kind == "conv":
            layers.append(keras.layers.Conv2D(outputs, 3, stride, "same", activation=activation))
        else:
            layers.append(keras.layers.Dense(outputs, activation))
    return keras.Sequential(layers)


def compiled(network: shapes.Network, optimizer: Any, jit: str) -> Any:
    """Return the model, compiled, with a window that is full."""
    keras.utils.set_random_seed(0)
    model = built(network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    jit_compile = {"auto": "auto", "yes": True, "no": False}[jit]
    model.compile(optimizer, loss=loss, jit_compile=jit_compile)
    optimizer.build(model.trainable_variables)
    if hasattr(optimizer, "zenith_state"):
        optimizer.zenith_state = full(optimizer.window)
    return model


def measure(options: Any) -> Document:
    """Return the milliseconds of a step with every optimizer for each of the networks."""
    backend = keras.backend.backend()
    return {
        "made": made(keras=keras.__version__, backend=backend, jit_compile=options.jit),
        "cases": {name: _case(name, options) for name in options.models},
    }


def _case(name: str, options: Any) -> Document:
    network, steps = NETWORKS[name], STEPS[name]
    numbers, size = np.random.default_rng(0), steps * options.batch
    shape = (size, network.size, network.size, network.channels)
    images = numbers.standard_normal(shape).astype("float32")
    labels = numbers.integers(0, 10, size)

    fit = {"x": images, "y": labels, "batch_size": options.batch, "verbose": 0}
    models = {name: compiled(network, make(), options.jit) for name, make in OPTIMIZERS.items()}
    runs = {name: clock(partial(model.fit, **fit), steps) for name, model in models.items()}
    samples = interleaved(runs, options.repetitions)
    return {
        "parameters": network.parameters,
        "batch": options.batch,
        "variants": variants(samples, dict.fromkeys(samples, "SGD")),
    }
