"""The paper's data sets, from the files that their authors publish; nothing is downloaded.

A folder is that in which the published archive was unpacked. Whatever is missing, cut short or in
another place ends in one line that names the file and what must be there.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, wraps
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import CIFAR10, CIFAR100, Food101
from torchvision.datasets.folder import (
    IMG_EXTENSIONS,
    find_classes,
    make_dataset,
)
from torchvision.datasets.utils import check_integrity

from experiments.errors import UserError
from experiments.tasks.images import pair

__all__ = [
    "Parts",
    "Source",
    "cifar10",
    "cifar100",
    "food101",
    "imagenet100",
    "loaded",
    "mnist",
    "tiny_imagenet",
]


class Source(Protocol):
    """Pictures, each with its class."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int, /) -> Any:
        """Return a picture and the number of its class."""


Parts = tuple[Source, Source]  # to train on, and to test on


def published(files: str) -> Callable[[Callable[[Path], Parts]], Callable[[Path | None], Parts]]:
    """Say of whatever fails in a loader which files it needs, and where they come from."""

    def decorated(load: Callable[[Path], Parts]) -> Callable[[Path | None], Parts]:
        @wraps(load)
        def loaded(folder: Path | None) -> Parts:
            if folder is None or not folder.exists():
                raise UserError(f"`--data` must be a folder with {files}, got {folder}")
            try:
                return load(folder)
            except Exception as error:  # torchvision has no class of its own for what it meets
                raise UserError(f"{_named(folder, error)}; needed: {files}") from error

        return loaded

    return decorated


