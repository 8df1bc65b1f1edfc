"""What was tried to make ZENITH's step cheaper, and is not in the package.

All are fused and compared with fused SGD, in whole iterations and in the step within them, which
comes after passes that have pushed it out of the caches.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from experiments.cost.cases import Document, table
from experiments.cost.timed import Timed, constant, machine, measured
from experiments.errors import UserError
from experiments.optimizers import Recipe
from zenith.torch import Zenith
from zenith.torch._norm import norm_of, partial_norms

__all__ = ["VARIANTS", "Hooked", "Reversed", "measure", "table"]

BASELINE = "SGD"
SIZES = {"small": (16, 10), "vgg19": (4, 1)}  # images in a batch, iterations in a repetition


class Hooked(Zenith):
    """Takes the norm of each gradient as it is accumulated, while it is in the cache.

    It cannot know whether the gradient is changed after that: accumulated, unscaled or clipped.
    """

    def __init__(self, params: Iterable[nn.Parameter], **options: Any) -> None:
        params = list(params)
        super().__init__(params, **options)
        self.norms: dict[nn.Parameter, Tensor] = {}
        for param in params:
            param.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]

    def _take(self, param: Tensor) -> None:
        gradient = param.grad.detach()  # type: ignore[union-attr]
        self.norms[param] = norm_of(partial_norms([gradient]))  # type: ignore[index]

    def _measure(self, *_: Any) -> tuple[list[Tensor], list[Tensor]]:
        norms = list(self.norms.values())
        return norms, norms


class Reversed(Zenith):
    """Steps from the last parameter to the first, of whose gradients the cache may hold some."""

    def _descend(self, batch: Any, *how: Any) -> None:
        turned = batch._replace(params=batch.params[::-1], grads=batch.grads[::-1])
        super()._descend(turned, *how)


class Compiled(Zenith):
    """Its step, the closure aside, is taken apart and fused by torch.compile."""

    def __init__(self, params: Iterable[nn.Parameter], **options: Any) -> None:
        super().__init__(params, **options)
        self._compiled = torch.compile(super().step)

    def step(self, closure: Callable[[], Any] | None = None, **options: Any) -> Any:
        """Step as ZENITH does."""
        loss = closure() if closure else None
        self._compiled(**options)
        return loss


def _variant(cls: Any, fused: bool | None = True) -> Recipe:
    return Recipe(cls.__name__, partial(cls, fused=fused), {"lr": 0.1})


VARIANTS = {
    BASELINE: _variant(SGD),
    "SGD again": _variant(SGD),
    "ZENITH": _variant(Zenith),
    "ZENITH, hooks": _variant(Hooked),
    "ZENITH, reversed": _variant(Reversed),
    "ZENITH, compiled": _variant(Compiled, fused=None),
}


def measure(options: Any) -> Document:
    """Return the milliseconds of every variant for each of the networks."""
    names = list(dict.fromkeys([BASELINE, *(options.optimizers or VARIANTS)]))
    for name in names:
        if name not in VARIANTS:
            raise UserError(f"`--optimizers` must be of {', '.join(VARIANTS)}, got {name!r}")
    return {
        "made": machine(options),
        "cases": {case: _case(case, names, options.repetitions) for case in options.models},
    }


def _case(case: str, names: list[str], repetitions: int) -> Document:
    batch, iterations = SIZES[case]
    task = constant(case, batch)
    runs = {name: Timed(task, name, VARIANTS[name]) for name in names}
    params = list(runs[BASELINE].model.parameters())
    samples = measured(runs, repetitions, iterations)
    return {
        "parameters": sum(param.numel() for param in params),
        "tensors": len(params),
        "batch": batch,
        "variants": {name: {"baseline": BASELINE, **own} for name, own in samples.items()},
    }
