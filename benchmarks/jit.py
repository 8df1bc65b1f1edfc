"""What a step costs under `jax.jit`: `python -m benchmarks.jit`.

Every variant steps the same parameters with the same gradients, both donated, as a training loop
does. One repetition runs them all, in an order drawn anew, and each is compared with its baseline
in the *same* repetition; what is printed is the median over the repetitions of those paired
ratios, with their quartiles. "vgg19" is the step of the optimizer alone, on 20 million parameters;
"small" is a whole training step, forward and backward, of a small convolutional network.
"""

import argparse
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

import zenith.optax as zo
from benchmarks.quartiles import quartiles, ratios, spread
from zenith import ZenithState

LR = 1e-9  # so small that the parameters stay where they are
CHANNELS = [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8]


@dataclass(frozen=True)
class Variant:
    """An optimizer, and what it is compared with."""

    optimizer: optax.GradientTransformation
    baseline: str
    target: str = ""


def variants(target: str, rivals: bool = False) -> dict[str, Variant]:
    """SGD and ZENITH, with and without momentum, ZENITH with a long window, and optax's rivals."""
    own = {}
    for momentum, suffix in ((None, ""), (0.9, ", momentum")):
        sgd = f"sgd{suffix}"
        own[sgd] = Variant(optax.sgd(LR, momentum), sgd)
        own[f"zenith{suffix}"] = Variant(zo.zenith(LR, momentum=momentum), sgd, target)
        propagate = zo.zenith(LR, momentum=momentum, nonfinite="propagate")
        own[f'zenith{suffix}, nonfinite="propagate"'] = Variant(propagate, sgd, target)
    long = zo.zenith(LR, window=15_000)
    own["zenith, window 15,000"] = Variant(long, "zenith", "<= 1.05 of window 500")
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(LR))
    own["clip_by_global_norm + sgd"] = Variant(clipped, "sgd")
    if rivals:
        contrib = {
            "cocob": optax.contrib.cocob(),
            "dadapt_adamw": optax.contrib.dadapt_adamw(),
            "dog": optax.contrib.dog(),
            "dowg": optax.contrib.dowg(),
            "mechanize(sgd)": optax.contrib.mechanize(optax.sgd(LR)),
            "prodigy": optax.contrib.prodigy(),
            "schedule_free_sgd": optax.contrib.schedule_free_sgd(LR),
        }
        own |= {name: Variant(optimizer, "sgd") for name, optimizer in contrib.items()}
    return own


def filled(opt_state: Any) -> Any:
    """The state with a full window, so that what is timed is the schedule at work."""
    try:
        window = zo.zenith_state(opt_state).norms.shape[0]
    except ValueError:
        return opt_state
    state = ZenithState([1.0] * window, window, mean=1.0, zenith=2.0, scale=0.5, skipped=0)
    return zo.set_zenith_state(opt_state, state)


# --- the two cases: each returns parameters, and what makes a step of an optimizer


def vgg19(batch: int) -> tuple[Any, Callable[[optax.GradientTransformation], Callable[..., Any]]]:
    """The parameters of VGG-19 for CIFAR, and a step of the optimizer alone."""
    del batch
    shapes = [(3, 3, a, b) for a, b in itertools.pairwise(CHANNELS)]
    shapes += [(channels,) for channels in CHANNELS[1:]] + [(512, 10), (10,)]
    keys = jax.random.split(jax.random.key(0), len(shapes))
    params = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    grads = [jax.random.normal(key, param.shape) for key, param in zip(keys, params, strict=True)]

    def step(optimizer: optax.GradientTransformation) -> Callable[..., Any]:
        update = jax.jit(partial_step(optimizer), donate_argnums=(0, 1))
        return lambda params, state: update(params, state, grads)

    return params, step


