"""All optimizers trained in step with one another, so that their times can be compared in pairs."""

import copy
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import zenith
from zenith.demo.data import Data
from zenith.demo.model import network
from zenith.demo.optimizers import build
from zenith.demo.records import Record
from zenith.demo.settings import Plan, Settings
from zenith.torch import Zenith

TEST_BATCH = 1000  # keeps the memory of an evaluation small


class Lane:
    """One optimizer's model, and what is measured of it."""

    def __init__(self, name: str, model: nn.Module, settings: Settings, steps: int) -> None:
        self.name = name
        self.model = model
        self.optimizer, self.scheduler = build(name, model.parameters(), settings, steps)
        self.times: list[float] = []  # seconds of each step
        self.losses: list[float] = []  # of each step
        self.epochs: list[Record] = []  # the record of each finished epoch
        self._planned_rate = settings.lr

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Make one training step and time all of it: forward, backward, optimizer, scheduler."""
        start = perf_counter()
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own method has no types
        self.optimizer.step()
        self._planned_rate = self.optimizer.param_groups[0]["lr"]
        if self.scheduler is not None:
            self.scheduler.step()
        self.times.append(perf_counter() - start)
        self.losses.append(loss.item())

    def rate(self) -> float:
        """Return the learning rate in force at the last step."""
        if isinstance(self.optimizer, Zenith):
            return self.optimizer.get_last_lr()[0]
        return self._planned_rate

    def schedule(self) -> Record:
        """Return ZENITH's numbers after the last step; nothing for another optimizer."""
        if not isinstance(self.optimizer, Zenith):
            return {}
        numbers = zenith.metrics(self.optimizer.zenith_state)
        return {name: float(numbers[name]) for name in ("grad_norm", "mean", "zenith", "scale")}


def train(
    settings: Settings, plan: Plan, data: Data, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Record]:
    """Train every optimizer with every seed and yield the records as they come about.

    The seed decides the initial weights and the order of the batches, which are the same for all
    optimizers. A step of one is followed by the same step of the next, and who goes first rotates,
    so that whatever else the machine does falls on all of them alike.

    Args:
        settings: what is asked for.
        plan: the length of the run.
        data: what to learn and to test on.
        stopped: asked after each step; once it is true, the training ends with the results of the
            epochs that are finished.

    Yields:
        `step`, `epoch` and `result` records; `zenith.demo.records` says what is in them.
    """
    for seed in range(settings.seeds):
        lanes = make_lanes(settings, plan, data, seed)
        yield from _train_seed(lanes, plan, data, seed, stopped)
        yield from _results(lanes, seed)
        if stopped():
            return


def make_lanes(settings: Settings, plan: Plan, data: Data, seed: int) -> list[Lane]:
    """Return a lane for each optimizer, all with the initial weights that `seed` draws."""
    torch.manual_seed(seed)
    model = network(data.train_images.shape[-1])
    return [Lane(name, copy.deepcopy(model), settings, plan.steps) for name in settings.optimizers]


def batches(plan: Plan, images: int, seed: int) -> Iterator[Tensor]:
    """Yield the indices of each batch of a whole run; every epoch is shuffled anew."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(plan.epochs):
        order = torch.randperm(images, generator=generator)
        yield from torch.split(order, plan.batch_size)[: plan.steps_per_epoch]


def _train_seed(
    lanes: Sequence[Lane], plan: Plan, data: Data, seed: int, stopped: Callable[[], bool]
) -> Iterator[Record]:
    logged = 0
    for step, batch in enumerate(batches(plan, len(data.train_images), seed), start=1):
        images, labels = data.train_images[batch], data.train_labels[batch]
        for turn in range(len(lanes)):
            lanes[(step + turn) % len(lanes)].step(images, labels)
        if step % plan.log_every == 0 or step == plan.steps:
            yield from (_step_record(lane, plan, seed, step, logged) for lane in lanes)
            logged = step
        if step % plan.steps_per_epoch == 0:
            yield from (_epoch_record(lane, plan, data, seed) for lane in lanes)
        if stopped():
            return


def _step_record(lane: Lane, plan: Plan, seed: int, step: int, logged: int) -> Record:
    return {
        "kind": "step",
        "optimizer": lane.name,
        "seed": seed,
        "step": step,
        "epoch": math.ceil(step / plan.steps_per_epoch),
        "loss": statistics.fmean(lane.losses[logged:]),
        "lr": lane.rate(),
        **lane.schedule(),
    }


def _epoch_record(lane: Lane, plan: Plan, data: Data, seed: int) -> Record:
    record = {
        "kind": "epoch",
        "optimizer": lane.name,
        "seed": seed,
        "epoch": len(lane.epochs) + 1,
        "train_loss": statistics.fmean(lane.losses[-plan.steps_per_epoch :]),
        "test_accuracy": accuracy(lane.model, data),
        "lr": lane.rate(),
        "seconds": math.fsum(lane.times),
    }
    lane.epochs.append(record)
    return record


def accuracy(model: nn.Module, data: Data) -> float:
    """Return the share of the test images that `model` classifies rightly, in percent."""
    images, labels = (torch.split(x, TEST_BATCH) for x in (data.test_images, data.test_labels))
    with torch.no_grad():
        right = sum(
            int((model(x).argmax(1) == y).sum()) for x, y in zip(images, labels, strict=True)
        )
    return 100 * right / len(data.test_labels)


def _results(lanes: Sequence[Lane], seed: int) -> Iterator[Record]:
    """The last finished epoch of each lane, and its overhead; nothing where none is finished."""
    base = next((lane.times for lane in lanes if lane.name == "sgd"), None)
    for lane in lanes:
        if lane.epochs:
            yield lane.epochs[-1] | {
                "kind": "result",
                "step_ms": 1000 * statistics.median(lane.times),
                "overhead_percent": None if base is None else overhead(lane.times, base),
            }


def overhead(times: Sequence[float], base: Sequence[float]) -> Record:
    """Return by how much longer each step took than the same step of `base`.

    Args:
        times: seconds of each step.
        base: seconds of each step of the reference, in the same order.

    Returns:
        The quartiles over the steps, `q1`, `median` and `q3`, of `times / base - 1` in percent.

    Examples:
        >>> overhead([1.5, 2.0, 9.0], [1.0, 2.0, 3.0])  # ratios 1.5, 1.0 and 3.0
        {'q1': 25.0, 'median': 50.0, 'q3': 125.0}
    """
    excess = [100 * (time / reference - 1) for time, reference in zip(times, base, strict=True)]
    quartiles = np.quantile(excess, (0.25, 0.5, 0.75)).tolist()
    return dict(zip(("q1", "median", "q3"), quartiles, strict=True))
