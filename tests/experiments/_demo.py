"""Small tasks for the tests of the experiments, IDX files, and the command as a process."""

import gzip
import struct
from functools import partial
from pathlib import Path

import _commands
import numpy as np
import torch

from experiments.run import Question, Run
from experiments.tasks import networks
from experiments.tasks.classify import Classify
from experiments.tasks.images import Data
from experiments.train import train

TRAIN, TEST = 40, 12
NAMES = ("zenith", "sgd", "sgd-cosine")
ZENITH = {"window": 3}


def tiny_data() -> Data:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(TRAIN + TEST, 1, 8, 8, generator=generator)
    labels = torch.randint(10, (TRAIN + TEST,), generator=generator)
    return Data(images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:])


def tiny(segments: int = 2) -> Classify:
    """Two epochs of five steps."""
    return Classify("digits", tiny_data(), networks.small, batch=8, segments=segments)


def questions(names=NAMES, seed=0, log_every=1, **options) -> list[Question]:
    """What to ask of each optimizer, ZENITH with a window of 3."""
    given = {name: options | (ZENITH if name == "zenith" else {}) for name in names}
    return [Question(name, seed, given[name], log_every=log_every) for name in names]


def recorded(folder: Path, names=NAMES, seeds=2, log_every=1, stopped=lambda: False, **options):
    """Train a tiny task with each seed; return each record with the name of its run."""
    task = tiny()
    found = []
    for seed in range(seeds):
        runs = [Run(task, question) for question in questions(names, seed, log_every, **options)]
        found += [
            (run.question.optimizer, record)
            for run, record in train(task, runs, folder, stopped=stopped)
        ]
    return found


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


environment = partial(_commands.environment, "experiments")
command = partial(_commands.run, program="experiments")