def partial_step(optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """One update of the parameters by gradients that are given."""

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def small(batch: int) -> tuple[Any, Callable[[optax.GradientTransformation], Callable[..., Any]]]:
    """A convolutional network of 491,000 parameters, and a whole step on images of 28 x 28."""
    keys = jax.random.split(jax.random.key(0), 6)
    shapes = [(3, 3, 1, 32), (3, 3, 32, 64), (7 * 7 * 64, 150), (150, 10)]
    weights = [jax.random.normal(k, s) * 0.05 for k, s in zip(keys, shapes, strict=False)]
    params = [(weight, jnp.zeros(weight.shape[-1])) for weight in weights]
    images = jax.random.normal(keys[4], (batch, 28, 28, 1))
    labels = jax.random.randint(keys[5], (batch,), 0, 10)

    def loss(params: Any) -> jax.Array:
        x = images
        for weight, bias in params[:2]:
            layout = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=layout)
            x = jax.nn.relu(x + bias)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = x.reshape(len(x), -1)
        x = jax.nn.relu(x @ params[2][0] + params[2][1])
        logits = x @ params[3][0] + params[3][1]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(optimizer: optax.GradientTransformation) -> Callable[..., Any]:
        own = partial_step(optimizer)

        def train(params: Any, state: Any) -> tuple[Any, Any]:
            return own(params, state, jax.grad(loss)(params))

        return jax.jit(train, donate_argnums=(0, 1))

    return params, step


CASES = {"vgg19": (vgg19, 5, "<= 1.40"), "small": (small, 5, "<= 1.02")}


def measure(
    name: str, repetitions: int, batch: int, rivals: bool = False
) -> tuple[int, dict[str, list[float]]]:
    """Return the number of parameters, and microseconds a step for each variant and repetition."""
    case, steps, target = CASES[name]
    params, make = case(batch)
    runs = {}
    for variant, own in variants(target, rivals).items():
        # Copies: some of optax.contrib's states share buffers, which cannot be donated together.
        copied, state = jax.tree.map(jnp.copy, (params, filled(own.optimizer.init(params))))
        runs[variant] = [make(own.optimizer), copied, state]
    samples: dict[str, list[float]] = {variant: [] for variant in runs}
    draw = random.Random(0)
    for repetition in range(repetitions + 1):  # the first, which compiles, is thrown away
        for variant in draw.sample(list(runs), len(runs)):
            step, own, state = runs[variant]
            own, state = jax.block_until_ready(step(own, state))
            start = time.perf_counter()
            for _ in range(steps):
                own, state = step(own, state)
            jax.block_until_ready((own, state))
            if repetition:
                samples[variant].append(1e6 * (time.perf_counter() - start) / steps)
            runs[variant] = [step, own, state]
    return sum(leaf.size for leaf in jax.tree.leaves(params)), samples


def table(name: str, parameters: int, samples: dict[str, list[float]], rivals: bool = False) -> str:
    """The report of one case as text."""
    lines = [
        f"{name}: {parameters:,} parameters",
        f"{'':<44}{'us a step':>10}  ratio to the baseline",
    ]
    for variant, own in variants(CASES[name][2], rivals).items():
        ratio = spread(ratios(samples[variant], samples[own.baseline]), 3)
        target = f"  (target {own.target})" if own.target else ""
        median = quartiles(samples[variant])["median"]
        lines.append(f"{variant:<44}{median:>10.0f}  {ratio} of {own.baseline}{target}")
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repetitions", type=int, default=40, metavar="N")
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="as in the paper")
    parser.add_argument("--rivals", action="store_true", help="those of optax.contrib too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print one table for each case, and write the figures where that was asked for."""
    options = arguments(argv)
    device = jax.devices()[0].device_kind
    print(
        f"jax {jax.__version__}, optax {optax.__version__} on {device}, {os.cpu_count()} cores; "
        f"medians of {options.repetitions} paired repetitions [quartiles]"
    )
    document: dict[str, Any] = {"jax": jax.__version__, "device": device, "microseconds": {}}
    for name in options.models:
        parameters, samples = measure(name, options.repetitions, options.batch, options.rivals)
        document["microseconds"][name] = samples
        print(f"\n{table(name, parameters, samples, options.rivals)}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
