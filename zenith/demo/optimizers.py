"""The optimizers side by side, each at the same learning rate; nothing is tuned for any of them."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn, optim
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from zenith.demo.settings import Settings
from zenith.torch import Zenith


class Recipe(NamedTuple):
    """An optimizer and, for a rate that follows a plan, its scheduler."""

    optimizer: optim.Optimizer
    scheduler: LRScheduler | None = None


def build(name: str, parameters: Iterable[nn.Parameter], settings: Settings, steps: int) -> Recipe:
    """Return the optimizer called `name`.

    Args:
        name: `zenith`; `sgd`, at a constant rate; or `sgd-cosine`, whose rate falls to 0 along half
            a cosine over the whole run, and which so has to know the run's length beforehand.
        parameters: what to train.
        settings: `lr`, `momentum` and, for ZENITH, `window`.
        steps: the length of the run.
    """
    lr, momentum = settings.lr, settings.momentum
    if name == "zenith":
        return Recipe(Zenith(parameters, lr, window=settings.window, momentum=momentum))
    sgd = optim.SGD(parameters, lr, momentum=momentum)
    return Recipe(sgd, CosineAnnealingLR(sgd, steps) if name == "sgd-cosine" else None)
