"""L4: a fraction of the way to the least loss, along a smoothed gradient."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, dot


class L4(Rival):
    """Steps along the mean gradient v at the rate `fraction * (loss - target) / (g . v)`.

    Rolinek, Martius: L4: Practical loss-based stepsize adaptation for deep learning (NeurIPS 2018,
    arXiv 1802.05074), algorithm 1 as L4Mom, with the settings recommended there: alpha 0.15, gamma
    0.9, gamma_0 0.75, tau 1000, and momentum over 10 steps. `target` is gamma times the least loss
    seen, which is forgotten over tau steps.
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
        )

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Take a step; return the loss before it."""
        with torch.enable_grad():
            loss = closure()
        params, grads = self.vectors()
        group, own, now = self.settings, self.scalars, float(loss)
        least = min(own["least"], now) if own else group["first_factor"] * now
        own["steps"] = own.get("steps", 0) + 1

        means = self.buffers(params, "mean")
        torch._foreach_lerp_(means, grads, 1 / group["memory"])
        unbiased = 1 - (1 - 1 / group["memory"]) ** own["steps"]
        along = dot(grads, means) / unbiased
        rate = group["fraction"] * (now - group["factor"] * least) / (along + 1e-12)
        torch._foreach_add_(params, means, alpha=-rate / unbiased)
        own["least"] = (1 + 1 / group["forget"]) * least
        return loss
