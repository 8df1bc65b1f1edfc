"""The runs of the parity tests in optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _parity import PROBLEMS, RATES, WINDOW, Leg, Run, flat

import zenith
from zenith.optax import scale_by_zenith, set_zenith_state, with_zenith, zenith_state
from zenith.optax import zenith as sgd_under_zenith


def keeper(state, dtype):
    optimizer = scale_by_zenith(len(state.norms))
    x64 = dtype == "float64"
    with jax.enable_x64(x64):
        own = set_zenith_state(optimizer.init(jnp.zeros(1, dtype)), state)
        update = jax.jit(optimizer.update)

    def observe(norm):
        nonlocal own
        with jax.enable_x64(x64):
            _, own = update(jnp.ones(1, dtype), own, grad_norm=norm)
            return zenith.to_dict(own)

    return observe


def run(name, schedule, momentum, dtype, leg=None):
    leg, problem = leg or Leg(), PROBLEMS[name]

    def predict(weights, x):
        kernel, bias, out, out_bias = weights
        if name != "cnn":
            return jnp.tanh(x @ kernel + bias) @ out + out_bias
        layout = ("NHWC", "HWIO", "NHWC")
        for _ in range(2):
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
            x = jnp.tanh(x + bias)
        return x.mean((1, 2)) @ out + out_bias

    with jax.enable_x64(dtype == "float64"):
        rates = jnp.asarray([RATES[schedule](t) for t in leg.steps], dtype)
        if name == "groups":
            labels = [str(i) for i in range(4)]
            pairs = zip(labels, problem.factors, strict=True)
            members = {label: optax.sgd(factor, momentum or None) for label, factor in pairs}
            inner = with_zenith(optax.partition(members, labels), WINDOW)
            # A schedule inside `with_zenith` would stand still in a step that is skipped.
            optimizer = optax.chain(inner, optax.scale_by_schedule(lambda t: rates[t]))
        else:
            optimizer = sgd_under_zenith(lambda t: rates[t], WINDOW, momentum or None)
        if name == "masked":
            labels = ["train" if factor is not None else "freeze" for factor in problem.factors]
            members = {"train": optimizer, "freeze": optax.set_to_zero()}
            optimizer = optax.partition(members, labels)

        def loss(weights, x, y):
            return jnp.mean(jnp.square(predict(weights, x) - y))

        def step(carry, batch):
            weights, state = carry
            updates, state = optimizer.update(jax.grad(loss)(weights, *batch), state, weights)
            weights = optax.apply_updates(weights, updates)
            return (weights, state), (zenith_state(state).scale, weights)

        weights = [jnp.asarray(weight, dtype) for weight in leg.weights or problem.weights]
        state = optimizer.init(weights)
        if leg.document is not None:
            state = set_zenith_state(state, zenith.from_dict(leg.document))
        batches = tuple(jnp.asarray(array, dtype) for array in leg.data(problem))
        (_, state), (scales, history) = jax.lax.scan(step, (weights, state), batches)
        leg.document = zenith.to_dict(zenith_state(state))
        return Run(np.asarray(scales), np.array([flat(w) for w in zip(*history, strict=True)]))
