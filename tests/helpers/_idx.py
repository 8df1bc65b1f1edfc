"""IDX files, the format of MNIST and Fashion-MNIST."""

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(array: np.ndarray, *, magic: int | None = None, shape: tuple[int, ...] = ()) -> bytes:
    """The array as an IDX file, by default a right one."""
    magic = 0x0800 + array.ndim if magic is None else magic
    shape = shape or array.shape
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + array.tobytes()


def write_fashion(folder: Path, train: int = 30, test: int = 10) -> Path:
    """Write the four files of Fashion-MNIST with so many images, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(3)
    for part, count in (("train", train), ("t10k", test)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        _write(folder / f"{part}-images-idx3-ubyte.gz", idx(images))
        _write(folder / f"{part}-labels-idx1-ubyte.gz", idx(labels))
    return folder


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content))
