"""How much of the norm that ZENITH sees is noise."""

import math
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from experiments.probes._points import due, following
from experiments.rivals._vector import square

if TYPE_CHECKING:
    from experiments.run import Run

__all__ = ["noise"]


def noise(run: "Run") -> dict[str, float]:
    """Return the norm of the full gradient, and the share of noise in those of the batches.

    All batches of an epoch are taken at the weights that are trained, in training mode. The full
    gradient G is the mean of their gradients g, and the share is `1 - ||G||^2 / E||g||^2`. Where
    images are drawn anew in each epoch (augmentation) G has a little of the noise itself: that of
    one batch, over the number of batches.
    """
    if not due(run, 8):
        return {}
    branch, count = run.branch(), round(run.task.steps / run.task.epochs)
    total: list[Tensor] = []
    squares = 0.0
    for batch in islice(following(run), count):
        grads = branch.gradient(batch)
        squares += square(grads) / count
        total = list(torch._foreach_add(total, grads)) if total else grads
    full = square(total) / count**2
    return {
        "full_norm": math.sqrt(full),
        "noise_share": 1 - full / squares if squares else math.nan,
    }
