"""SPS: the stochastic Polyak step size, with a cap."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, square


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
        super().__init__(params, lr=lr, c=c, best=best)

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Take a step; return the loss before it."""
        with torch.enable_grad():
            loss = closure()
        params, grads = self.vectors()
        group = self.settings
        polyak = (float(loss) - group["best"]) / (group["c"] * square(grads) + 1e-12)
        torch._foreach_add_(params, grads, alpha=-min(polyak, group["lr"]))
        return loss
