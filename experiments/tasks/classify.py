"""Images in classes: the tasks that differ in a row of settings."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import gcd
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.errors import UserError
from experiments.tasks import images, networks
from experiments.tasks.images import Batch, Images

__all__ = ["ROWS", "Classify", "Row", "classify", "measured"]


Network = Callable[[int, int], nn.Module]


class Row(NamedTuple):
    """The settings of a task.

    A step on a few images of 8 x 8 is so short that a second thread costs more than it brings, and
    many times more on a machine that has something else to do.

    Attributes:
        data: loads the images, from a folder or from where they are by default.
        network: makes the network, for images of so many pixels a side and so many classes.
        batch: images.
        epochs: in a run.
        threads: of torch; None leaves as many as there are.
        segment: epochs between two evaluations.
        hours: of training, after which no further segment begins; None for as many as it takes.
        classes: how many there are to tell apart.
    """

    data: Callable[..., Images]  # of `folder`, a Path or None
    network: Network
    batch: int
    epochs: int
    threads: int | None
    segment: int = 1
    hours: float | None = None
    classes: int = 10


_desk_b = partial(networks.desk, batch_norm=True)

ROWS = {
    # 3,000 to 5,000 steps
    "digits": Row(images.digits, networks.small, batch=16, epochs=36, threads=1),
    "fashion-mnist": Row(images.fashion_mnist, networks.small, batch=128, epochs=10, threads=None),
    # 20 evaluations: 3,200, 7,680 and 8,960 steps, a minute or less of one core
    "desk-a": Row(partial(images.desk, 4096), networks.desk, 128, 100, threads=1, segment=5),
    "desk-b": Row(partial(images.desk, 2048, images.shifted), _desk_b, 128, 480, 1, segment=24),
    "desk-c": Row(partial(images.desk, 4096, images.shifted), networks.desk, 128, 280, 1, 14),
}


@dataclass(frozen=True)
class Classify:
    """Images in classes, evaluated after every so many epochs: a `Task`.

    What is left of a shuffled epoch after whole batches is left out.
    """

    name: str
    data: Images
    make: Callable[[int], nn.Module]
    batch: int
    segments: int
    threads: int | None = 1
    epochs: float = 1.0  # whole ones
    hours: float | None = None
    classes: int = 10

    @property
    def steps(self) -> int:
        """In a segment."""
        return int(self.epochs) * (self.data.counts["train"] // self.batch)

    def network(self) -> nn.Module:
        """Return the network for images of this size."""
        return self.make(self.data.size)

    def batches(self, seed: int, segment: int) -> Iterator[Batch]:
        """Yield images and labels, shuffled anew in every epoch."""
        generator = torch.Generator().manual_seed(mixed(seed, segment))
        count = self.data.counts["train"]
        for _ in range(int(self.epochs)):
            order = torch.randperm(count, generator=generator)
            whole = torch.split(order, self.batch)[: count // self.batch]
            yield from self.data.drawn(whole, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy, in nats."""
        return cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the accuracy on the test images, and on any validation images, in percent."""
        parts = [part for part in self.data.counts if part != "train"]
        return {f"{part}_accuracy": measured(model, self.data.whole(part))[1] for part in parts}

    @property
    def validation_loss(self) -> Callable[[nn.Module], float] | None:
        """What gives the mean loss on the validation images; None where there are none."""
        if "validation" not in self.data.counts:
            return None
        return lambda model: measured(model, self.data.whole("validation"))[0]

    def described(self) -> dict[str, Any]:
        """Return the sizes of the data and of a batch; any classes and augmentation of a study."""
        sizes = {f"{part}_images": count for part, count in self.data.counts.items()}
        more: dict[str, Any] = {"classes": self.classes} if "validation" in self.data.counts else {}
        if self.data.augmentation:
            more["augmentation"] = self.data.augmentation
        return {**sizes, "batch": self.batch, **more}


def classify(
    name: str, row: Row, folder: Path | None, epochs: int | None, batch: int | None
) -> Classify:
    """Return the task of a row; see `experiments.tasks.load`."""
    data = row.data(folder=folder)
    count = data.counts["train"]
    batch = batch or min(row.batch, count)
    if batch > count:
        raise UserError(f"`--batch-size` must be at most {count}, all images, got {batch}")
    hours = None if epochs else row.hours
    epochs = epochs or row.epochs
    segment = gcd(epochs, row.segment)
    return Classify(
        name,
        data,
        lambda size: row.network(size, row.classes),
        batch,
        epochs // segment,
        row.threads,
        float(segment),
        hours,
        row.classes,
    )


@torch.no_grad()
def measured(model: nn.Module, batches: Iterable[Batch]) -> tuple[float, float]:
    """Return the mean cross-entropy, in nats, and the share classified rightly, in percent."""
    device = next((p.device for p in model.parameters()), None)
    loss = right = count = 0.0
    for batch in batches:
        inputs, labels = (part.to(device) for part in batch)
        scores = model(inputs)
        loss += float(cross_entropy(scores, labels, reduction="sum"))
        right += int((scores.argmax(1) == labels).sum())
        count += len(labels)
    return loss / count, 100 * right / count


def mixed(seed: int, segment: int) -> int:
    """Return one seed for both numbers; no two pairs below a million share one."""
    return seed * 1_000_003 + segment
