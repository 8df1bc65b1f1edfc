"""What else could set the rate: ZENITH as it is, handed another number than the gradient's norm.

Each signal takes the place of the norm by `step(grad_norm=...)`, and nothing of the package is
changed: the window, its highest mean and the cap are those of `zenith.torch.Zenith`. So what a run
records as `grad_norm` is the signal. `grad_norm=` of the package means the norm; this is the one
place where it means anything else.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Tensors, buffers, dot, square
from zenith.torch import Zenith

__all__ = ["Ema", "Halves", "Loss", "Sasa", "Signal", "Successive"]


class Signal(Zenith):
    """ZENITH whose rate follows `signal`.

    Args:
        params: one group of parameters.
        lr: the cap of the rate.
        window: signals in a mean.
        momentum: of SGD.
        nonfinite: what becomes of a step whose signal is not finite.
        own: the numbers of the state beside ZENITH's own; `state_dict` has them as well.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        window: int = 500,
        momentum: float = 0.0,
        nonfinite: Literal["skip", "propagate"] = "skip",
        **own: Any,
    ) -> None:
        super().__init__(params, lr, window=window, momentum=momentum, nonfinite=nonfinite)
        self.own.update(own)

    @property
    def own(self) -> dict[str, Any]:
        """The one group."""
        return self.param_groups[0]

    @torch.no_grad()
    def step(self, closure: Closure, **_: Any) -> Tensor:  # type: ignore[override]
        """Take a step; return the loss before it."""
        with torch.enable_grad():
            loss = self.gradient(closure)
        params = self.moved()
        if params:
            signal = self.signal(float(loss), params, [p.grad for p in params])
            super().step(grad_norm=signal)
        return loss

    def gradient(self, closure: Closure) -> Tensor:
        """Leave the gradient of the batch in the parameters; return the loss."""
        return closure()

    def moved(self) -> list[Any]:
        """Return the parameters that have a gradient."""
        return [p for p in self.own["params"] if p.grad is not None]

    def signal(self, loss: float, params: Tensors, grads: Tensors) -> float:
        """Return what stands in for the norm of this step's gradient: at least 0, or NaN."""
        raise NotImplementedError


class Ema(Signal):
    """The norm of an exponential mean of the gradients, corrected for its bias as in Adam.

    Noise that is independent from step to step is less in the mean by about (1 - decay) / 2 of its
    square, so with a decay near 1 the norm is that of the gradient itself, and late by 1 / (1 -
    decay) steps.
    """

    def __init__(self, params: Iterable[Any], decay: float, **options: Any) -> None:
        super().__init__(params, **options, decay=decay, steps=0)

    def signal(self, loss: float, params: Tensors, grads: Tensors) -> float:
        """Return the norm of the mean."""
        own, means = self.own, buffers(self, params, "mean")
        own["steps"] += 1
        torch._foreach_lerp_(means, grads, 1 - own["decay"])
        return math.sqrt(square(means)) / float(1 - own["decay"] ** own["steps"])


class Halves(Signal):
    """The root of the inner product of the gradients of the two halves of a batch, 0 at least.

    At fixed parameters the two are independent and each has the full gradient as its mean, so their
    inner product is an unbiased measure of that gradient's squared norm: the one that McCandlish,
    Kaplan, Amodei et al. (An Empirical Model of Large-Batch Training, arXiv 1812.06162, appendix
    A.1) make of two sizes of batch, here a half and the whole. The root, and the floor at 0 of a
    product that noise has made negative, are not unbiased: where noise prevails it is in the signal
    as well, but less than in the norm.

    The step goes along the mean of the two gradients, which is that of the batch. Only where there
    is batch norm it differs: each half has its own statistics.
    """

    def gradient(self, closure: Closure) -> Tensor:
        """Take the two gradients, and leave their mean; return the mean loss."""
        losses = [closure(half=0)]
        first = [p.grad for p in self.moved()]
        losses.append(closure(half=1))
        second = [p.grad for p in self.moved()]
        self.product = dot(first, second)
        torch._foreach_lerp_(second, first, 0.5)
        return torch.stack(losses).mean()

    def signal(self, loss: float, params: Tensors, grads: Tensors) -> float:
        """Return the root of the product."""
        return rooted(self.product)


