"""Runs in torch that are timed: whole iterations, and in them the optimizer's own part."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments.cost.cases import NETWORKS, Document, full, made
from experiments.cost.paired import interleaved, now
from experiments.optimizers import Recipe
from experiments.question import Question
from experiments.run import Run, checked_device
from experiments.tasks import networks

__all__ = ["Constant", "Timed", "constant", "machine", "maker", "measured", "milliseconds", "stamp"]


@dataclass(frozen=True)
class Constant:
    """A network on one batch of noise, over and over: a `Task` without evaluation."""

    name: str
    make: Callable[[], nn.Module]
    batch: tuple[Tensor, Tensor]
    steps: int = 10_000
    segments: int = 1
    epochs: float = 1.0
    threads: int | None = None

    def network(self) -> nn.Module:
        """Return the network."""
        return self.make()

    def batches(self, seed: int, segment: int) -> Iterator[Any]:
        """Yield the batch."""
        return itertools.repeat(self.batch, self.steps)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the cross-entropy."""
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure nothing."""
        return {}

    def described(self) -> dict[str, Any]:
        """Return the size of the batch."""
        return {"batch": len(self.batch[1])}


def machine(options: Any) -> Document:
    """With what a document is made, after a look whether the device is there."""
    cuda = checked_device(getattr(options, "device", "cpu")) == "cuda"
    name = torch.cuda.get_device_name() if cuda else "cpu"
    return made(torch=torch.__version__, device=name, threads=torch.get_num_threads())


def maker(name: str, width: float = 1.0) -> Callable[[], nn.Module]:
    """Return what makes one of `NETWORKS` in torch."""
    if name == "vgg19":
        return partial(networks.vgg19, width)
    return partial(networks.small, NETWORKS[name].size)


def constant(name: str, batch: int, device: str = "cpu", width: float = 1.0) -> Constant:
    """Return one of `NETWORKS` on a batch of noise."""
    network = NETWORKS[name]
    shape = (batch, network.channels, network.size, network.size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(batch, device=device) % 10
    return Constant(name, maker(name, width), (images, labels))


class Timed(Run):
    """A run that also knows how long its closures took, and whose window is full.

    Its rate is so small that no optimizer diverges on noise.
    """

    def __init__(self, task: Constant, name: str, by: Recipe, device: str = "cpu") -> None:
        options = {"lr": 1e-4} if "lr" in by.options else {}
        question = Question(name, options=options, log_every=task.steps)
        super().__init__(task, question, device, by)
        if hasattr(self.optimizer, "zenith_state"):
            self.optimizer.zenith_state = full(self.optimizer.window)
        self.batch = task.batch
        self.inside: list[tuple[Any, Any]] = []  # when a closure began and ended

    def closure(self, backward: bool = True, half: int | None = None) -> Tensor:
        """Return the loss, as a run does, and stamp it."""
        start = stamp(self.device)
        loss = super().closure(backward, half)
        self.inside.append((start, stamp(self.device)))
        return loss

    def timed(self, iterations: int) -> tuple[float, float]:
        """Return milliseconds for each iteration, and how many of them are the optimizer's own."""
        self.inside.clear()
        start = stamp(self.device)
        for _ in range(iterations):
            self.step(self.batch)
        whole = milliseconds(start, stamp(self.device))
        own = whole - sum(milliseconds(*stamps) for stamps in self.inside)
        return whole / iterations, own / iterations


def measured(
    runs: Mapping[str, Timed], repetitions: int, iterations: int
) -> dict[str, dict[str, list[float]]]:
    """Return milliseconds of an iteration, and of the optimizer's own part, by name."""
    timings = {name: lambda run=run: run.timed(iterations) for name, run in runs.items()}
    return {
        name: {"milliseconds": [w for w, _ in pairs], "step milliseconds": [o for _, o in pairs]}
        for name, pairs in interleaved(timings, repetitions).items()
    }


def stamp(device: torch.device) -> Any:
    """The present moment, in the time of the device."""
    if device.type != "cuda":
        return now()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def milliseconds(start: Any, end: Any) -> float:
    """From one stamp to another, for which a GPU is waited."""
    if isinstance(start, float):
        return 1e3 * float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end))
