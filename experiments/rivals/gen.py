"""GeN: the generalized Newton rate, measured now and then and smoothed."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, Tensors


class GeN(Rival):
    """SGD whose rate moves towards that of least loss on a parabola, every few steps.

    Bu, Xu: Gradient descent with generalized Newton's method (ICLR 2025, arXiv 2407.02772),
    two more losses at `-lr` and `lr` along the gradient, every 4 steps (the authors' code asks for
    4 or more), and the rate smoothed with 0.9. Where the parabola has no minimum ahead, the rate
    stays what it was.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.1, every: int = 4, smoothing: float = 0.9
    ) -> None:
        super().__init__(params, lr=lr, every=every, smoothing=smoothing, rate=lr, steps=0)

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Take a step."""
        own = self.group
        if own["steps"] % own["every"] == 0:
            best = self.best_rate(closure, loss, params, grads)
            own["rate"] += (1 - own["smoothing"]) * (best - own["rate"])
        own["steps"] += 1
        torch._foreach_add_(params, grads, alpha=-own["rate"])
