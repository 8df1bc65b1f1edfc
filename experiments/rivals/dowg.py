"""DoWG: distance over weighted gradients."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, Tensors, square


class DoWG(Rival):
    """SGD at the rate `r^2 / (sqrt(v) + eps)`: `r` is the greatest distance from the start so far.

    Khaled, Mishchenko, Jin: DoWG Unleashed (NeurIPS 2023, arXiv 2305.16284), algorithm 1, as in the
    authors' code (rka97/dowg, `dowg/dowg.py`): `v` sums `r^2 ||g||^2` over the steps, and `eps` of
    1e-4 is also the square of the first `r`, which is 1e-2.

    The package `dowg` 0.3.1 is not used: its `ScalarDoWG` gathers the state only where it is handed
    a closure, in float32 on the CPU, clips the gradient, which the paper does not, and begins with
    an `r^2` of 0.9999.
    """

    def __init__(self, params: Iterable[Any], eps: float = 1e-4) -> None:
        super().__init__(params, eps=eps, squared=eps, weighted=0.0, rate=0.0)

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Take a step."""
        own = self.group
        for p in params:
            if "start" not in self.state[p]:
                self.state[p]["start"] = p.clone()
        moved = torch._foreach_sub(params, [self.state[p]["start"] for p in params])
        own["squared"] = max(own["squared"], square(moved))
        own["weighted"] += own["squared"] * square(grads)
        own["rate"] = own["squared"] / (own["weighted"] ** 0.5 + own["eps"])
        torch._foreach_sub_(params, grads, alpha=own["rate"])
