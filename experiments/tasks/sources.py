"""Where the files of a task are, and where they come from."""

from pathlib import Path

__all__ = ["FASHION_MNIST_DIR", "FASHION_MNIST_FILES", "SCENES_TEST", "SCENES_TRAIN"]

FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
FASHION_MNIST_FILES = (
    "the four .gz files of Fashion-MNIST, which Debian's package dataset-fashion-mnist brings, and "
    "github.com/zalandoresearch/fashion-mnist"
)
SCENES_TRAIN, SCENES_TEST = 1000, 300  # scenes are made: so many by default
