"""Objects in pictures: boxes with masks, or with keypoints, at the paper's scale and in small.

Section 4 of the paper names networks (Mask and Keypoint R-CNN, ResNet-50), data (COCO 2017), batch
(16), when it is evaluated (at iterations 2,500, 5,000 and 7,393 of an epoch) and hours of training
(17 and 15). What else has to be chosen is chosen here, once:

- **Networks.** Those of torchvision, as it has them by default.
- **Images.** 7,393 batches of 16 are all 118,287 of `train2017`, with or without objects. A last
  batch that is not whole is filled with the first images of its epoch.
- **Augmentation.** A flip of an image in two, drawn for each; with keypoints, the sizes that
  torchvision's network draws too (with masks it has but one).
- **Epochs.** What a planned schedule ends with: 12, the `1x` of model zoos. Where a machine is too
  slow for that, the paper's hours end a run before.
- **Evaluation.** An image at a time: in a batch, those beside it would change its padding.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from experiments.errors import UserError
from experiments.tasks import DETECTION, detectors, scenes
from experiments.tasks.classify import mixed
from experiments.tasks.coco import Annotations, Kind, Record, read
from experiments.tasks.examples import Example, Seen
from experiments.tasks.objects import short
from experiments.tasks.pictures import loaded
from experiments.tasks.precision import OWN, map50, records

__all__ = ["ROWS", "Detect", "Row", "detect"]

WORKERS = min(5, os.cpu_count() or 1)  # the paper's five, or as many as there are cores
EVERY = 2500  # steps from one evaluation to the next, and one at the end of an epoch
VISIBLE = 10  # keypoints in an image that torchvision's own loader keeps


class Row(NamedTuple):
    """The settings of a task.

    Attributes:
        kind: what there is besides boxes.
        files: the annotations and the folder of each part, `train` and `val`, in a data set.
        network: makes the network, of what is to be found and the weights to begin with.
        batch: images.
        epochs: in a run.
        hours: of training, after which no further segment begins; None for as many as it takes.
        threads: of torch; None leaves as many as there are.
        workers: processes that read; 0 reads in this one. No batch depends on it.
        longest: side of an image that the network takes, to which a longer one is made smaller.
        visible: whether images with fewer than 10 visible keypoints are left out of training.
    """

    kind: Kind
    files: Callable[[str], tuple[str, str]]
    network: Callable[[Annotations, dict[str, Any] | None], nn.Module]
    batch: int
    epochs: int
    hours: float | None = None
    threads: int | None = None
    workers: int = WORKERS
    longest: int = detectors.LONGEST
    visible: bool = False


@dataclass(frozen=True)
class Detect:
    """Objects in pictures, evaluated several times an epoch: a `Task`.

    A batch is a list of examples, for no two images need be of one size.
    """

    name: str
    train: Seen
    test: Annotations
    row: Row
    images: Sequence[int]  # the ids to train on
    batch: int
    passes: int  # epochs of the run
    hours: float | None = None
    weights: detectors.Weights = (None, "")

    @property
    def ends(self) -> Sequence[int]:
        """After which steps of an epoch it is evaluated; the last of them ends it."""
        whole = -(-len(self.images) // self.batch)
        return (*range(EVERY, whole, EVERY), whole)

    @property
    def steps(self) -> float:
        """In a segment, on average."""
        return self.ends[-1] / len(self.ends)

    @property
    def epochs(self) -> float:
        """In a segment, on average."""
        return 1 / len(self.ends)

    @property
    def segments(self) -> int:
        """In a run."""
        return self.passes * len(self.ends)

    @property
    def threads(self) -> int | None:
        """Of torch."""
        return self.row.threads

    def network(self) -> nn.Module:
        """Return the detector."""
        return self.row.network(self.train.source, self.weights[0])

    def batches(self, seed: int, segment: int) -> Iterator[list[Example]]:
        """Yield lists of images with what is in them, shuffled anew in every epoch."""
        epoch, part = divmod(segment, len(self.ends))
        generator = Generator().manual_seed(mixed(seed, epoch))
        order = torch.randperm(len(self.images), generator=generator)
        order = torch.cat([order, order[: -len(order) % self.batch]])
        mirrored = torch.randint(2, order.shape, generator=generator).bool()
        first, last = (self.batch * at for at in (0, *self.ends)[part : part + 2])
        places = zip(order[first:last].tolist(), mirrored[first:last].tolist(), strict=True)
        keys = [(self.images[i], flip) for i, flip in places]
        yield from self._read(self.train, keys, self.batch)

    def loss(self, model: nn.Module, batch: list[Example]) -> Tensor:
        """Return the sum of what the network has to learn: proposals, classes, boxes, and more."""
        training = model.training
        images, targets = zip(*batch, strict=True)
        losses = model.train()(list(images), list(targets))  # evaluated, it tells no losses
        model.train(training)
        return torch.stack([each.float() for each in losses.values()]).sum()

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the mean average precision at an overlap of 0.5 on all test images, in percent."""
        device = next(model.parameters()).device
        found: list[Record] = []
        for own, image in zip(self.test.images, self.tests(), strict=True):
            found += records(self.test, own, model([image.to(device)])[0])
        return map50(self.test, found)

    def tests(self) -> Iterator[Tensor]:
        """Yield the test images, in their order.

        Raises:
            UserError: naming the file and the image, if one is not sound or of another size.
        """
        keys = [(own, False) for own in self.test.images]
        seen = Seen(self.test._replace(annotations=()))
        return (image for ((image, _),) in self._read(seen, keys, 1))

    def described(self) -> dict[str, Any]:
        """Return what a record says of the data and of how it is judged."""
        own = {"weights": self.weights[1]} if self.weights[1] else {}
        return {
            "train_images": len(self.images),
            "test_images": len(self.test.images),
            "annotations": [self.train.source.digest, self.test.digest],
            "batch": self.batch,
            "augmentation": "flip",
            "ends": list(self.ends),
            "measures": [f"{name}_map50" for name in ("box", OWN[self.row.kind])],
            **own,
        }

    def _read(self, seen: Seen, keys: list[Any], size: int) -> Iterator[list[Example]]:
        together = [keys[i : i + size] for i in range(0, len(keys), size)]
        return loaded(seen, together, self.row.workers, list)