class Successive(Signal):
    """The root of the inner product of this step's gradient and the last one's, 0 at least.

    As `Halves`, on two batches instead of two halves, and without a further pass; but between the
    two there is a step, against the first of them. Where steps are long enough to overshoot, the
    product is negative for that reason. At the first step it is the norm.
    """

    def signal(self, loss: float, params: Tensors, grads: Tensors) -> float:
        """Return the root of the product."""
        last = [self.state[p].get("last", grad) for p, grad in zip(params, grads, strict=True)]
        product = dot(last, grads)
        torch._foreach_copy_(buffers(self, params, "last"), grads)
        return rooted(product)


class Loss(Signal):
    """The training loss of the batch, which costs nothing, and whose least value is to be 0."""

    def signal(self, loss: float, params: Tensors, grads: Tensors) -> float:
        """Return the loss."""
        return max(loss, 0.0)


class Sasa(Signal):
    """SASA+: a tenth of the rate whenever a test finds that the parameters are stationary.

    Zhang, Lang, Liu, Xiao: Statistical Adaptive Stochastic Gradient Methods (arXiv 2002.10597),
    as in the authors' code (microsoft/statopt, `statopt/sasa.py` and `bucket.py`) without momentum.
    Where x is stationary, so is its norm, and `<x, g> - rate / 2 * ||g||^2` has the mean 0. Of
    these numbers the latest eighth since the last drop is kept. The test is made every 100 steps: 0
    lies in the interval of 95 % around their mean, and the means of their two halves have one sign;
    before the first drop, 0 lies in such an interval around the mean of either half.

    The package statopt 0.2 is not used: its state cannot be saved as tensors and numbers. The width
    is by batch means, as in the paper; the code's default is a name that it does not know, and
    takes the numbers for independent. There are no 1,000 steps of warm-up, for which our runs are
    too short. The signal is 1, a tenth, a hundredth, under a window of 1.

    Args:
        params: one group of parameters.
        lr: the first rate.
        least: numbers to keep before a test is made; the authors' 1,000 are kept after 8,000 steps.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.1, least: int = 1000) -> None:
        super().__init__(params, lr, window=1, least=least, steps=0, seen=0, kept=[], drops=0)

    def signal(self, loss: float, params: Tensors, grads: Tensors) -> float:
        """Return the factor that is in force at this step; the test is for the next one."""
        own, factor = self.own, float(0.1 ** self.own["drops"])
        number = dot(params, grads) - own["lr"] * factor / 2 * square(grads)
        own["steps"] += 1
        own["seen"] += 1
        own["kept"] = [*own["kept"], number][-math.ceil(own["seen"] / 8) :]
        due = own["steps"] % 100 == 0 and len(own["kept"]) > own["least"]
        if due and stationary(own["kept"], twice=not own["drops"]):
            own |= {"seen": 0, "kept": [], "drops": own["drops"] + 1}
        return factor


def rooted(product: float) -> float:
    """The root of what is not negative; 0 of what is; NaN of NaN."""
    return 0.0 if product < 0 else math.sqrt(product)


def stationary(numbers: Sequence[float], twice: bool) -> bool:
    """Whether the mean of a sequence may be 0, at a level of 5 %, by means of batches.

    Args:
        numbers: four or more, in their order; neighbours may depend on each other.
        twice: whether to ask it of either half, rather than of the whole.
    """
    import numpy as np
    from scipy.stats import t

    count, size = len(numbers), math.isqrt(len(numbers))
    batches = np.reshape(numbers[: count // size * size], (-1, size)).mean(1)
    spread = math.sqrt(size / (len(batches) - 1)) * np.linalg.norm(batches - np.mean(numbers))
    within = spread * t.ppf(0.975, len(batches) - 1) / math.sqrt(count)
    halves = [float(np.mean(half)) for half in (numbers[: count // 2], numbers[count // 2 :])]
    means = halves if twice else [float(np.mean(numbers))]
    return halves[0] * halves[1] > 0 and all(abs(mean) < within for mean in means)
