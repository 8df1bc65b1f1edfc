"""What can be learnt: a task is a network, its batches, a loss and what is measured of it."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from experiments.errors import UserError
from experiments.tasks.sources import (
    FASHION_MNIST_DIR,
    FASHION_MNIST_FILES,
    SCENES_TEST,
    SCENES_TRAIN,
)

if TYPE_CHECKING:  # so that a command of another framework does without torch
    from torch import Tensor, nn

    from experiments.tasks.classify import Row

__all__ = [
    "DETECTION",
    "FASHION_MNIST_DIR",
    "FASHION_MNIST_FILES",
    "NAMES",
    "PAPER",
    "SCENES",
    "SCENES_TEST",
    "SCENES_TRAIN",
    "TEXT",
    "Budget",
    "Task",
    "length",
    "load",
    "needs",
]


class Budget(NamedTuple):
    """How long a run is at the paper's scale: Table 2 has the hours, the epochs are ours."""

    hours: float
    epochs: int = 100


PAPER = {  # at its scale: these need torchvision and timm
    "mnist-efficientnet": Budget(1),
    "cifar10-vgg19": Budget(1, 200),
    "cifar100-resnet50": Budget(1, 200),
    "food101-dla": Budget(5),
    "tinyimagenet-inception": Budget(5),
    "imagenet100-densenet121": Budget(10),
}
# Table 5, with section 4's hours: pycocotools too. 12 epochs are the `1x` of model zoos.
DETECTION = {
    "coco-keypoints": Budget(17, 12),
    "coco-keypoints-visible": Budget(17, 12),
    "coco-instances": Budget(15, 12),
}
SCENES = ("scenes-keypoints", "scenes-instances")
TEXT = ("text-gru", "text-transformer")
NAMES = (
    *("digits", "fashion-mnist", "desk-a", "desk-b", "desk-c"),
    *(*TEXT, *SCENES, *PAPER, *DETECTION),
)


class Task(Protocol):
    """What a `Run` trains.

    A *segment* is what lies between two evaluations; checkpoints fall on its ends. The batches of a
    segment depend on `(seed, segment)` alone, so a run that is resumed needs no sampler's state.

    A batch is a tuple of tensors, or of tuples of them, each with an entry for every example; or,
    where examples are of no one size, a list of examples.

    A task whose segments are not as long as one another has `ends`, the steps of an epoch after
    which a segment ends; its `steps` and `epochs` are then means.

    A task that has validation images also has `validation_loss(model)`, which a plateau is judged
    by, and gives their accuracy in `evaluate`; of another it is None or missing. A task that is
    meant for a time has `hours`, of training, after which no further segment begins.
    """

    @property
    def name(self) -> str:
        """As in the command line and in paths."""

    @property
    def steps(self) -> float:
        """In a segment; a whole number, unless they are not as long as one another."""

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


def length(task: Task) -> int:
    """Return how many steps a run of it has."""
    return round(task.steps * task.segments)


def needs(name: str) -> tuple[str, ...]:
    """Return the modules that a task takes beside those of all, which are installed on their own.

    Examples:
        >>> needs("desk-a"), needs("coco-keypoints")
        ((), ('torchvision', 'pycocotools'))
    """
    if name in PAPER:
        return ("torchvision", "timm")
    return ("torchvision", "pycocotools") if name in (*SCENES, *DETECTION) else ()


def load(
    name: str,
    folder: Path | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    weights: Path | None = None,
) -> Task:
    """Return the task of this name.

    Args:
        name: one of `NAMES`.
        folder: where its files are, if it has any.
        epochs: how long a run is; by default the task's own epochs and hours. Where it is no
            multiple of the task's segment, segments are shorter, and evaluations more frequent.
        batch: images in a batch; by default the task's own number.
        weights: of the backbone, which the tasks of `DETECTION` begin with: a file, or `none`.

    Raises:
        UserError: if there is no such task, or its files are missing or corrupt, or if torchvision
            is not that of this torch.
    """
    if name not in NAMES:
        raise UserError(f"`task` must be one of {', '.join(NAMES)}, got {name!r}")
    if weights and name not in DETECTION:
        raise UserError(f"`--weights` is of {', '.join(DETECTION)}, got {weights} for {name}")
    if name in TEXT:
        from experiments.tasks.text import text

        return text(name, folder, epochs, batch)
    if name in SCENES or name in DETECTION:
        found: Task = _of_torchvision("detect").detect(name, folder, epochs, batch, weights)
        return found
    from experiments.tasks.classify import ROWS, classify

    rows: dict[str, Row] = _of_torchvision("vision").ROWS if name in PAPER else ROWS
    return classify(name, rows[name], folder, epochs, batch)


def _of_torchvision(module: str) -> Any:
    try:
        return import_module(f"experiments.tasks.{module}")
    except RuntimeError as error:  # what torchvision raises beside another torch than its own
        remedy = "pip install -c constraints-vision.txt torch torchvision timm"
        raise UserError(f"torch and torchvision do not fit ({error}): {remedy}") from error
