"""Warm-up, then ZENITH: any optax schedule is multiplied by the scale.

pip install "zenith-optim[optax]" scikit-learn
python examples/optax_warmup.py
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from zenith.optax import zenith as sgd_under_zenith
from zenith.optax import zenith_state

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--warm-up", type=int, default=100, help="steps from a rate of 0 to 0.1")
parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
options = parser.parse_args()

warm_up = optax.schedules.linear_schedule(0.0, 0.1, transition_steps=options.warm_up)
optimizer = sgd_under_zenith(learning_rate=warm_up, window=options.window)

pixels, digits = load_digits(return_X_y=True)
images, labels = jnp.asarray(pixels / 16, jnp.float32), jnp.asarray(digits)
keys = jax.random.split(jax.random.key(0))
params = {
    "hidden": jax.random.normal(keys[0], (64, 256)) * 0.2,
    "output": jax.random.normal(keys[1], (256, 10)) * 0.1,
}
opt_state = optimizer.init(params)


def predict(params, images):
    """The logits of a network of two matrices."""
    return jax.nn.relu(images @ params["hidden"]) @ params["output"]


@jax.jit
def step(params, opt_state, images, labels):
    """Take one step."""

    def loss(params):
        logits = predict(params, images)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


steps = 0
for epoch in range(1, options.epochs + 1):
    order = np.random.default_rng(epoch).permutation(1347)[: 1347 // 32 * 32]
    for rows in order.reshape(-1, 32):
        params, opt_state = step(params, opt_state, images[rows], labels[rows])
        steps += 1
    scale = float(zenith_state(opt_state).scale)
    accuracy = float(jnp.mean(predict(params, images[1347:]).argmax(-1) == labels[1347:]))
    print(
        f"epoch {epoch}: warm-up {float(warm_up(steps - 1)):.4f} x scale {scale:.4f} = rate "
        f"{float(warm_up(steps - 1)) * scale:.4f}, test accuracy {100 * accuracy:.2f} %"
    )
