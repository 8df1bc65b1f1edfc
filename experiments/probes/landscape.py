"""The shape of the loss around the weights that are tested, in evaluation mode.

Both are of the mean loss of 512 training examples, the same ones of every run, without any L2.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.probes._points import subset

if TYPE_CHECKING:
    from experiments.run import Run
    from experiments.tasks import Task

__all__ = ["line", "sharpness", "top_eigenvalue"]

LEVELS = (0.3, 0.15, 0.08, 0.04, 0.02)  # of the training loss


def sharpness(run: "Run") -> dict[str, float]:
    """Return the top eigenvalue of the Hessian, and the loss at the very weights it is taken at.

    It is taken at the end, and where the training loss of a segment is first below each of five
    levels, so that what it is at a loss between them can be read off between two of its points. The
    level only says when to look: `sharpness_loss`, that of the 512 examples, is not the mean of the
    segment, in which the weights moved. That makes six times a run at most, each of some tens of
    products with the Hessian, of which one costs about as much as two gradients of the examples.
    """
    *before, now = run.train_losses
    least = min(before, default=math.inf)
    if not run.done and not any(now < level <= least for level in LEVELS):
        return {}
    batches = subset(run)
    return {
        "sharpness": top_eigenvalue(run.task, run.tested, batches),
        "sharpness_loss": _mean_loss(run.task, run.tested, batches),
    }


def top_eigenvalue(task: "Task", model: nn.Module, batches: list[Any]) -> float:
    """Return the largest eigenvalue of the Hessian of the mean loss, to a thousandth.

    Its products with vectors are those of curvlinops, and scipy's Lanczos method does the rest,
    from a fixed vector.

    Returns:
        The eigenvalue; NaN where the method finds none, as at weights that are not finite.
    """
    import numpy as np
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import ArpackError, eigsh

    params = [p for p in model.parameters() if p.requires_grad]
    data = [({"batch": batch}, torch.zeros(())) for batch in batches]
    hessian = HessianLinearOperator(
        _Losses(task.loss, model),
        _Mean(),
        params,
        data,
        check_deterministic=False,
        batch_size_fn=lambda x: len(x["batch"][0]),
    ).to_scipy()
    start = np.random.default_rng(0).standard_normal(hessian.shape[0]).astype(hessian.dtype)
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the others have no derivative forwards
            found = eigsh(hessian, 1, which="LA", v0=start, tol=1e-3, maxiter=100)
    except ArpackError:
        return math.nan
    return float(found[0][0])


def line(run: "Run") -> dict[str, float]:
    """Return the loss at 21 points of a line through the weights, at the end of the run.

    The line is random and normalised by filter (Li, Xu, Taylor, Studer, Goldstein: Visualizing the
    Loss Landscape of Neural Nets, NeurIPS 2018, arXiv 1712.09913): a normal direction, each filter
    (or row) of which has the norm of the weights' own; none along biases and batch norm. So at 1
    every filter has moved by as much as its size.
    """
    if not run.done:
        return {}
    model, batches = deepcopy(run.tested), subset(run)
    starts = [p.detach().clone() for p in model.parameters()]
    directions = [_direction(start) for start in starts]
    found = {}
    for i in range(-10, 11):
        for p, start, direction in zip(model.parameters(), starts, directions, strict=True):
            p.data.copy_(start + i / 10 * direction)
        found[f"line_{i / 10:.1f}"] = _mean_loss(run.task, model, batches)
    return found


def _direction(weight: Tensor) -> Tensor:
    if weight.dim() < 2:
        return torch.zeros_like(weight)
    drawn = torch.randn_like(weight)
    own, other = (x.flatten(1).norm(dim=1) for x in (weight, drawn))
    longer: Tensor = (own / other).reshape(-1, *[1] * (weight.dim() - 1))
    return drawn * longer


@torch.no_grad()
def _mean_loss(task: "Task", model: nn.Module, batches: list[Any]) -> float:
    counts = [len(batch[0]) for batch in batches]
    losses = [float(task.loss(model, batch)) for batch in batches]
    return sum(n * loss for n, loss in zip(counts, losses, strict=True)) / sum(counts)


class _Losses(nn.Module):
    """The loss of a batch as what a model puts out, whatever the task."""

    def __init__(self, loss: Callable[[nn.Module, Any], Tensor], model: nn.Module) -> None:
        super().__init__()
        self.loss, self.model = loss, model

    def forward(self, x: dict[str, Any]) -> Tensor:
        return self.loss(self.model, x["batch"])


class _Mean(nn.Module):
    """What makes nothing more of the loss of a batch, and says that it is a mean."""

    reduction = "mean"

    def forward(self, loss: Tensor, _: Tensor) -> Tensor:
        return loss
