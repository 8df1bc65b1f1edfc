"""Train a network on scikit-learn's handwritten digits with ZENITH, in plain JAX or in Flax NNX.

    pip install "zenith-optim[optax]" scikit-learn      # and flax for --nnx
    python examples/jax_train.py
    python examples/jax_train.py --nnx

The schedule's numbers come out of the jitted step as arrays and stay on the device; they are read
once an epoch, all together, as they are printed.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import zenith
from zenith.optax import zenith as sgd_under_zenith
from zenith.optax import zenith_state

BATCH = 32
Batch = tuple[jax.Array, jax.Array]


def loss_of(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross-entropy, in nats."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def plain_jax(window: int) -> tuple[Callable[[Batch], Any], Callable[[jax.Array], jax.Array]]:
    """A network of three matrices; return what takes a step, and what predicts."""
    sizes = (64, 256, 128, 10)
    keys = jax.random.split(jax.random.key(0), len(sizes) - 1)
    params = [
        (jax.random.normal(key, (a, b)) * jnp.sqrt(2 / a), jnp.zeros(b))
        for key, a, b in zip(keys, sizes, sizes[1:], strict=False)
    ]
    optimizer = sgd_under_zenith(learning_rate=0.1, window=window)
    opt_state = optimizer.init(params)

    def predict(params: Any, images: jax.Array) -> jax.Array:
        *hidden, (weight, bias) = params
        for inner_weight, inner_bias in hidden:
            images = jax.nn.relu(images @ inner_weight + inner_bias)
        return images @ weight + bias

    @jax.jit
    def update(params: Any, opt_state: Any, batch: Batch) -> Any:
        images, labels = batch
        loss, grads = jax.value_and_grad(lambda p: loss_of(predict(p, images), labels))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        logs = {"loss": loss, **zenith.metrics(zenith_state(opt_state))}
        return optax.apply_updates(params, updates), opt_state, logs

    def step(batch: Batch) -> Any:
        nonlocal params, opt_state
        params, opt_state, logs = update(params, opt_state, batch)
        return logs

    return step, lambda images: predict(params, images)


def flax_nnx(window: int) -> tuple[Callable[[Batch], Any], Callable[[jax.Array], jax.Array]]:
    """The same as a module of Flax NNX under `nnx.Optimizer`."""
    from flax import nnx

    rngs = nnx.Rngs(0)
    layers = (nnx.Linear(64, 256, rngs=rngs), nnx.relu, nnx.Linear(256, 128, rngs=rngs), nnx.relu)
    model = nnx.Sequential(*layers, nnx.Linear(128, 10, rngs=rngs))
    transformation = sgd_under_zenith(learning_rate=0.1, window=window)
    optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, batch: Batch) -> Any:
        images, labels = batch
        loss, grads = nnx.value_and_grad(lambda m: loss_of(m(images), labels))(model)
        optimizer.update(model, grads)
        state = zenith_state(optimizer.opt_state)
        return {"loss": loss, **zenith.metrics(state)}

    return lambda batch: step(model, optimizer, batch), model


def batches(images: np.ndarray, labels: np.ndarray, seed: int) -> Iterator[Batch]:
    """Whole batches, in an order drawn anew."""
    order = np.random.default_rng(seed).permutation(len(images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        rows = order[start : start + BATCH]
        yield jnp.asarray(images[rows]), jnp.asarray(labels[rows])


def main() -> None:
    """Read the command line, train, and print a line for each epoch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nnx", action="store_true", help="Flax NNX in place of plain JAX")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
    options = parser.parse_args()
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    step, predict = (flax_nnx if options.nnx else plain_jax)(options.window)
    for epoch in range(1, options.epochs + 1):
        logs = [step(batch) for batch in batches(images[:1347], labels[:1347], seed=epoch)]
        loss = float(jnp.mean(jnp.stack([log["loss"] for log in logs])))
        last = jax.device_get(logs[-1])
        accuracy = float(jnp.mean(predict(images[1347:]).argmax(-1) == labels[1347:]))
        print(
            f"epoch {epoch}: loss {loss:.4f}, grad_norm {last['grad_norm']:.4f}, "
            f"rate {0.1 * last['scale']:.4f}, test accuracy {100 * accuracy:.2f} %"
        )


if __name__ == "__main__":
    main()
