"""Every way of training in JAX, on the digits: the same weights, and the rates of Algorithm 1."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from _reference import scales
from flax import linen, nnx
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

from zenith.core import init, to_dict, update
from zenith.optax import set_zenith_state, zenith, zenith_state

LR, WINDOW, EPOCHS, BATCH, TRAIN = 0.5, 20, 6, 64, 1344
SIZES = (64, 64, 10)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype("float32"), labels


def batches(digits):
    images, labels = digits
    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(TRAIN).reshape(-1, BATCH)
        yield from ((jnp.asarray(images[rows]), jnp.asarray(labels[rows])) for rows in order)


def weights():
    numbers = np.random.default_rng(0)
    sizes = itertools.pairwise(SIZES)
    matrices = [numbers.standard_normal((a, b)) * np.sqrt(2 / a) for a, b in sizes]
    return [(jnp.asarray(m, "float32"), jnp.zeros(m.shape[1])) for m in matrices]


def loss_of(logits, labels):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def plain_jax(batches):
    optimizer = zenith(LR, WINDOW, momentum=0.5)

    def apply(params, x):
        (w, b), (v, c) = params
        return jax.nn.relu(x @ w + b) @ v + c

    @jax.jit
    def step(params, state, x, y):
        grads = jax.grad(lambda p: loss_of(apply(p, x), y))(params)
        updates, state = optimizer.update(grads, state, params)
        logs = optax.tree.norm(grads), zenith_state(state).scale
        return optax.apply_updates(params, updates), state, logs

    params, logs = weights(), []
    state = optimizer.init(params)
    for x, y in batches:
        params, state, log = step(params, state, x, y)
        logs.append(log)
    return lambda x: apply(params, x), logs


def linen_train_state(batches):
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            hidden = linen.relu(linen.Dense(SIZES[1])(x))
            return linen.Dense(SIZES[2])(hidden)

    layers = zip(("Dense_0", "Dense_1"), weights(), strict=True)
    params = {name: {"kernel": w, "bias": b} for name, (w, b) in layers}
    tx = zenith(LR, WINDOW, momentum=0.5)
    state = TrainState.create(apply_fn=Model().apply, params=params, tx=tx)

    @jax.jit
    def step(state, x, y):
        loss = lambda params: loss_of(state.apply_fn({"params": params}, x), y)  # noqa: E731
        grads = jax.grad(loss)(state.params)
        state = state.apply_gradients(grads=grads)
        return state, (optax.tree.norm(grads), zenith_state(state.opt_state).scale)

    logs = []
    for x, y in batches:
        state, log = step(state, x, y)
        logs.append(log)
    return lambda x: state.apply_fn({"params": state.params}, x), logs


def flax_nnx(batches):
    rngs = nnx.Rngs(0)
    layers = [nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(SIZES)]
    for layer, (w, b) in zip(layers, weights(), strict=True):
        layer.kernel[...], layer.bias[...] = w, b
    model = nnx.Sequential(layers[0], nnx.relu, layers[1])
    optimizer = nnx.Optimizer(model, zenith(LR, WINDOW, momentum=0.5), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        grads = nnx.grad(lambda m: loss_of(m(x), y))(model)
        optimizer.update(model, grads)
        return optax.tree.norm(grads), zenith_state(optimizer.opt_state).scale[...]

    return model, [step(model, optimizer, x, y) for x, y in batches]


def equinox(batches):
    model = eqx.nn.MLP(64, 10, SIZES[1], depth=1, key=jax.random.key(0))
    leaves = lambda m: [leaf for layer in m.layers for leaf in (layer.weight, layer.bias)]  # noqa: E731
    model = eqx.tree_at(leaves, model, [x for w, b in weights() for x in (w.T, b)])
    optimizer = zenith(LR, WINDOW, momentum=0.5)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))  # None for every function

    @eqx.filter_jit
    def step(model, state, x, y):
        grads = eqx.filter_grad(lambda m: loss_of(jax.vmap(m)(x), y))(model)
        updates, state = optimizer.update(grads, state, model)
        logs = optax.tree.norm(grads), zenith_state(state).scale
        return eqx.apply_updates(model, updates), state, logs

    logs = []
    for x, y in batches:
        model, state, log = step(model, state, x, y)
        logs.append(log)
    return jax.vmap(model), logs


@pytest.mark.parametrize("train", [plain_jax, linen_train_state, flax_nnx, equinox])
def test_it_learns_the_digits_at_the_rates_of_algorithm_1(train, digits):
    predict, logs = train(batches(digits))
    norms, found = np.asarray(jax.device_get(logs), "float64").T
    assert len(norms) == EPOCHS * TRAIN // BATCH
    np.testing.assert_allclose(found, scales(norms, WINDOW), rtol=2e-6)
    assert found.min() < 0.6
    images, labels = digits
    correct = np.asarray(predict(jnp.asarray(images[TRAIN:])).argmax(-1)) == labels[TRAIN:]
    assert correct.mean() > 0.9


def test_all_ways_take_the_same_steps(digits):
    ways = (plain_jax, linen_train_state, flax_nnx, equinox)
    (first, _), *others = (train(batches(digits)) for train in ways)
    images = jnp.asarray(digits[0][TRAIN:])
    for predict, _ in others:
        np.testing.assert_allclose(predict(images), first(images), rtol=1e-3, atol=1e-3)


def test_a_state_is_read_and_put_into_the_variables_of_flax_nnx():
    model = nnx.Linear(2, 1, use_bias=False, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, zenith(LR, window=3), wrt=nnx.Param)
    carried = update(init(window=3), 5.0)
    optimizer.opt_state = set_zenith_state(optimizer.opt_state, carried)
    assert to_dict(zenith_state(optimizer.opt_state)) == to_dict(carried)
    optimizer.update(model, nnx.grad(lambda m: m(jnp.array([3.0, 4.0]))[0])(model))
    assert zenith_state(optimizer.opt_state).norms[...].tolist() == [5.0, 5.0, 0.0]
