"""Small data for the tests of the demo, and hand-made IDX files."""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch

from zenith.demo.data import Data
from zenith.demo.settings import Plan, Settings, plan
from zenith.demo.train import Record, train

TRAIN, TEST = 40, 12


def tiny_data() -> Data:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(TRAIN + TEST, 1, 8, 8, generator=generator)
    labels = torch.randint(10, (TRAIN + TEST,), generator=generator)
    return Data(images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:])


def tiny(**options: object) -> tuple[Settings, Plan, Data]:
    """Two epochs of five steps."""
    settings = Settings(**{"epochs": 2, "batch_size": 8, "window": 3, "seeds": 2} | options)
    return settings, plan(settings, TRAIN), tiny_data()


def tiny_records(**options: object) -> list[Record]:
    """The records of a run, without a header."""
    return list(train(*tiny(**options)))


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
