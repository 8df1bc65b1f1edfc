"""What a run is worth if it is stopped here: averaged, and cooled down."""

from copy import deepcopy
from itertools import islice
from typing import TYPE_CHECKING

from experiments.probes._points import due, following
from experiments.tasks import length

if TYPE_CHECKING:
    from experiments.run import Run

__all__ = ["average", "cooldown"]


def average(run: "Run") -> dict[str, float]:
    """Return the task's measures at the exponential mean of the weights, 0.998 a step.

    Statistics of batch norm are taken anew, as for schedule-free: those of the weights along the
    way are of noisier activations than those of their mean.
    """
    if run.average is None:
        return {}
    model = deepcopy(run.average.module)
    run.refresh(model.train())
    return _named("averaged", run.task.evaluate(model.eval()))


def cooldown(run: "Run") -> dict[str, float]:
    """Return the task's measures after a branch whose rate falls linearly to 0.

    It begins at 10, 30, 50, 70 and 90 % of the run, and ends a tenth of the run later, where others
    are evaluated as they are, on the batches that would follow. What falls
    is the user's own `lr`, from what it is now; ZENITH goes on to scale it, and a scheduler is left
    out. An optimizer that has no such rate or cap (PAL, GeN, COCOB, DoWG, L4, SPS smooth) cannot be
    cooled down by it, and has no such measures.
    """
    name = run.recipe.lr_name
    odd = run.segment * 10 // run.task.segments % 2
    if not (due(run, 10) and odd and name in run.optimizer.param_groups[0]):
        return {}
    branch, steps = run.branch(), max(1, length(run.task) // 10)
    groups = branch.optimizer.param_groups
    caps = [group[name] for group in groups]
    for i, batch in enumerate(islice(following(run), steps)):
        for group, cap in zip(groups, caps, strict=True):
            group[name] = cap * (1 - i / steps)
        branch.step(batch)
    averaged = {f"cooldown_{name}": value for name, value in average(branch).items()}
    return _named("cooldown", branch.evaluated()) | averaged


def _named(kind: str, measures: dict[str, float]) -> dict[str, float]:
    """`test_accuracy` is `averaged_accuracy`; `validation_accuracy` has all of its name."""
    return {f"{kind}_{name.removeprefix('test_')}": value for name, value in measures.items()}
