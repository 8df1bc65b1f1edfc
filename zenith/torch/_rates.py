"""The rates in `param_groups`: the user's own between two steps, and scaled ones within a step."""

from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["Loan", "Rate", "fill", "like", "scaled"]

Rate: TypeAlias = float | Tensor
Group: TypeAlias = dict[str, Any]


class Loan:
    """What an optimizer steps at is put into its groups for a step, and taken back after it."""

    def __init__(self) -> None:
        self._lent: list[tuple[Group, Rate, Any]] = []

    def lend(self, groups: list[Group], scale: Rate) -> list[Rate]:
        """Put `lr * scale` into each group, and return what was put there."""
        owns = [like(group["lr"], group["lr"]) for group in groups]  # of several one tensor, maybe
        rates = [like(own, scaled(own, scale)) for own in owns]
        self._lent = list(zip(groups, rates, owns, strict=True))
        for group, rate in zip(groups, rates, strict=True):
            fill(group, rate)
        return rates

    def take_back(self) -> None:
        """Put the user's own values back, but where the step itself has written another one."""
        for group, rate, own in self._lent:
            lr = group["lr"]
            if isinstance(lr, Tensor):
                fill(group, torch.where(lr == rate, own, lr))
            elif lr == rate:
                group["lr"] = own
        self._lent = []


def fill(group: Group, rate: Rate) -> None:
    """Set the rate of a group: an `lr` that is a tensor in place, as torch's schedulers do."""
    if isinstance(group["lr"], Tensor):
        group["lr"].detach().fill_(rate.detach().squeeze() if isinstance(rate, Tensor) else rate)
    else:
        group["lr"] = rate


def scaled(lr: Rate, scale: Rate) -> Any:
    """Return `lr * scale`, in the dtype and on the device of an `lr` that is a tensor."""
    if not isinstance(lr, Tensor):
        return float(lr) * scale  # a NumPy scalar and a tensor have no product
    scale = scale.to(lr.device) if isinstance(scale, Tensor) else scale
    return (lr.detach() * scale).to(lr.dtype)


def like(lr: Rate, rate: Rate) -> Rate:
    """Return a copy of `rate`: a tensor if `lr` is one, and else a number."""
    if not isinstance(rate, Tensor):
        return rate
    return rate.detach().clone() if isinstance(lr, Tensor) else rate.item()