def detect(
    name: str, folder: Path | None, epochs: int | None, batch: int | None, weights: Path | None
) -> Detect:
    """Return the task of a name; see `experiments.tasks.load`."""
    row = ROWS[name]
    begin = detectors.weights(weights) if name in DETECTION else (None, "")
    if folder is None or not folder.is_dir():
        if name in DETECTION or folder:
            needed = "train2017, val2017 and annotations, of cocodataset.org"
            needed = needed if name in DETECTION else "scenes, see `python -m experiments scenes`"
            raise UserError(f"`--data` must be a folder with {needed}, got {folder}")
        folder = scenes.made()
    train, test = (_part(folder, row, part) for part in ("train", "val"))
    _alike(train, test)
    seen = Seen(train)
    if not seen.packed:
        raise UserError(f"{train.file}: must have an object to learn, with a box and no crowd")
    images = [own for own in train.images if not row.visible or seen.visible(own) >= VISIBLE]
    if not images:
        raise UserError(f"{train.file}: must have an image with {VISIBLE} visible keypoints")
    batch = batch or min(row.batch, len(images))
    if batch > len(images):
        raise UserError(f"`--batch-size` must be at most {len(images)}, all images, got {batch}")
    hours = None if epochs else row.hours
    task = Detect(name, seen, test, row, images, batch, epochs or row.epochs, hours, begin)
    for _ in task.tests():  # a bad one would end a run at its first evaluation
        pass
    return task


def _part(folder: Path, row: Row, part: str) -> Annotations:
    file, pictures = row.files(part)
    found = read(folder / file, folder / pictures, row.kind)
    for own, image in found.images.items():
        side, other = image["width"], image["height"]
        if max(side, other) >= row.longest * min(side, other):  # nothing of it would be left
            rule = f"must have sides of which none is {row.longest} times the other"
            raise UserError(f"{found.file}: image {own}: {rule}, got {side} x {other}")
    return found


def _alike(train: Annotations, test: Annotations) -> None:
    """Refuse parts that do not mean the same by a number."""
    for what, named in (("categories", _categories), ("keypoints", attrgetter("keypoints"))):
        if named(train) != named(test):
            rule = f"`{what}` must be those of {train.file}, {short(named(train))}"
            raise UserError(f"{test.file}: {rule}, got {short(named(test))}")


def _categories(part: Annotations) -> list[Any]:
    return [[own, each.get("name")] for own, each in part.categories.items()]


def _of_coco(prefix: str, part: str) -> tuple[str, str]:
    return f"annotations/{prefix}_{part}2017.json", f"{part}2017"


def _of_scenes(kind: str, part: str) -> tuple[str, str]:
    return f"annotations/{kind}_{part}.json", part


def _coco(kind: Kind, prefix: str, visible: bool = False) -> Row:
    hours, epochs = DETECTION[f"coco-{kind}"]
    files = partial(_of_coco, prefix)
    return Row(kind, files, detectors.paper, 16, epochs, hours, visible=visible)


def _scenes(kind: Kind) -> Row:
    files, longest = partial(_of_scenes, kind), detectors.SMALL
    return Row(kind, files, detectors.small, 8, 12, threads=1, workers=0, longest=longest)


ROWS = {
    "coco-keypoints": _coco("keypoints", "person_keypoints"),
    "coco-keypoints-visible": _coco("keypoints", "person_keypoints", visible=True),
    "coco-instances": _coco("instances", "instances"),
    "scenes-keypoints": _scenes("keypoints"),
    "scenes-instances": _scenes("instances"),
}
