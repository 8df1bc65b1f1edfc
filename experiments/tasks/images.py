"""The images: scikit-learn's handwritten digits, and Fashion-MNIST from its four IDX files."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.errors import UserError
from experiments.tasks.idx import read_idx
from experiments.tasks.sources import FASHION_MNIST_DIR, FASHION_MNIST_FILES

__all__ = ["Data", "digits", "fashion_mnist"]

CLASSES = 10


class Data(NamedTuple):
    """Images to learn from and images to test on, standardised by the training images alone.

    Attributes:
        train_images: float32, shape `(n, 1, size, size)`.
        train_labels: int64 in 0..9, shape `(n,)`.
        test_images: float32, shape `(m, 1, size, size)`.
        test_labels: int64 in 0..9, shape `(m,)`.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


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
    return _standardised(train, train_labels, test, test_labels)


def fashion_mnist(folder: Path | None = None) -> Data:
    """Return Fashion-MNIST, 28 x 28: 60,000 + 10,000 in the published files.

    Args:
        folder: where the four files are; by default, where Debian's package puts them.

    Raises:
        UserError: naming the folder or the file, if one is missing, corrupt or does not match.
    """
    folder = folder or FASHION_MNIST_DIR
    if not folder.is_dir():
        raise UserError(f"{folder}: must be a folder with {FASHION_MNIST_FILES}")
    return _standardised(*_pair(folder, "train"), *_pair(folder, "t10k"))


def _pair(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
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


def _standardised(
    train: NDArray[np.generic],
    train_labels: NDArray[np.generic],
    test: NDArray[np.generic],
    test_labels: NDArray[np.generic],
) -> Data:
    mean, deviation = train.mean(dtype=np.float64), train.std(dtype=np.float64)

    def images(raw: NDArray[np.generic]) -> Tensor:
        standardised = (raw.astype(np.float64) - mean) / (deviation or 1)
        return torch.tensor(standardised, dtype=torch.float32).unsqueeze(1)

    def labels(raw: NDArray[np.generic]) -> Tensor:
        return torch.tensor(raw, dtype=torch.int64)

    return Data(images(train), labels(train_labels), images(test), labels(test_labels))
