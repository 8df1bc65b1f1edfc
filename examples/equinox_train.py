"""Train on the handwritten digits with Equinox, and log without waiting for the device.

pip install "zenith-optim[optax]" equinox scikit-learn
python examples/equinox_train.py
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import zenith
from zenith.logs import MetricLog, to_csv
from zenith.optax import zenith as sgd_under_zenith
from zenith.optax import zenith_state

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
parser.add_argument("--out", type=Path, default=Path("equinox_train.csv"))
options = parser.parse_args()

pixels, digits = load_digits(return_X_y=True)
images, labels = (pixels / 16).astype("float32"), digits
model = eqx.nn.MLP(64, 10, width_size=256, depth=1, key=jax.random.key(0))
optimizer = sgd_under_zenith(learning_rate=0.1, window=options.window)
opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))


@eqx.filter_value_and_grad
def loss_of(model, images, labels):
    """The mean cross-entropy of a batch, in nats."""
    logits = jax.vmap(model)(images)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@eqx.filter_jit
def step(model, opt_state, images, labels):
    """Take a step; what is to be logged comes out as arrays."""
    loss, grads = loss_of(model, images, labels)
    updates, opt_state = optimizer.update(grads, opt_state)
    logs = {"loss": loss, **zenith.metrics(zenith_state(opt_state))}
    return eqx.apply_updates(model, updates), opt_state, logs


options.out.unlink(missing_ok=True)
with MetricLog(to_csv(options.out)) as log:
    for epoch in range(1, options.epochs + 1):
        order = np.random.default_rng(epoch).permutation(1347)[: 1347 // 32 * 32]
        for rows in order.reshape(-1, 32):
            model, opt_state, logs = step(model, opt_state, images[rows], labels[rows])
            log(logs)
        accuracy = float(jnp.mean(jax.vmap(model)(images[1347:]).argmax(-1) == labels[1347:]))
        rate = 0.1 * float(logs["scale"])
        print(f"epoch {epoch}: rate {rate:.4f}, test accuracy {100 * accuracy:.2f} %")
