"""GeN: the generalized Newton rate, measured now and then and smoothed."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, Tensors


class GeN(Rival):
    """SGD whose rate moves towards that of least loss on a parabola, every few steps.

    Bu, Xu: Gradient descent with generalized Newton's method (ICLR 2025, arXiv 2407.02772), as in
    the authors' code (ShiyunXu/AutoGeN, `GeN/GeN.py`) with its settings and without the horizon
    (`scale` 1). Every 4 steps, three losses are taken along the gradient of a step, at `-rate`, 0
    and `rate`, on the *next* batch; the best rate of their parabola is brought within half the rate
    and twice the rate, and the rate goes a tenth of the way to it. Where the parabola has no
    minimum ahead, the rate stays; where a loss is not finite, it is halved.

    The next batch comes with the next step: that step first goes back, measures, goes on at the new
    rate, and then takes its own gradient. The authors draw that batch from a second iterator
    instead, and copy the model to go back; here the gradient is kept.

    Args:
        params: the parameters.
        lr: the first rate.
        every: steps from one measurement to the next.
        smoothing: the part of the old rate in the new one.
        ahead: whether to measure on the next batch; otherwise on the one of the gradient, where
            noise makes every step look better than it is.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.1,
        every: int = 4,
        smoothing: float = 0.9,
        ahead: bool = True,
    ) -> None:
        settings = {"every": every, "smoothing": smoothing, "ahead": ahead}
        super().__init__(params, **settings, rate=lr, steps=0, due=False)

    def prepare(self, closure: Closure) -> None:
        """Take the last step again, at a rate that is measured on the new batch."""
        own = self.group
        if not own["due"]:
            return
        params = [p for p in own["params"] if "gradient" in self.state[p]]
        grads = self.buffers(params, "gradient")
        torch._foreach_add_(params, grads, alpha=own["rate"])
        self.measure(closure, float(closure(backward=False)), params, grads)
        torch._foreach_sub_(params, grads, alpha=own["rate"])
        own["due"] = False

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Take a step."""
        own = self.group
        own["steps"] += 1
        due = own["steps"] % own["every"] == 0
        own["due"] = due and own["ahead"]
        if own["due"]:
            torch._foreach_copy_(self.buffers(params, "gradient"), grads)
        elif due:
            self.measure(closure, float(loss), params, grads)
        torch._foreach_sub_(params, grads, alpha=own["rate"])

    def measure(self, closure: Closure, loss: float, params: Tensors, grads: Tensors) -> None:
        """Move the rate."""
        own, rate = self.group, self.group["rate"]
        slope, bend = self.parabola(closure, loss, params, grads, rate)
        if not math.isfinite(bend):
            own["rate"] = rate / 2
        elif slope > 0 and bend > 0:
            best = min(max(slope / (2 * bend), 0.5), 2.0)
            own["rate"] = rate * (own["smoothing"] + (1 - own["smoothing"]) * best)
