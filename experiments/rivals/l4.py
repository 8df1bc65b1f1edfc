"""L4: a fraction of the way to the least loss, along a smoothed gradient."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, Tensors, square


class L4(Rival):
    """Steps along the mean gradient v at the rate `fraction * (loss - target) / ||v||^2`.

    Rolinek, Martius: L4: Practical loss-based stepsize adaptation for deep learning (NeurIPS 2018,
    arXiv 1802.05074), algorithm 1 as L4Mom in the authors' code (martius-lab/l4-optimizer,
    `L4/L4.py`) with its settings: alpha 0.15, gamma 0.9, gamma_0 0.75, tau 1000, and momentum over
    10 steps. The mean is corrected for its bias and is both of the paper's g and v, so the rate is
    never negative. `target` is gamma times the least loss seen, which is forgotten over tau steps.
    """

    def __init__(
        self,
        params: Iterable[Any],
        fraction: float = 0.15,
        factor: float = 0.9,
        first_factor: float = 0.75,
        forget: float = 1000.0,
        memory: float = 10.0,
    ) -> None:
        super().__init__(
            params,
            fraction=fraction,
            factor=factor,
            first_factor=first_factor,
            forget=forget,
            memory=memory,
            least=math.inf,
            steps=0,
            rate=0.0,
        )

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Take a step."""
        own, now = self.group, float(loss)
        least = min(own["least"], now if own["steps"] else own["first_factor"] * now)
        own["steps"] += 1

        means = self.buffers(params, "mean")
        torch._foreach_lerp_(means, grads, 1 / own["memory"])
        unbiased = 1 - (1 - 1 / own["memory"]) ** own["steps"]
        length = square(means) / unbiased**2
        own["rate"] = own["fraction"] * (now - own["factor"] * least) / (length + 1e-12)
        torch._foreach_add_(params, means, alpha=-own["rate"] / unbiased)
        own["least"] = (1 + 1 / own["forget"]) * least
