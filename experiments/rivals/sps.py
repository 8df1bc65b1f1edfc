"""SPS: the stochastic Polyak step size, with a cap, or smooth."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, Tensors, square


class SPS(Rival):
    """SGD at the rate `loss / (c * ||g||^2)`, but no more than a cap.

    Loizou, Vaswani, Laradji, Lacoste-Julien: Stochastic Polyak Step-size for SGD (AISTATS 2021,
    arXiv 2002.10542), as in the authors' code (IssamLaradji/sps, `sps/sps.py`). The least loss is
    taken to be 0, which a network that interpolates can reach. `c` is 0.2, as in all of the
    authors' experiments with deep networks; 0.5 is the default of the code, from the theory.

    The cap is `lr`, 0.1 in the ZENITH paper. With a `growth` it is that times the last rate, and
    `lr` is 1: SPS smooth, which the authors recommend, whose rate doubles in an epoch at the most.
    (In their code a gradient of 0 makes the rate 0 for ever; here it leaves it as it may be.)

    Args:
        params: the parameters.
        lr: the cap, or, with a growth, the rate before the first.
        c: the divisor.
        growth: in a step, `2 ** (1 / steps in an epoch)`; None for a fixed cap.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.1, c: float = 0.2, growth: float | None = None
    ) -> None:
        cap = {"lr": lr} if growth is None else {}
        super().__init__(params, **cap, c=c, growth=growth, rate=lr)

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Take a step."""
        own = self.group
        cap = own["lr"] if own["growth"] is None else own["growth"] * own["rate"]
        own["rate"] = min(max(0.0, float(loss)) / (own["c"] * square(grads) + 1e-8), cap)
        torch._foreach_sub_(params, grads, alpha=own["rate"])
