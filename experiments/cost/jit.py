"""What a step of optax costs under `jax.jit`.

Every variant steps the same parameters with the same gradients, both donated, as a training loop
does. "vgg19" is the step of the optimizer alone; "small" is a whole training step, forward and
backward.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import zenith.optax as zo
from experiments.cost.cases import NETWORKS, Document, full, made, table, variants
from experiments.cost.paired import clock, interleaved
from experiments.tasks import shapes

__all__ = ["forward", "initial", "measure", "table"]

LR = 1e-9  # so small that the parameters stay where they are
STEPS = {"vgg19": 5, "small": 20}  # in a repetition


class Variant(NamedTuple):
    """An optimizer, and what it is compared with."""

    name: str
    optimizer: Any
    baseline: str


def own() -> Iterator[Variant]:
    """SGD and ZENITH, with and without momentum, a long window, and clipping."""
    for momentum, suffix in ((None, ""), (0.9, ", momentum")):
        sgd = f"sgd{suffix}"
        yield Variant(sgd, optax.sgd(LR, momentum), sgd)
        yield Variant(f"zenith{suffix}", zo.zenith(LR, momentum=momentum), sgd)
        propagate = zo.zenith(LR, momentum=momentum, nonfinite="propagate")
        yield Variant(f'zenith{suffix}, nonfinite="propagate"', propagate, sgd)
    yield Variant("zenith, window 15,000", zo.zenith(LR, window=15_000), "zenith")
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(LR))
    yield Variant("clip_by_global_norm + sgd", clipped, "sgd")


def rivals() -> Iterator[Variant]:
    """What optax itself has to set the rate."""
    for make in (optax.contrib.cocob, optax.contrib.dadapt_adamw, optax.contrib.dog):
        yield Variant(make.__name__, make(), "sgd")
    yield Variant("dowg", optax.contrib.dowg(), "sgd")
    yield Variant("mechanize(sgd)", optax.contrib.mechanize(optax.sgd(LR)), "sgd")
    yield Variant("prodigy", optax.contrib.prodigy(), "sgd")
    yield Variant("schedule_free_sgd", optax.contrib.schedule_free_sgd(LR), "sgd")


def initial(network: shapes.Network) -> list[tuple[jax.Array, jax.Array]]:
    """Return a random weight and a bias for each layer that has them."""
    keys = jax.random.split(jax.random.key(0), len(network.learnt))
    return [
        (0.05 * jax.random.normal(key, layer.weight), jnp.zeros(layer.outputs))
        for key, layer in zip(keys, network.learnt, strict=True)
    ]


def forward(network: shapes.Network, params: Any, x: jax.Array) -> jax.Array:
    """Return the logits of images, channels last."""
    learnt = iter(params)
    layout = ("NHWC", "HWIO", "NHWC")
    for kind, _, outputs, stride, relu in network.layers:
        weight, bias = next(learnt) if outputs else (None, 0.0)
        if kind == "pool":
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        elif kind == "flat":
            x = x.reshape(len(x), -1)
        elif kind == "conv":
            strides, padding = (stride, stride), ((1, 1), (1, 1))
            x = jax.lax.conv_general_dilated(x, weight, strides, padding, dimension_numbers=layout)
        else:
            x = x @ weight
        x = jax.nn.relu(x + bias) if outputs and relu else x + bias
    return x


def filled(opt_state: Any) -> Any:
    """The state with a full window, where there is one."""
    try:
        window = zo.zenith_state(opt_state).norms.shape[0]
    except ValueError:
        return opt_state
    return zo.set_zenith_state(opt_state, full(window))


class Work(NamedTuple):
    """What gives the gradient of a step: of parameters, and of arguments that are the same."""

    gradient: Callable[..., Any]
    arguments: tuple[Any, ...]


def timed(variant: Variant, params: Any, work: Work, steps: int) -> Callable[[], float]:
    """Return what measures the milliseconds of a step."""

    def update(params: Any, state: Any, *arguments: Any) -> tuple[Any, Any]:
        grads = work.gradient(params, *arguments)
        updates, state = variant.optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(update, donate_argnums=(0, 1))
    # Copies: some of optax.contrib's states share buffers, which cannot be donated together.
    at = jax.tree.map(jnp.copy, (params, filled(variant.optimizer.init(params))))

    def make_steps() -> None:
        nonlocal at
        for _ in range(steps):
            at = step(*at, *work.arguments)
        jax.block_until_ready(at)

    return clock(make_steps, steps)


def measure(options: Any) -> Document:
    """Return the milliseconds of a step with every optimizer for each of the networks."""
    device = jax.devices()[0].device_kind
    return {
        "made": made(jax=jax.__version__, optax=optax.__version__, device=device),
        "cases": {name: _case(name, options) for name in options.models},
    }


def _case(name: str, options: Any) -> Document:
    network = NETWORKS[name]
    params = initial(network)
    all_of_them = [*own(), *(rivals() if options.rivals else ())]
    work = _given(params) if name == "vgg19" else _of_a_loss(network, options.batch)
    runs = {variant.name: timed(variant, params, work, STEPS[name]) for variant in all_of_them}
    samples = interleaved(runs, options.repetitions)
    return {
        "parameters": network.parameters,
        "batch": None if name == "vgg19" else options.batch,
        "variants": variants(samples, {v.name: v.baseline for v in all_of_them}),
    }


def _given(params: Any) -> Work:
    grads = jax.tree.map(lambda param: jax.random.normal(jax.random.key(1), param.shape), params)
    return Work(lambda params, grads: grads, (grads,))


def _of_a_loss(network: shapes.Network, batch: int) -> Work:
    shape = (batch, network.size, network.size, network.channels)
    images = jax.random.normal(jax.random.key(2), shape)
    labels = jax.random.randint(jax.random.key(3), (batch,), 0, 10)

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = forward(network, params, images)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return Work(jax.grad(loss), (images, labels))
