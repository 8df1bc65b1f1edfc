"""What a run can be asked at an evaluation besides its task's own measures: `Question.probes`.

A probe is a function of the run that returns measures, none where it is not due. It works on copies
(`Run.tested`, `Run.branch()`), off the clock, and draws from random numbers of its own, so that the
run goes on as it would have without. Its measures stand in the `eval` line.

- `average`, at every evaluation: `averaged_accuracy`, the task's measures at a mean of the weights;
- `cooldown`, at 10, 30, 50, 70 and 90 % of the run: `cooldown_accuracy`, after a further tenth of
  its steps in which the rate falls to 0; and with `average` `cooldown_averaged_accuracy`;
- `line`, at the last evaluation: `line_-1.0`, ..., `line_1.0`, the loss along a line through the
  weights;
- `noise`, at each eighth of the run: `noise_share` and `full_norm`, of the norms of the batches
  and of the full gradient;
- `sharpness`, at the last evaluation, and where the training loss is first below each of five
  levels from 0.3 to 0.02: the top eigenvalue of the Hessian, and `sharpness_loss`, the loss at the
  same weights on the same examples.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from experiments.errors import UserError
from experiments.probes.averages import average, cooldown
from experiments.probes.landscape import line, sharpness
from experiments.probes.noise import noise

if TYPE_CHECKING:
    from experiments.run import Run

__all__ = ["PROBES", "checked", "measured"]

PROBES: Mapping[str, Callable[["Run"], dict[str, float]]] = {
    "average": average,
    "cooldown": cooldown,
    "line": line,
    "noise": noise,
    "sharpness": sharpness,
}


def checked(names: Iterable[str]) -> None:
    """Refuse what is no probe.

    Raises:
        UserError: naming it.
    """
    for name in names:
        if name not in PROBES:
            raise UserError(f"`probes` must be of {', '.join(PROBES)}, got {name!r}")


def measured(run: "Run") -> dict[str, float]:
    """Return what the run's probes measure at an evaluation."""
    found: dict[str, float] = {}
    with torch.random.fork_rng([run.device] if run.device.type == "cuda" else []):
        for name in run.question.probes:
            torch.manual_seed(run.question.seed)
            found |= PROBES[name](run)
    return found
