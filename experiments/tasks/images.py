"""The images: scikit-learn's handwritten digits, and Fashion-MNIST from its four IDX files."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn.functional import pad

from experiments.errors import UserError
from experiments.tasks.idx import read_idx
from experiments.tasks.sources import FASHION_MNIST_DIR, FASHION_MNIST_FILES

__all__ = ["Batch", "Data", "Images", "Part", "desk", "digits", "fashion_mnist", "pair", "shifted"]

CLASSES = 10
TEST_BATCH = 1000  # keeps the memory of an evaluation small

Batch = tuple[Tensor, Tensor]  # images and labels
Part = Literal["train", "test", "validation"]
_Raw = tuple[NDArray[np.generic], NDArray[np.generic]]  # images of any kind of number, and labels


class Images(Protocol):
    """Images to learn from, to test on and, where there are any, to validate on."""

    @property
    def size(self) -> int:
        """Height and width, in pixels."""

    @property
    def counts(self) -> Mapping[Part, int]:
        """How many images each part has."""

    @property
    def augmentation(self) -> str | None:
        """What is done to the training images, in words."""

    def drawn(self, batches: Iterable[Tensor], generator: Generator) -> Iterator[Batch]:
        """Yield the training images of each batch of indices, augmented by the generator."""

    def whole(self, part: Part) -> Iterator[Batch]:
        """Yield all images of a part, as they are, in batches."""


class Data(NamedTuple):
    """`Images` in memory, standardised by the training images alone.

    Attributes:
        train_images: float32, shape `(n, 1, size, size)`.
        train_labels: int64 in 0..9, shape `(n,)`.
        test_images: float32, shape `(m, 1, size, size)`.
        test_labels: int64 in 0..9, shape `(m,)`.
        validation: images and labels alike, to choose by; none of them is trained on.
        augment: what is done to a batch of training images, with a generator to draw from.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    validation: Batch | None = None
    augment: Callable[[Tensor, Generator], Tensor] | None = None

    @property
    def size(self) -> int:
        """Height and width of the images, in pixels."""
        return self.train_images.shape[-1]

    @property
    def counts(self) -> dict[Part, int]:
        """How many images each part has."""
        counts: dict[Part, int] = {"train": len(self.train_labels), "test": len(self.test_labels)}
        return counts | ({"validation": len(self.validation[1])} if self.validation else {})

    @property
    def augmentation(self) -> str | None:
        """The name of what augments the images."""
        return self.augment.__name__ if self.augment else None

    def drawn(self, batches: Iterable[Tensor], generator: Generator) -> Iterator[Batch]:
        """Yield the training images of each batch of indices, augmented by the generator."""
        for indices in batches:
            images = self.train_images[indices]
            if self.augment:
                images = self.augment(images, generator)
            yield images, self.train_labels[indices]

    def whole(self, part: Part) -> Iterator[Batch]:
        """Yield all images of a part, as they are, in batches."""
        parts = {"train": self[:2], "test": self[2:4], "validation": self.validation}
        return zip(*(torch.split(x, TEST_BATCH) for x in parts[part] or ()), strict=True)


def digits(folder: Path | None = None) -> Data:
    """Return the 1797 handwritten digits, 8 x 8, that scikit-learn ships: 1347 + 450."""
    if folder is not None:
        raise UserError(f"the digits come with scikit-learn and take no folder, got {folder}")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images.reshape(-1, 8, 8), labels, test_size=450, stratify=labels, random_state=0
    )
    return _standardised((train, train_labels), (test, test_labels))


def fashion_mnist(folder: Path | None = None) -> Data:
    """Return Fashion-MNIST, 28 x 28: 60,000 + 10,000 in the published files.

    Args:
        folder: where the four files are; by default, where Debian's package puts them.

    Raises:
        UserError: naming the folder or the file, if one is missing, corrupt or does not match.
    """
    return _standardised(*_fashion(folder))


def desk(
    count: int,
    augment: Callable[[Tensor, Generator], Tensor] | None = None,
    folder: Path | None = None,
) -> Data:
    """Return Fashion-MNIST for a short run: 14 x 14, each pixel the mean of four.

    Trained on are the first `count` of the 60,000 training images, in the order of the file, which
    is not one by class; the last 6,000 (a tenth of the file) are to validate on. All 10,000 test
    images remain.

    Args:
        count: of the training images; at most nine tenths of the file.
        augment: as `Data` has it.
        folder: as for `fashion_mnist`.
    """
    (train, train_labels), (test, test_labels) = _fashion(folder)
    held = len(train) - len(train) // 10
    used = min(count, held)
    data = _standardised(
        (_halved(train[:used]), train_labels[:used]),
        (_halved(test), test_labels),
        validation=(_halved(train[held:]), train_labels[held:]),
    )
    return data._replace(augment=augment)


def shifted(images: Tensor, generator: Generator) -> Tensor:
    """Return each image shifted by -1, 0 or 1 pixel each way, and every other one mirrored.

    What comes in at an edge repeats it.

    Args:
        images: shape `(n, 1, size, size)`.
        generator: what all is drawn from.
    """
    count, _, _, size = images.shape
    rows, columns = torch.randint(3, (2, count, 1), generator=generator) + torch.arange(size)
    mirrored = torch.randint(2, (count, 1), generator=generator).bool()
    columns = torch.where(mirrored, columns.flip(1), columns)
    padded = pad(images, (1, 1, 1, 1), mode="replicate")
    each = torch.arange(count)[:, None, None]
    return padded[each, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def _fashion(folder: Path | None) -> tuple[_Raw, _Raw]:
    folder = folder or FASHION_MNIST_DIR
    if not folder.is_dir():
        raise UserError(f"{folder}: must be a folder with {FASHION_MNIST_FILES}")
    return pair(folder, "train"), pair(folder, "t10k")


def pair(folder: Path, part: str) -> _Raw:
    """Return the images and labels of MNIST's or Fashion-MNIST's part, `train` or `t10k`.

    Raises:
        UserError: naming the file, if one is missing, corrupt or does not match the other.
    """
    images_path = folder / f"{part}-images-idx3-ubyte.gz"
    labels_path = folder / f"{part}-labels-idx1-ubyte.gz"
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) == 0 or images.shape[1:] != (28, 28):
        raise UserError(f"{images_path}: must hold images of 28 x 28, got shape {images.shape}")
    if len(labels) != len(images):
        raise UserError(f"{labels_path}: {len(labels)} labels for {len(images)} images")
    if labels.max() >= CLASSES:
        raise UserError(f"{labels_path}: labels must be below {CLASSES}, got {labels.max()}")
    return images, labels


def _halved(images: NDArray[np.generic]) -> NDArray[np.float64]:
    """The mean of every four pixels: 14 x 14 of 28 x 28."""
    means: NDArray[np.float64] = images.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    return means


def _standardised(train: _Raw, test: _Raw, validation: _Raw | None = None) -> Data:
    mean, deviation = train[0].mean(dtype=np.float64), train[0].std(dtype=np.float64)

    def batch(raw: _Raw) -> Batch:
        standardised = (raw[0].astype(np.float64) - mean) / (deviation or 1)
        images = torch.tensor(standardised, dtype=torch.float32).unsqueeze(1)
        return images, torch.tensor(raw[1], dtype=torch.int64)

    return Data(*batch(train), *batch(test), batch(validation) if validation else None)
