"""Carry a run over from PyTorch to optax to Keras: weights and schedule go on as they were.

    pip install "zenith-optim[torch,tf,optax]" scikit-learn
    python examples/transfer.py

The schedule is one JSON document, without a framework or a dtype in it.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import torch
from sklearn.datasets import load_digits

import zenith
from zenith.optax import set_zenith_state, zenith_state
from zenith.optax import zenith as sgd_under_zenith
from zenith.tf import Zenith as KerasZenith
from zenith.torch import Zenith

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=200, help="in each framework")
parser.add_argument("--window", type=int, default=100, help="gradient norms in the mean")
parser.add_argument("--out", type=Path, default=Path("state.json"))
options = parser.parse_args()

pixels, digits = load_digits(return_X_y=True)
images, labels = (pixels / 16).astype("float32"), digits
batches = np.random.default_rng(0).integers(0, 1347, (3, options.steps, 32))


def report(framework: str, rate: float, state: zenith.ZenithState) -> None:
    """Print where the run stands."""
    print(f"{framework:<8} {int(state.count)} norms, rate {rate:.6f}")


# PyTorch: from the beginning.
torch.manual_seed(0)
linear = torch.nn.Linear(64, 10)
optimizer = Zenith(linear.parameters(), lr=0.1, window=options.window)
for rows in batches[0]:
    optimizer.zero_grad()
    logits = linear(torch.from_numpy(images[rows]))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows])).backward()
    optimizer.step()
report("PyTorch", optimizer.get_last_lr()[0], optimizer.zenith_state)
options.out.write_text(json.dumps(zenith.to_dict(optimizer.zenith_state)))

# optax: the same weights and the same schedule.
weight, bias = (p.detach().numpy() for p in linear.parameters())
params = {"kernel": jnp.asarray(weight.T), "bias": jnp.asarray(bias)}
transformation = sgd_under_zenith(learning_rate=0.1, window=options.window)
state = zenith.from_dict(json.loads(options.out.read_text()))
opt_state = set_zenith_state(transformation.init(params), state)


@jax.jit
def step(params, opt_state, images, labels):
    """Take one step."""

    def loss(params):
        logits = images @ params["kernel"] + params["bias"]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    updates, opt_state = transformation.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


for rows in batches[1]:
    params, opt_state = step(params, opt_state, images[rows], labels[rows])
report("optax", 0.1 * float(zenith_state(opt_state).scale), zenith_state(opt_state))
options.out.write_text(json.dumps(zenith.to_dict(zenith_state(opt_state))))

# Keras: and again.
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
model.compile(
    optimizer=KerasZenith(learning_rate=0.1, window=options.window),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.set_weights([np.asarray(params["kernel"]), np.asarray(params["bias"])])
model.optimizer.build(model.trainable_variables)
model.optimizer.zenith_state = zenith.from_dict(json.loads(options.out.read_text()))
for rows in batches[2]:
    model.train_on_batch(images[rows], labels[rows])
rate = float(model.optimizer.effective_learning_rate)
report("Keras", rate, model.optimizer.zenith_state)
accuracy = model.evaluate(images[1347:], labels[1347:], verbose=0)[1]
print(f"test accuracy {100 * accuracy:.2f} %")
