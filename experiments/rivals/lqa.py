"""LQA: the minimum of a parabola through three losses, at every step."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, Tensors, largest


class LQA(Rival):
    """SGD at the rate of least loss on a parabola along the gradient, up to a cap.

    Zhu et al.: Automatic, Dynamic, and Nearly Optimal Learning Rate Specification via Local
    Quadratic Approximation (Neural Networks 141, 2021, arXiv 2004.03260), as in the authors' code
    (inqzhu/LQA, `LQA.py`). Two more losses are taken at a fixed distance ahead and behind, where
    the parameter that moves most has moved by `probe`: 1, less by 0.02 in every epoch, but 0.1 at
    least. The size of the best step in those units is the rate, also where the parabola has a
    maximum there, and also where its units are not those of the gradient: the authors scale the
    gradient for the losses alone.

    Their cap is 0.5; it is 0.1 here, as the ZENITH paper says of it. They copy the model five times
    a step, which is not needed and not done here, and take the two losses in evaluation mode; here
    all three are of the same function, in training mode.

    Args:
        params: the parameters.
        lr: the cap.
        epoch: the steps of an epoch; by default there is but one.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.1, epoch: float = math.inf) -> None:
        super().__init__(params, lr=lr, epoch=epoch, rate=lr, steps=0)

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Take a step."""
        own, scale = self.group, largest(grads)
        probe = max(1 - 0.02 * (own["steps"] // own["epoch"]), 0.1)
        own["steps"] += 1
        if scale > 0:
            slope, bend = self.parabola(closure, float(loss), params, grads, probe / scale)
            own["rate"] = min(own["lr"], abs(probe * slope / (2 * bend + 1e-24)))
            torch._foreach_sub_(params, grads, alpha=own["rate"])
