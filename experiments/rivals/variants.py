"""ZENITH with one thing changed, each to show what that thing is for; and beside other optimizers.

What is a mean of another kind is handed to a `Zenith` with a window of 1, by `step(grad_norm=...)`,
as `experiments.rivals.signals` does: the mean of one is that one. A 0 before the first mean leaves
the rate at its cap, as in the package while the window fills.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW

from experiments.rivals._vector import Closure, Tensors, square
from experiments.rivals.signals import Signal
from zenith.torch import Zenith, ZenithLR

__all__ = ["AdamWZenith", "Clipped", "Exponential", "First", "Late", "Layers"]


class Exponential(Signal):
    """An exponential mean of the norms, of the weight 2 / (window + 1): one number, and no ring.

    That is the weight at which a norm counts for as long, on the average, as in the window. The
    mean is corrected for its bias, and counts from the step on at which the window would be full.
    """

    def __init__(self, params: Iterable[Any], window: int = 500, **options: Any) -> None:
        super().__init__(params, window=1, **options, span=window, smoothed=0.0, steps=0)

    def signal(self, loss: float, params: Tensors, grads: Tensors) -> float:
        """Return the mean."""
        own = self.own
        weight = 2 / (own["span"] + 1)
        own["steps"] += 1
        own["smoothed"] += weight * (math.sqrt(square(grads)) - own["smoothed"])
        full = own["steps"] >= own["span"]
        return float(own["smoothed"] / (1 - (1 - weight) ** own["steps"])) if full else 0.0


class First(Signal):
    """The first mean in place of the highest: a factor of `mean / first`, and 1 above it."""

    def __init__(self, params: Iterable[Any], window: int = 500, **options: Any) -> None:
        super().__init__(params, window=1, **options, span=window, norms=[], first=0.0)

    def signal(self, loss: float, params: Tensors, grads: Tensors) -> float:
        """Return the mean, but no more than the first."""
        own = self.own
        own["norms"] = [*own["norms"], math.sqrt(square(grads))][-own["span"] :]
        if len(own["norms"]) < own["span"]:
            return 0.0
        mean = sum(own["norms"]) / own["span"]
        own["first"] = own["first"] or mean
        return float(min(mean, own["first"]))


class Late(Signal):
    """The norm of each step in the rate of the next one: what a scheduler does after the step.

    The first step has no norm: a NaN, which the schedule passes over.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        super().__init__(params, nonfinite="propagate", **options, last=math.nan)

    def signal(self, loss: float, params: Tensors, grads: Tensors) -> float:
        """Return the norm of the step before."""
        last, self.own["last"] = self.own["last"], math.sqrt(square(grads))
        return float(last)


class Layers:
    """A norm, a window and a rate for each layer alone: as many `Zenith`s.

    A layer is a parameter of two dimensions or more, and those of one that follow it: the weight of
    a convolution, its bias, and the batch norm after it.
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        layers: list[list[Any]] = []
        for p in params:
            if p.dim() > 1 or not layers:
                layers.append([])
            layers[-1].append(p)
        self.parts = [Zenith(layer, **options) for layer in layers]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """A group for each layer."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Any, Any]:
        """That of every parameter."""
        return {p: state for part in self.parts for p, state in part.state.items()}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad()

    def step(self, closure: Closure) -> Tensor:
        """Take a step; return the loss before it."""
        with torch.enable_grad():
            loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each layer."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


class Clipped(SGD):
    """SGD on gradients that are cut to a norm: beside `Zenith(max_grad_norm=...)`."""

    def __init__(self, params: Iterable[Any], max_grad_norm: float, **options: Any) -> None:
        super().__init__(params, **options)
        self.param_groups[0]["max_grad_norm"] = max_grad_norm

    def step(self, closure: Closure) -> Tensor:  # type: ignore[override]
        """Take a step; return the loss before it."""
        group = self.param_groups[0]
        with torch.enable_grad():
            loss = closure()
        torch.nn.utils.clip_grad_norm_(group["params"], group["max_grad_norm"])
        super().step()
        return loss


class AdamWZenith(AdamW):
    """AdamW without decay under a `ZenithLR`, which is saved with it."""

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, window: int = 500) -> None:
        super().__init__(params, lr, weight_decay=0.0)
        self.schedule = ZenithLR(self, window)
        self.zenith_metrics = self.schedule.zenith_metrics

    def state_dict(self) -> dict[str, Any]:
        """Return the state, the schedule's among it."""
        return {**super().state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        super().load_state_dict(state_dict)
        self.schedule.load_state_dict(state_dict["schedule"])
