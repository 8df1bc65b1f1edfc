"""What a step of Keras' `fit` costs end to end: `python -m benchmarks.fit`.

The same network is trained by `model.fit` with `keras.optimizers.SGD`, `Zenith` and
`ZenithWrapper`. One repetition fits a few steps with each, in an order drawn anew, and each is
compared with SGD of the *same* repetition; what is printed is the median over the repetitions of
those paired ratios, with their quartiles. KERAS_BACKEND chooses the backend.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import zenith
from benchmarks.quartiles import quartiles, ratios, spread
from zenith.tf import Zenith, ZenithWrapper

LR = 1e-3
BASELINE = "SGD"


@dataclass(frozen=True)
class Case:
    """A network, the images that it takes, and how long to look at it."""

    network: Callable[[], keras.Model]
    shape: tuple[int, int, int]
    steps: int  # timed in each repetition
    target: str  # of issue 3


def vgg19() -> keras.Model:
    """VGG-19 for images of 32 x 32: 20 million parameters."""
    features = keras.applications.VGG19(include_top=False, weights=None, input_shape=(32, 32, 3))
    return keras.Sequential([features, keras.layers.Flatten(), keras.layers.Dense(10)])


def small() -> keras.Model:
    """A convolutional network of 491,000 parameters for images of 28 x 28."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(150, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


CASES = {
    "vgg19": Case(vgg19, (32, 32, 3), steps=2, target="<= 1.02"),
    "small": Case(small, (28, 28, 1), steps=20, target="<= 1.06"),
}
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    BASELINE: lambda: keras.optimizers.SGD(LR, momentum=0.9),
    "Zenith": lambda: Zenith(LR, momentum=0.9),
    'Zenith, nonfinite="propagate"': lambda: Zenith(LR, momentum=0.9, nonfinite="propagate"),
    "SGD, global_clipnorm": lambda: keras.optimizers.SGD(LR, momentum=0.9, global_clipnorm=1.0),
    "ZenithWrapper(SGD)": lambda: ZenithWrapper(keras.optimizers.SGD(LR, momentum=0.9)),
}


def model(case: Case, optimizer: Any, jit_compile: Any) -> keras.Model:
    """Return the compiled network; a window that is full, so that the schedule is at work."""
    keras.utils.set_random_seed(0)
    network = case.network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss=loss, jit_compile=jit_compile)
    optimizer.build(network.trainable_variables)
    if hasattr(optimizer, "zenith_state"):
        optimizer.zenith_state = zenith.ZenithState(
            [1.0] * optimizer.window, optimizer.window, mean=1.0, zenith=2.0, scale=0.5, skipped=0
        )
    return network


def measure(case: Case, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return milliseconds a step: one number for each optimizer and repetition."""
    numbers = np.random.default_rng(0)
    size = case.steps * options.batch
    images = numbers.standard_normal((size, *case.shape)).astype("float32")
    labels = numbers.integers(0, 10, size)
    jit = {"auto": "auto", "yes": True, "no": False}[options.jit]
    models = {name: model(case, make(), jit) for name, make in OPTIMIZERS.items()}
    samples: dict[str, list[float]] = {name: [] for name in models}
    draw = random.Random(0)
    for repetition in range(options.repetitions + 1):  # the first, which traces, is thrown away
        for name in draw.sample(list(models), len(models)):
            start = time.perf_counter()
            models[name].fit(images, labels, batch_size=options.batch, verbose=0)
            if repetition:
                samples[name].append(1e3 * (time.perf_counter() - start) / case.steps)
    return samples


def table(name: str, samples: dict[str, list[float]], parameters: int) -> str:
    """The report of one network as text."""
    lines = [f"{name}: {parameters:,} parameters", f"{'':<32}{'ms a step':>10}  ratio to SGD"]
    for optimizer, own in samples.items():
        ratio = spread(ratios(own, samples[BASELINE]), 3)
        target = f"  (target {CASES[name].target})" if "Zenith" in optimizer else ""
        median = quartiles(own)["median"]
        lines.append(f"{optimizer:<32}{median:>10.2f}  {ratio}{target}")
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repetitions", type=int, default=15, metavar="N")
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="as in the paper")
    parser.add_argument("--jit", choices=["auto", "yes", "no"], default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print one table for each network, and write the figures where that was asked for."""
    options = arguments(argv)
    document: dict[str, Any] = {
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "cores": os.cpu_count(),
        "batch": options.batch,
        "jit_compile": options.jit,
        "milliseconds": {},
    }
    print(
        f"Keras {document['keras']} on {document['backend']}, {document['cores']} cores, batch "
        f"{options.batch}, jit_compile {options.jit}; medians of {options.repetitions} paired "
        "repetitions [quartiles]"
    )
    for name in options.models:
        samples = measure(CASES[name], options)
        document["milliseconds"][name] = samples
        parameters = CASES[name].network().count_params()
        print(f"\n{table(name, samples, parameters)}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
