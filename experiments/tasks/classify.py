"""Images in classes: the tasks that differ in a row of settings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.errors import UserError
from experiments.tasks import images, networks
from experiments.tasks.images import Data

__all__ = ["ROWS", "Classify", "Row", "accuracy", "classify"]

TEST_BATCH = 1000  # keeps the memory of an evaluation small


class Row(NamedTuple):
    """The settings of a task: a run of 3,000 to 5,000 steps.

    A step on a few images of 8 x 8 is so short that a second thread costs more than it brings, and
    many times more on a machine that has something else to do.
    """

    data: Callable[[Path | None], Data]
    network: Callable[[int], nn.Module]
    batch: int
    epochs: int
    threads: int | None


ROWS = {
    "digits": Row(images.digits, networks.small, batch=16, epochs=36, threads=1),
    "fashion-mnist": Row(images.fashion_mnist, networks.small, batch=128, epochs=10, threads=None),
}


@dataclass(frozen=True)
class Classify:
    """Images in classes, evaluated after each epoch: a `Task`.

    What is left of a shuffled epoch after whole batches is left out.
    """

    name: str
    data: Data
    make: Callable[[int], nn.Module]
    batch: int
    segments: int
    threads: int | None = 1
    epochs: float = 1.0

    @property
    def steps(self) -> int:
        """In an epoch."""
        return len(self.data.train_images) // self.batch

    def network(self) -> nn.Module:
        """Return the network for images of this size."""
        return self.make(self.data.train_images.shape[-1])

    def batches(self, seed: int, segment: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels, shuffled anew in every epoch."""
        generator = torch.Generator().manual_seed(mixed(seed, segment))
        order = torch.randperm(len(self.data.train_images), generator=generator)
        for indices in torch.split(order, self.batch)[: self.steps]:
            yield self.data.train_images[indices], self.data.train_labels[indices]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy, in nats."""
        return cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the accuracy on the test images, in percent."""
        return {"test_accuracy": accuracy(model, self.data.test_images, self.data.test_labels)}

    def described(self) -> dict[str, Any]:
        """Return the sizes of the data and of a batch."""
        return {
            "train_images": len(self.data.train_images),
            "test_images": len(self.data.test_images),
            "batch": self.batch,
        }


def classify(name: str, folder: Path | None, epochs: int | None, batch: int | None) -> Classify:
    """Return the task of a row; see `experiments.tasks.load`."""
    row = ROWS[name]
    data = row.data(folder)
    count = len(data.train_images)
    batch = batch or min(row.batch, count)
    if batch > count:
        raise UserError(f"`--batch-size` must be at most {count}, all images, got {batch}")
    return Classify(name, data, row.network, batch, epochs or row.epochs, row.threads)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of the images that `model` classifies rightly, in percent."""
    device = next((p.device for p in model.parameters()), labels.device)
    parts = zip(*(torch.split(x, TEST_BATCH) for x in (images, labels)), strict=True)
    with torch.no_grad():
        right = sum(int((model(x.to(device)).argmax(1) == y.to(device)).sum()) for x, y in parts)
    return 100 * right / len(labels)


def mixed(seed: int, segment: int) -> int:
    """Return one seed for both numbers; no two pairs below a million share one."""
    return seed * 1_000_003 + segment
