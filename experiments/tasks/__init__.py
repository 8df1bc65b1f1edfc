"""What can be learnt: a task is a network, its batches, a loss and what is measured of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from experiments.errors import UserError
from experiments.tasks.sources import FASHION_MNIST_DIR, FASHION_MNIST_FILES

if TYPE_CHECKING:  # so that a command of another framework does without torch
    from torch import Tensor, nn

__all__ = ["FASHION_MNIST_DIR", "FASHION_MNIST_FILES", "NAMES", "Task", "load"]

NAMES = ("digits", "fashion-mnist", "desk-a", "desk-b", "desk-c")


class Task(Protocol):
    """What a `Run` trains.

    A *segment* is what lies between two evaluations; checkpoints fall on its ends. The batches of a
    segment depend on `(seed, segment)` alone, so a run that is resumed needs no sampler's state.

    A task that has validation images also has `validation_loss(model)`, which a plateau is judged
    by, and gives their accuracy in `evaluate`; of another it is None or missing.
    """

    @property
    def name(self) -> str:
        """As in the command line and in paths."""

    @property
    def steps(self) -> int:
        """In a segment."""

    @property
    def segments(self) -> int:
        """In a run."""

    @property
    def epochs(self) -> float:
        """In a segment; a fraction where evaluations are more frequent than that."""

    @property
    def threads(self) -> int | None:
        """Of torch; None leaves as many as there are."""

    def network(self) -> "nn.Module":
        """Return the network to train; the caller seeds torch."""

    def batches(self, seed: int, segment: int) -> Iterator[Any]:
        """Yield the `steps` batches of a segment, on the CPU."""

    def loss(self, model: "nn.Module", batch: Any) -> "Tensor":
        """Return the loss of a batch, a scalar with its graph."""

    def evaluate(self, model: "nn.Module") -> dict[str, float]:
        """Return the task's own measures, such as `test_accuracy` in percent."""

    def described(self) -> Mapping[str, Any]:
        """Return what a record says of the data and the length of the run."""


def load(
    name: str, folder: Path | None = None, epochs: int | None = None, batch: int | None = None
) -> Task:
    """Return the task of this name.

    Args:
        name: one of `NAMES`.
        folder: where its files are, if it has any.
        epochs: how long a run is; by default the task's own length. Where it is no multiple of the
            task's segment, segments are shorter, and evaluations more frequent.
        batch: images in a batch; by default the task's own number.

    Raises:
        UserError: if there is no such task, or its files are missing or corrupt.
    """
    if name not in NAMES:
        raise UserError(f"`task` must be one of {', '.join(NAMES)}, got {name!r}")
    from experiments.tasks.classify import classify

    return classify(name, folder, epochs, batch)