def _named(path: Path | str, error: Exception) -> str:
    """What went wrong, in one line that begins with a path."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or path}: cannot be read ({error.strerror})"
    return f"{path}: {shorten(str(error), 160) or type(error).__name__}"


class Files(Dataset[tuple[Any, int]]):
    """Pictures in files, each with its class."""

    def __init__(self, samples: Sequence[tuple[str, int]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        return opened(path), label


# Pillow's modes that it makes colours of; of numbers beyond 8 bits it cuts off what is above 255
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")


def opened(path: Path | str) -> Any:
    """Return the picture in a file, in colours."""
    try:
        with Image.open(path) as picture:
            if picture.mode in MODES:
                return picture.convert("RGB")
            wrong = f"{path}: must be of a mode in {', '.join(MODES)}, got {picture.mode}"
    except Exception as error:  # Pillow has no class of its own either
        remedy = "unpack the archive anew"
        raise UserError(f"{_named(path, error)}; not a sound picture: {remedy}") from error
    raise UserError(wrong)


def loaded(
    source: Dataset[Any],
    together: Sequence[list[Any]],
    workers: int,
    collate: Callable[[list[Any]], Any],
) -> Iterator[Any]:
    """Yield the examples of each list of keys as a batch, read as they are needed.

    Args:
        source: of examples by their keys; a `UserError` in place of one is raised here.
        together: the keys of each batch.
        workers: how many processes read; 0 reads in this one.
        collate: makes a batch of a list of examples.
    """
    loader: DataLoader[Any] = DataLoader(
        source,
        batch_sampler=together,
        collate_fn=partial(_collated, collate),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # so that the run's own is left as it is
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _collated(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    wrong = [sample for sample in samples if isinstance(sample, UserError)]
    return wrong[0] if wrong else collate(samples)


@published("MNIST's four .gz files, from yann.lecun.com/exdb/mnist, or torchvision's MNIST/raw")
def mnist(folder: Path) -> Parts:
    """Return MNIST: 60,000 + 10,000 digits in grey, 28 x 28."""
    raw = folder / "MNIST" / "raw"
    folder = raw if raw.is_dir() else folder
    train, test = (_in_memory(*pair(folder, part)) for part in ("train", "t10k"))
    return train, test


def _in_memory(images: Any, labels: Any) -> TensorDataset:
    return TensorDataset(torch.tensor(images).unsqueeze(1), torch.tensor(labels, dtype=torch.int64))


@published("cifar-10-batches-py, from cifar-10-python.tar.gz of www.cs.toronto.edu/~kriz")
def cifar10(folder: Path) -> Parts:
    """Return CIFAR-10: 50,000 + 10,000 in colours, 32 x 32."""
    return _cifar(CIFAR10, folder)


@published("cifar-100-python, from cifar-100-python.tar.gz of www.cs.toronto.edu/~kriz")
def cifar100(folder: Path) -> Parts:
    """Return CIFAR-100: 50,000 + 10,000 in colours, 32 x 32."""
    return _cifar(CIFAR100, folder)


def _cifar(kind: Any, folder: Path) -> Parts:
    for name, md5 in [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]:
        path = folder / kind.base_folder / name
        if not check_integrity(path, md5):
            raise UserError(f"{path}: {'not as published' if path.exists() else 'missing'}")
    return kind(folder), kind(folder, train=False)


@published("food-101, from food-101.tar.gz of data.vision.ee.ethz.ch/cvl/datasets_extra/food-101")
def food101(folder: Path) -> Parts:
    """Return Food-101: 75,750 + 25,250 in colours, up to 512 x 512."""
    images, meta = folder / "food-101" / "images", folder / "food-101" / "meta"
    for part in ("train", "test"):
        _json(meta / f"{part}.json")
    if not images.is_dir():
        raise UserError(f"{images}: missing")
    train, test = (Food101(folder, part, loader=opened) for part in ("train", "test"))
    _counted(train.classes, 101, meta / "train.json")
    return train, test


@published("tiny-imagenet-200, from tiny-imagenet-200.zip of cs231n.stanford.edu")
def tiny_imagenet(folder: Path) -> Parts:
    """Return Tiny ImageNet: 100,000 + 10,000 in colours, 64 x 64.

    The test images have no published labels: those to validate on take their place, as is usual.
    """
    folder = folder / "tiny-imagenet-200"
    names, classes = find_classes(folder / "train")
    _counted(names, 200, folder / "train")
    listing = folder / "val" / "val_annotations.txt"
    test = []
    for number, line in enumerate(_text(listing).splitlines(), start=1):
        name, _, rest = line.partition("\t")
        label = classes.get(rest.partition("\t")[0])
        if label is None:
            raise UserError(f"{listing}, line {number}: must be a file and a class, got {line!r}")
        test.append((str(folder / "val" / "images" / name), label))
    return Files(make_dataset(folder / "train", classes, IMG_EXTENSIONS)), Files(test)


@published(
    "ImageNet's train and val, a folder for each class in both, from image-net.org, with a list of "
    "100 classes: classes.txt, Labels.json, or a file there that --data names"
)
def imagenet100(folder: Path) -> Parts:
    """Return 100 of ImageNet's classes: some 126,700 + 5,000 in colours, of all sizes.

    Args:
        folder: the folder, or a file in it that lists the classes: a word a line, or the keys of a
            JSON object.
    """
    lists = [folder / "classes.txt", folder / "Labels.json"] if folder.is_dir() else [folder]
    found = next((path for path in lists if path.is_file()), lists[0])
    words = _json(found) if found.suffix == ".json" else _text(found).split("\n")
    names = sorted({word.split()[0] for word in words if word.strip()})
    _counted(names, 100, found)
    classes = {name: label for label, name in enumerate(names)}
    parts = (
        make_dataset(found.parent / part, classes, IMG_EXTENSIONS) for part in ("train", "val")
    )
    train, test = map(Files, parts)
    return train, test


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path}: not a text in UTF-8") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise UserError(f"{path}: not sound JSON ({error})") from error


def _counted(classes: Iterable[str], count: int, place: Path) -> None:
    if (found := len(list(classes))) != count:
        raise UserError(f"{place}: must have {count} classes, got {found}")
