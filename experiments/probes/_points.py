"""When a probe is due, and on which batches it looks."""

from collections.abc import Iterator
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import torch

from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.run import Run

__all__ = ["due", "following", "subset"]

EXAMPLES, TOGETHER = 512, 256


def due(run: "Run", times: int) -> bool:
    """Whether an evaluation is the first in one of so many equal parts of the run, or its end."""
    segments = run.task.segments
    return run.segment * times // segments > (run.segment - 1) * times // segments


def following(run: "Run") -> Iterator[Any]:
    """Yield the batches that are to come, without an end."""
    return chain.from_iterable(map(run.batches, count(run.segment)))


def subset(run: "Run") -> list[Any]:
    """Return 512 training examples, or all of a segment, 256 together: the same of every run."""
    found: list[Any] = []
    for batch in run.batches(0, seed=0):
        if isinstance(batch, list):
            raise UserError("`probes` line and sharpness need examples of one size, got a list")
        found.append(batch)
        if sum(len(batch[0]) for batch in found) >= EXAMPLES:
            break
    parts = (torch.cat(part)[:EXAMPLES] for part in zip(*found, strict=True))
    return list(zip(*(torch.split(part, TOGETHER) for part in parts), strict=True))
