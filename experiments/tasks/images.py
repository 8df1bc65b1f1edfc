"""The images, as `zenith.demo` loads them, under the experiments' own option for their folder."""

from pathlib import Path

from experiments.errors import UserError
from zenith.demo import data
from zenith.demo.data import Data
from zenith.demo.settings import FASHION_MNIST_DIR

__all__ = ["Data", "digits", "fashion_mnist"]


def digits(folder: Path | None = None) -> Data:
    """Return the 1797 handwritten digits, 8 x 8, that scikit-learn ships: 1347 + 450."""
    if folder is not None:
        raise UserError(f"`--data` must not be given for the digits, got {folder}")
    return data.digits()


def fashion_mnist(folder: Path | None = None) -> Data:
    """Return Fashion-MNIST, 28 x 28: 60,000 + 10,000 in the published files.

    Raises:
        UserError: naming the folder or the file, if one is missing, corrupt or does not match.
    """
    folder = folder or FASHION_MNIST_DIR
    if not folder.is_dir():
        raise UserError(
            f"`--data` must be a folder with the four .gz files of Fashion-MNIST, got {folder}: "
            "Debian's package dataset-fashion-mnist brings them, and so does "
            "github.com/zalandoresearch/fashion-mnist"
        )
    return data.fashion_mnist(folder)
