"""Models and runs for the parity tests: Algorithm 1 around SGD in numpy, in float64.

The gradients of the reference are those of `autograd`, so that it shares nothing with zenith/ and
nothing with any framework. What a framework does of its own is in the module that `FRAMEWORKS`
names, and only that module imports it. A dense kernel has the shape (in, out), one of a convolution
(height, width, in, out).
"""

import importlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import autograd
import autograd.numpy as anp
import numpy as np

STEPS, WINDOW, BATCH, LR = 600, 50, 8, 0.1
BAD_STEPS = (200, 201, 430)  # whose inputs hold a NaN

RATES: dict[str, Callable[[int], float]] = {
    "constant": lambda t: LR,
    "warm-up": lambda t: LR * min(1.0, (t + 1) / 100),
    "cosine": lambda t: LR * (1 + math.cos(math.pi * t / STEPS)) / 2,
}


class Framework(NamedTuple):
    """What the tests have to know of a framework before they import it.

    Attributes:
        groups: whether parameters may have rates of their own.
        rate_in_momentum: whether the rate goes into the momentum, as in Keras, or on what comes out
            of it, as in torch.
    """

    groups: bool = True
    rate_in_momentum: bool = False


FRAMEWORKS = {
    "torch": Framework(),
    "optax": Framework(),
    "keras": Framework(groups=False, rate_in_momentum=True),
}


def in_framework(name: str) -> Any:
    """Return `_parity_<name>`, which holds two functions.

    `run(problem, schedule, momentum, dtype, leg=None)` trains one of `PROBLEMS` at one of `RATES`
    from the start of a `Leg` to its end, writes into the leg's `document`, and returns a `Run`.

    `keeper(state, dtype)` puts a state of plain numbers into a fresh optimizer or schedule, and
    returns a function of a norm that takes one step and returns the state after it, as a document.
    """
    return importlib.import_module(f"_parity_{name}")


class Problem(NamedTuple):
    """A model, its first weights, and the data of every step.

    Attributes:
        predict: what the weights and a batch of inputs make, in `autograd.numpy`.
        weights: the arrays that the model is made of.
        factors: for each of the weights its own factor on the rate; None where it is frozen, and
            so has no part in the norm.
        inputs, targets: one batch for each step.
    """

    predict: Callable[[Any, Any], Any]
    weights: list[np.ndarray]
    factors: list[float | None]
    inputs: np.ndarray
    targets: np.ndarray


def mlp(weights: Any, x: Any) -> Any:
    kernel, bias, out, out_bias = weights
    return anp.dot(anp.tanh(anp.dot(x, kernel) + bias), out) + out_bias


def cnn(weights: Any, x: Any) -> Any:
    """One convolution, taken twice with the same kernel, then the mean over the image."""
    kernel, bias, out, out_bias = weights
    for _ in range(2):
        x = anp.tanh(convolved(x, kernel) + bias)
    return anp.dot(anp.mean(x, axis=(1, 2)), out) + out_bias


def convolved(x: Any, kernel: Any) -> Any:
    height, width = x.shape[1:3]
    padded = anp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "constant")
    return sum(
        anp.dot(padded[:, i : i + height, j : j + width], kernel[i, j])
        for i in range(3)
        for j in range(3)
    )


def problems() -> dict[str, Problem]:
    numbers = np.random.default_rng(0)

    def weights(*shapes: tuple[int, ...]) -> list[np.ndarray]:
        return [numbers.standard_normal(s) / math.sqrt(math.prod(s[:-1]) or 1) for s in shapes]

    dense = weights((6, 8), (8,), (8, 3), (3,))
    conv = weights((3, 3, 2, 2), (2,), (2, 3), (3,))
    flat = data(numbers, (6,))
    image = data(numbers, (6, 6, 2))
    return {
        "mlp": Problem(mlp, dense, [1.0] * 4, *flat),
        "cnn": Problem(cnn, conv, [1.0] * 4, *image),
        "masked": Problem(mlp, dense, [None, None, 1.0, 1.0], *flat),
        "groups": Problem(mlp, dense, [1.0, 0.0, 0.25, 0.5], *flat),
    }


def data(numbers: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Batches whose gradients rise and fall; every number is exact in float32."""
    inputs = numbers.standard_normal((STEPS, BATCH, *shape)).astype("float32").astype("float64")
    size = 1.2 + np.sin(np.arange(STEPS) / 30)
    targets = size[:, None, None] * numbers.standard_normal((STEPS, BATCH, 3))
    inputs[list(BAD_STEPS), 0] = np.nan
    return inputs, targets.astype("float32").astype("float64")


PROBLEMS = problems()


class Run(NamedTuple):
    """The factor on the rate of every step, and all weights after it: shape (steps, weights)."""

    scales: np.ndarray
    weights: np.ndarray


@dataclass
class Leg:
    """A part of a run: where it begins, and what it leaves behind."""

    steps: range = range(STEPS)
    weights: list[np.ndarray] | None = None
    document: dict[str, Any] | None = None

    def data(self, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.steps.start, self.steps.stop)
        return problem.inputs[part], problem.targets[part]


def flat(weights: Any) -> np.ndarray:
    return np.concatenate([np.asarray(w, "float64").reshape(-1) for w in weights])


def reference(
    problem: Problem, rate: Callable[[int], float], momentum: float, rate_in_momentum: bool
) -> Run:
    """SGD under Algorithm 1: torch's form of momentum, or Keras', which keeps the rate in it."""
    weights = [w.copy() for w in problem.weights]
    trained = [i for i, factor in enumerate(problem.factors) if factor is not None]
    buffers = {i: np.zeros_like(weights[i]) for i in trained}
    queue: deque[float] = deque()
    zenith, scale, scales, history = 0.0, 1.0, [], []

    def loss(own: list[Any], x: Any, y: Any) -> Any:
        every = list(weights)
        for i, weight in zip(trained, own, strict=True):
            every[i] = weight
        return anp.mean((problem.predict(every, x) - y) ** 2)

    gradient_of = autograd.grad(loss)
    for t, (x, y) in enumerate(zip(problem.inputs, problem.targets, strict=True)):
        gradients = gradient_of([weights[i] for i in trained], x, y)
        norm = math.sqrt(math.fsum(float((g**2).sum()) for g in gradients))
        if math.isfinite(norm):
            queue.append(norm)
            if len(queue) > WINDOW:
                queue.popleft()
            if len(queue) == WINDOW:
                mean = math.fsum(queue) / WINDOW
                zenith = max(zenith, mean)
                scale = mean / zenith
            for i, gradient in zip(trained, gradients, strict=True):
                step = rate(t) * scale * problem.factors[i]
                if rate_in_momentum:
                    buffers[i] = momentum * buffers[i] - step * gradient
                    weights[i] = weights[i] + buffers[i]
                else:
                    buffers[i] = momentum * buffers[i] + gradient
                    weights[i] = weights[i] - step * buffers[i]
        scales.append(scale)
        history.append(flat(weights))
    return Run(np.array(scales), np.array(history))
