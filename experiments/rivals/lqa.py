"""LQA: the minimum of a parabola through three losses, at every step."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, Tensors


class LQA(Rival):
    """SGD at the rate of least loss on the parabola through `-lr`, 0 and `lr` along the gradient.

    Zhu et al.: Automatic, Dynamic, and Nearly Optimal Learning Rate Specification via Local
    Quadratic Approximation (Neural Networks 141, 2021). The losses are measured at the last rate;
    the first is 0.1. Where the parabola has no minimum ahead, the rate stays what it was.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.1) -> None:
        super().__init__(params, lr=lr, rate=lr)

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Take a step."""
        rate = self.group["rate"] = self.best_rate(closure, loss, params, grads)
        torch._foreach_add_(params, grads, alpha=-rate)
