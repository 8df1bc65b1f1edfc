"""Small tasks for the tests of the experiments, and the command as a process."""

from functools import partial
from pathlib import Path

import _commands
import torch

from experiments.question import Question
from experiments.run import Run
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


environment = partial(_commands.environment, "experiments")
command = partial(_commands.run, program="experiments")
