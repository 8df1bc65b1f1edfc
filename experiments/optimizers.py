"""Every optimizer of the experiments, by name: `make("DoG", parameters, lr=0.1, steps=39063)`.

The published package is used where there is one that does what its paper says, with the settings
that its authors recommend; `lr` is for those that take a rate (0.1 in the ZENITH paper, for all).
`tests/test_experiments_rivals.py` holds a step of each against numbers worked out by hand.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import dadaptation
import dog
import parameterfree
import prodigyopt
import pytorch_optimizer
import schedulefree
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR

from experiments import rivals
from zenith.torch import Zenith

__all__ = ["OPTIMIZERS", "Paper", "Recipe", "make"]


class Paper(NamedTuple):
    """A row of table 1 of the ZENITH paper: an A100, VGG-19 on CIFAR-10, batch 128."""

    milliseconds: float  # per iteration
    extra: float  # per cent of SGD's iteration
    memory: int  # multiples of the model


class Recipe(NamedTuple):
    """How an optimizer is made of parameters, a rate and a horizon in steps."""

    build: Callable[[list[Any], float, int], Any]
    paper: Paper | None = None


def _scheduled(scheduler: Callable[[Any, int], Any], base: Any) -> Callable[..., Any]:
    def build(params: list[Any], lr: float, steps: int) -> Any:
        optimizer = base(params, lr)
        return optimizer, scheduler(optimizer, steps)

    return build


def _alone(build: Callable[[list[Any], float], Any]) -> Callable[..., Any]:
    return lambda params, lr, steps: (build(params, lr), None)


def _sgd(params: list[Any], lr: float) -> Any:
    return torch.optim.SGD(params, lr=lr)


def _schedule_free(params: list[Any], lr: float) -> Any:
    optimizer = schedulefree.SGDScheduleFree(params, lr=lr)
    optimizer.train()
    return optimizer


def _adamw(params: list[Any], lr: float) -> Any:
    return torch.optim.AdamW(params, lr=lr / 100)  # 1e-3 where SGD has 0.1


OPTIMIZERS = {
    "SGD": Recipe(_alone(_sgd), Paper(17.24, 0.0, 0)),
    "PAL": Recipe(_alone(lambda p, lr: rivals.PAL(p)), Paper(25.86, 49.99, 1)),
    "LQA": Recipe(_alone(lambda p, lr: rivals.LQA(p, lr)), Paper(81.45, 372.3, 5)),
    "GeN": Recipe(_alone(lambda p, lr: rivals.GeN(p, lr)), Paper(22.29, 29.25, 1)),
    "COCOB": Recipe(_alone(lambda p, lr: parameterfree.COCOB(p)), Paper(25.95, 50.49, 5)),
    "DoG": Recipe(_alone(lambda p, lr: dog.DoG(p)), Paper(19.98, 15.86, 1)),
    "DoWG": Recipe(_alone(lambda p, lr: rivals.DoWG(p)), Paper(22.06, 27.91, 1)),
    "D-Adaptation": Recipe(_alone(lambda p, lr: dadaptation.DAdaptSGD(p)), Paper(24.16, 40.12, 3)),
    "Prodigy": Recipe(_alone(lambda p, lr: prodigyopt.Prodigy(p)), Paper(29.14, 68.97, 4)),
    "L4": Recipe(_alone(lambda p, lr: rivals.L4(p)), Paper(31.31, 81.55, 2)),
    "ALI-G": Recipe(
        _alone(lambda p, lr: pytorch_optimizer.AliG(p, max_lr=lr)), Paper(20.47, 18.72, 0)
    ),
    "SPS": Recipe(_alone(lambda p, lr: rivals.SPS(p, lr)), Paper(20.44, 18.56, 0)),
    "ZENITH": Recipe(_alone(lambda p, lr: Zenith(p, lr=lr)), Paper(17.47, 1.337, 0)),
    "SGD + cosine": Recipe(_scheduled(CosineAnnealingLR, _sgd)),
    "SGD + step decay": Recipe(_scheduled(lambda o, steps: StepLR(o, max(1, steps // 3)), _sgd)),
    "SGD + ReduceLROnPlateau": Recipe(_scheduled(lambda o, steps: ReduceLROnPlateau(o), _sgd)),
    "schedule-free SGD": Recipe(_alone(_schedule_free)),
    "AdamW + cosine": Recipe(_scheduled(CosineAnnealingLR, _adamw)),
}


def make(name: str, params: Iterable[Any], lr: float = 0.1, steps: int = 1) -> Any:
    """Return the optimizer of this name, and its scheduler or None.

    Args:
        name: a key of `OPTIMIZERS`.
        params: the parameters.
        lr: the rate, or the cap on it, for those that take one.
        steps: the horizon, for those that must know it.

    Raises:
        ValueError: if there is no optimizer of this name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"`name` must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    return OPTIMIZERS[name].build(list(params), lr, steps)
