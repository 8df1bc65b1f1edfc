"""SPS: the stochastic Polyak step size, with a cap."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, Tensors, square


class SPS(Rival):
    """SGD at the rate `min((loss - best) / (c * ||g||^2), lr)`.

    Loizou, Vaswani, Laradji, Lacoste-Julien: Stochastic Polyak Step-size for SGD (AISTATS 2021,
    arXiv 2002.10542), SPS_max. `c` is 0.5, as in the authors' own code, and the least loss 0, which
    a network that interpolates can reach. The ZENITH paper caps the rate at 0.1; the authors' code
    also lets the cap grow from step to step, which is left out here.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.1, c: float = 0.5, best: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, c=c, best=best, rate=lr)

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Take a step."""
        group = self.group
        polyak = (float(loss) - group["best"]) / (group["c"] * square(grads) + 1e-12)
        group["rate"] = min(polyak, group["lr"])
        torch._foreach_add_(params, grads, alpha=-group["rate"])
