"""PAL: the minimum of a parabola through two losses and a slope."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from experiments.rivals._vector import Closure, Rival, Tensors, dot, square


class PAL(Rival):
    """Measures the loss once more, `probe` away, and steps to the parabola's minimum.

    Mutschler, Zell: Parabolic Approximation Line Search for DNNs (NeurIPS 2020, arXiv 1903.11991),
    algorithm 1, as in the authors' code (cogsys-tuebingen/PAL, `PyTorch/pal_optimizer.py`) with its
    settings: alpha 1 / 0.6 (`stretch`), beta 0.4 (`memory` of the direction) and a longest step of
    3.16. Of mu (`probe`) the authors say 0.1 to 1; 0.1 is the choice here. Both losses are to have
    the same noise of dropout, as `Run.closure` sees to.
    """

    def __init__(
        self,
        params: Iterable[Any],
        probe: float = 0.1,
        stretch: float = 1 / 0.6,
        memory: float = 0.4,
        longest: float = 3.16,
    ) -> None:
        super().__init__(
            params, probe=probe, stretch=stretch, memory=memory, longest=longest, rate=0.0
        )

    def descend(self, closure: Closure, loss: Tensor, params: Tensors, grads: Tensors) -> None:
        """Take a step."""
        group, probe = self.group, self.group["probe"]
        directions = self.buffers(params, "direction")
        torch._foreach_mul_(directions, group["memory"])
        torch._foreach_sub_(directions, grads)
        length = square(directions) ** 0.5
        if length == 0:
            return
        slope = dot(grads, directions) / length
        probed = self.elsewhere(closure, params, directions, probe / length)
        curvature = (probed - float(loss) - slope * probe) / probe**2
        if slope >= 0:
            far = 0.0
        elif 0 < curvature < math.inf:
            far = min(-group["stretch"] * slope / (2 * curvature), group["longest"])
        else:
            far = probe
        group["rate"] = far / length
        torch._foreach_add_(params, directions, alpha=group["rate"])
