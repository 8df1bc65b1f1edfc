"""The parameters of an optimizer as one vector, without making one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Closure", "Rival", "Tensors", "buffers", "dot", "largest", "square"]

Closure = Callable[..., Tensor]
Tensors = list[Tensor]


def dot(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> float:
    """The inner product of two lists of tensors: one read of the device."""
    products = [x.flatten().dot(y.flatten()) for x, y in zip(xs, ys, strict=True)]
    return float(torch.stack(products).sum())


def square(xs: Sequence[Tensor]) -> float:
    """The square of the norm of a list of tensors."""
    return float(torch.stack(torch._foreach_norm(list(xs))).square().sum())


def largest(xs: Sequence[Tensor]) -> float:
    """The greatest size of an entry of a list of tensors."""
    return float(torch.stack(torch._foreach_norm(list(xs), float("inf"))).max())


def buffers(optimizer: Optimizer, params: Tensors, name: str) -> Tensors:
    """A tensor like each parameter in the state of an optimizer, zero at first."""
    for p in params:
        if name not in optimizer.state[p]:
            optimizer.state[p][name] = torch.zeros_like(p)
    return [optimizer.state[p][name] for p in params]


class Rival(Optimizer):
    """An optimizer of one group, which holds its settings and the numbers of its state.

    `rate` among them is the rate of the last step, so that a log can tell it. `lr` is a cap of the
    rate; where it is no more than the first, it is not among them.
    """

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        super().__init__(params, defaults)
        if len(self.param_groups) > 1:
            raise ValueError(f"{type(self).__name__} takes one group of parameters")

    @property
    def group(self) -> dict[str, Any]:
        """The one group."""
        return self.param_groups[0]

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Take a step; return the loss before it."""
        self.prepare(closure)
        with torch.enable_grad():
            loss = closure()
        params = [p for p in self.group["params"] if p.grad is not None]
        if params:
            self.descend(closure, loss, params, [p.grad for p in params])
        return loss

    def prepare(self, closure: Closure) -> None:
        """Do what is due on the new batch before its gradient is taken: nothing."""

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Move the parameters that have a gradient, and set `rate`."""
        raise NotImplementedError

    def buffers(self, params: Tensors, name: str) -> Tensors:
        """A tensor like each parameter, zero at first."""
        return buffers(self, params, name)

    def elsewhere(self, closure: Closure, params: Tensors, along: Tensors, far: float) -> float:
        """The loss after `far` steps along a direction; the parameters end where they began."""
        torch._foreach_add_(params, along, alpha=far)
        loss = float(closure(backward=False))
        torch._foreach_sub_(params, along, alpha=far)
        return loss

    def parabola(
        self, closure: Closure, loss: float, params: Tensors, grads: Tensors, far: float
    ) -> tuple[float, float]:
        """Twice the slope and the curvature, in steps of `far` against the gradient.

        They are of the parabola through the loss there, here, and as far behind.
        """
        ahead = self.elsewhere(closure, params, grads, -far)
        behind = self.elsewhere(closure, params, grads, far)
        return behind - ahead, behind + ahead - 2 * loss
