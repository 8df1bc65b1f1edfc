"""One run: one model, one optimizer, one seed."""

import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from importlib import metadata
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm
from torch.optim.lr_scheduler import LinearLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments import parallel, probes, tasks
from experiments.errors import UserError
from experiments.machine import cores, processor
from experiments.optimizers import OPTIMIZERS, Recipe, Setting, recipe
from experiments.question import Question
from experiments.records import Record
from experiments.tasks import Task, length
from zenith.cli import own_version

__all__ = ["Run"]


class Run:
    """A model under training: a step by closure, its own clock, and all that it resumes from.

    Args:
        task: what to learn.
        question: by what, and how.
        device: of the model.
        beside: what to train by, where the optimizer is none of the registry's.

    Attributes:
        steps: made so far.
        segment: the one that is under way, from 0.
        seconds: of training, evaluation left out; of one thread on a processor its own time.
        train_losses: the mean loss of each segment.
        tested: a copy of what was evaluated last, for the probes.
        average: the mean of the weights, if the probe of that name is asked for.
    """

    def __init__(
        self, task: Task, question: Question, device: str = "cpu", beside: Recipe | None = None
    ) -> None:
        probes.checked(question.probes)
        self.task, self.question, self.device = task, question, torch.device(device)
        self.hours = question.hours or getattr(task, "hours", None)
        self.recipe = beside or recipe(question.optimizer, question.options)
        torch.manual_seed(question.seed)
        self.model = task.network().to(self.device)
        self._trained = parallel.replicated(self.model, self.device)
        self._epoch = task.steps / task.epochs  # in steps
        self._ends: Sequence[float] = getattr(task, "ends", (task.steps,))  # of segments, within it
        setting = Setting(length(task), self._epoch, _normalizes(self.model))
        self.optimizer, self.scheduler = self.recipe.make(
            self.model.parameters(), setting, question.options
        )
        self.warm_up = _warming(self.optimizer, question, length(task))
        self.averager = self.recipe.average(self.model)
        self.average = _mean_of(self.model) if "average" in question.probes else None
        self.tested = self.model
        self.steps = self.segment = 0
        self.seconds = 0.0
        self.train_losses: list[float] = []
        self.diverged = False
        self._batch: Any = None
        self._losses: list[Tensor] = []  # of the segment
        self._logged = 0  # of those

    @property
    def done(self) -> bool:
        """Whether the budget is spent, or the loss no longer a number."""
        spent = self.hours is not None and self.seconds >= 3600 * self.hours
        return self.segment >= self.task.segments or spent or self.diverged

    def step(self, batch: Any) -> Record | None:
        """Make one training step, on the clock; return its record where one is due."""
        self._batch = self._moved(_divided(parallel.part, batch))
        penalty = self._penalty().detach() if self.question.l2 else None
        start = self._now()
        if self.warm_up and self.steps:
            self.warm_up.step()
        if self._planned("step") and self.steps:  # so that until here the rate was that in force
            self.scheduler.step()
        loss = self.optimizer.step(self.closure).detach()
        if self.averager:
            self.averager.step()
        self.steps += 1
        self.seconds += self._now() - start
        self._losses.append(loss if penalty is None else loss - penalty)
        if self.average:
            self.average.update_parameters(self.model)
        ended = self.steps % self._ends[-1] in (0, *self._ends[:-1])
        due = ended or self.steps % self.question.log_every == 0
        line = self._line() if due else None
        if self._planned("epoch") and self.steps % round(self._epoch) == 0:
            self.scheduler.step(self._validation_loss())
        return line

    def closure(self, backward: bool = True, half: int | None = None) -> Tensor:
        """Return the loss of the batch, and, if wanted, leave its gradient in the parameters.

        Every pass over one batch draws the same noise (dropout): it depends on the step alone. Only
        the second half of a batch, after the first, draws noise of its own. A pass without the
        gradient leaves the statistics of batch norm as they were.

        Args:
            backward: whether to take the gradient.
            half: 0 or 1, for that half of the batch alone, the first of which has the odd one.
        """
        if half != 1:
            torch.manual_seed(self.question.seed * 1_000_003 + self.steps)
        batch = self._batch
        if half is not None:
            batch = _divided(lambda part: _half(part, half), batch)
        buffers = [] if backward else [buffer.clone() for buffer in self.model.buffers()]
        with torch.set_grad_enabled(backward):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.question.amp):
                loss = self.task.loss(self._trained, batch)
            if self.question.l2:
                loss = loss + self._penalty()
            if backward:
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own method has no types
        for buffer, before in zip(self.model.buffers(), buffers, strict=False):
            buffer.copy_(before)
        return parallel.mean(loss)

    def finish_segment(self) -> Record:
        """Evaluate, off the clock; return the record."""
        self.segment += 1
        self.seconds = parallel.agreed(lambda: self.seconds)
        self.train_losses = [*self.train_losses, self._mean_loss(0)]
        measures = {**self.evaluated(), **probes.measured(self)}
        self._losses, self._logged = [], 0
        return {
            "kind": "eval",
            "segment": self.segment,
            "step": self.steps,
            "epoch": self.steps / self._epoch,
            "train_loss": self.train_losses[-1],
            **measures,
            "seconds": self.seconds,
        }

    def end(self) -> Record:
        """Return the last record."""
        whole = self.segment >= self.task.segments
        outcome = "diverged" if self.diverged else "finished" if whole else "stopped"
        return {"kind": "end", "outcome": outcome, "step": self.steps}

    def header(self) -> Record:
        """Return the first record: the whole question, and with what it was answered."""
        return {
            "task": self.task.name,
            **self.question.asked(),
            "hours": self.hours,
            **self.task.described(),
            "steps": self.task.steps,
            "epochs": self.task.epochs,
            "segments": self.task.segments,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "made": _made(self.device),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run resumes from, at the end of a segment."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            **({"warm_up": self.warm_up.state_dict()} if self.warm_up else {}),
            "averager": self.averager.state_dict() if self.averager else None,
            "average": self.average.state_dict() if self.average else None,
            "own": {name: getattr(self, name) for name in _OWN},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.warm_up:
            self.warm_up.load_state_dict(state["warm_up"])
        if self.averager:
            self.averager.load_state_dict(state["averager"])
        if self.average:
            self.average.load_state_dict(state["average"])
        for name in _OWN:
            setattr(self, name, state["own"][name])

    def branch(self) -> "Run":
        """Return a copy that goes on by itself: without a scheduler, and no probe but `average`."""
        kept = tuple(name for name in self.question.probes if name == "average")
        question = replace(self.question, probes=kept)
        branch = Run(self.task, question, str(self.device), self.recipe)
        branch.load_state_dict(deepcopy(self.state_dict()))
        branch.scheduler = None
        return branch

    def batches(self, segment: int, seed: int | None = None) -> Iterator[Any]:
        """Yield the batches of a segment, on the device; by default those of this run's seed."""
        seed = self.question.seed if seed is None else seed
        return map(self._moved, self.task.batches(seed, segment))

    def gradient(self, batch: Any) -> list[Tensor]:
        """Return the gradient of a batch, as the next step would take it."""
        self._batch = self._moved(batch)
        self.closure()
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def evaluated(self) -> dict[str, float]:
        """Return the task's measures, at the weights that the optimizer is tested at."""
        if self.recipe.averages:
            self.optimizer.eval()
            self.refresh(self.model)
        model = self.averager.averaged_model if self.averager else self.model
        model.eval()
        measures = self.task.evaluate(model)
        if self.question.probes:
            self.tested = deepcopy(model)
        model.train()
        if self.recipe.averages:
            self.optimizer.train()
        return measures

    @torch.no_grad()
    def refresh(self, model: nn.Module) -> None:
        """Take batch norm's statistics anew, at the weights as they are, on 50 batches."""
        if _normalizes(model):
            for batch in islice(self.batches(self.segment), 50):
                self.task.loss(model, batch)

    def _penalty(self) -> Tensor:
        """What L2 adds to the loss that is trained on, and not to the one that is recorded."""
        squares = torch.stack([p.square().sum() for p in self.model.parameters()])
        return self.question.l2 / 2 * squares.sum()

    def _planned(self, after: str) -> bool:
        return self.scheduler is not None and self.recipe.planned == after

    def _line(self) -> Record:
        loss = self._mean_loss(self._logged)
        self._logged = len(self._losses)
        self.diverged = not loss < float("inf")
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        line = {
            "kind": "step",
            "step": self.steps,
            "loss": loss,
            "lr": self.recipe.rate(self.optimizer),
            "seconds": self.seconds,
            "grad_norm": float(get_total_norm(gradients)),
        }
        if hasattr(self.optimizer, "zenith_metrics"):
            numbers = self.optimizer.zenith_metrics()
            names = ("grad_norm", "mean", "zenith", "scale")
            line |= {name: float(numbers[name]) for name in names}
        return line

    def _mean_loss(self, first: int) -> float:
        return float(torch.stack(self._losses[first:]).double().mean())

    def _validation_loss(self) -> float:
        """The task's own, off the clock; the training loss of the epoch where it has none."""
        measure = getattr(self.task, "validation_loss", None)
        if not measure:
            return self._mean_loss(-round(self._epoch))
        loss = float(measure(self.model.eval()))
        self.model.train()
        return loss

    def _moved(self, batch: Any) -> Any:
        return _mapped(lambda part: part.to(self.device, non_blocking=True), batch)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return _clock(self.device)()


def _clock(device: torch.device) -> Callable[[], float]:
    """Where one thread computes, that of its processor, which what else is running leaves alone."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1 and parallel.alone()
    return time.process_time if alone else time.perf_counter


def _normalizes(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _mean_of(model: nn.Module) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998))  # type: ignore[no-untyped-call]


_OWN = ("steps", "segment", "seconds", "diverged", "train_losses")


def _warming(optimizer: Any, question: Question, steps: int) -> LinearLR | None:
    """What lets the user's own rate rise; a plan or ZENITH goes on to scale it."""
    if not question.warm_up:
        return None
    if "lr" not in optimizer.param_groups[0]:
        said = f"of an optimizer with a rate for a scheduler to set, got {question.optimizer}"
        raise UserError(f"`--warm-up` must be {said}")
    if question.warm_up > steps:
        raise UserError(f"`--warm-up` must be at most {steps}, all steps, got {question.warm_up}")
    return LinearLR(optimizer, 1e-3, total_iters=question.warm_up)


def _mapped(change: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """A batch with each of its tensors changed."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {name: _mapped(change, part) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(_mapped(change, part) for part in batch)
    return batch


def _divided(take: Callable[[Any], Any], batch: Any) -> Any:
    """A part of a batch: of each of its tensors, or of the list of its examples."""
    if isinstance(batch, tuple):
        return tuple(_divided(take, part) for part in batch)
    return take(batch)


def _half(part: Any, half: int) -> Any:
    middle = (len(part) + 1) // 2
    return part[middle:] if half else part[:middle]


def _made(device: torch.device) -> Record:
    """With what a run was made: the versions and the machine."""
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "zenith-optim": own_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": named,
        "threads": torch.get_num_threads(),
        "clock": _clock(device).__name__,
        "cores": cores(),
        **_versions(),
    }


def _versions() -> dict[str, str]:
    """Of the packages of rivals and data sets, as far as a run has imported them."""
    needed = [*(own.needs for own in OPTIMIZERS.values()), *map(tasks.needs, tasks.NAMES)]
    loaded = sorted({*chain.from_iterable(needed)} & sys.modules.keys())
    return {name: metadata.version(name) for name in map(_distribution, loaded)}


@cache
def _distribution(module: str) -> str:
    """The name of the package that has brought a module."""
    return metadata.packages_distributions()[module][0]


def checked_device(name: str) -> str:
    """Return the name of a device that is there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("`--device` must be cpu: torch finds no GPU here, got cuda")
    return name
