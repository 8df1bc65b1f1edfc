"""One run: one model, one optimizer, one seed."""

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from experiments.errors import UserError
from experiments.optimizers import Recipe, recipe
from experiments.records import Record
from experiments.tasks import Task

__all__ = ["Question", "Run"]


@dataclass(frozen=True)
class Question:
    """What a run is asked, besides its task.

    Attributes:
        optimizer: a name of `experiments.optimizers`.
        seed: of the initial weights, the batches and the noise of training (dropout).
        options: of the optimizer, as far as they are not its defaults.
        l2: the weight of half the squared norm of the parameters, which is added to the loss.
        hours: of training, evaluation left out, after which no further segment begins.
        log_every: steps from one `step` record to the next.
    """

    optimizer: str
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    l2: float = 0.0
    hours: float | None = None
    log_every: int = 1

    @property
    def name(self) -> str:
        """The optimizer with what is not as by default: `OPTIMIZER[,lr=..][,l2=..]`."""
        chosen = {**self.options, **({"l2": self.l2} if self.l2 else {})}
        return ",".join([self.optimizer, *(f"{key}={value:g}" for key, value in chosen.items())])

    def path(self, task: str) -> Path:
        """Return where the records lie: `TASK/NAME/seed-N.jsonl`."""
        return Path(task, self.name, f"seed-{self.seed}.jsonl")


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
        seconds: of training, evaluation left out.
    """

    def __init__(
        self, task: Task, question: Question, device: str = "cpu", beside: Recipe | None = None
    ) -> None:
        self.task, self.question, self.device = task, question, torch.device(device)
        self.recipe = beside or recipe(question.optimizer, question.options)
        torch.manual_seed(question.seed)
        self.model = task.network().to(self.device)
        self.optimizer, self.scheduler = self.recipe.make(
            self.model.parameters(), task.steps * task.segments, question.options
        )
        self.steps = self.segment = 0
        self.seconds = 0.0
        self.diverged = False
        self._batch: Any = None
        self._losses: list[Tensor] = []  # of the segment
        self._logged = 0  # of those

    @property
    def done(self) -> bool:
        """Whether the budget is spent, or the loss no longer a number."""
        hours = self.question.hours
        spent = hours is not None and self.seconds >= 3600 * hours
        return self.segment >= self.task.segments or spent or self.diverged

    def step(self, batch: Any) -> Record | None:
        """Make one training step, on the clock; return its record where one is due."""
        self._batch = _moved(batch, self.device)
        start = self._now()
        if self._planned("step") and self.steps:  # so that until here the rate was that in force
            self.scheduler.step()
        self._losses.append(self.optimizer.step(self.closure).detach())
        self.steps += 1
        self.seconds += self._now() - start
        at_the_end = self.steps % self.task.steps == 0
        return self._line() if at_the_end or self.steps % self.question.log_every == 0 else None

    def closure(self, backward: bool = True) -> Tensor:
        """Return the loss of the batch, and, if wanted, leave its gradient in the parameters.

        Every pass over one batch draws the same noise (dropout): it depends on the step alone.
        """
        torch.manual_seed(self.question.seed * 1_000_003 + self.steps)
        with torch.set_grad_enabled(backward):
            loss = self.task.loss(self.model, self._batch)
            if self.question.l2:
                squares = torch.stack([p.square().sum() for p in self.model.parameters()])
                loss = loss + self.question.l2 / 2 * squares.sum()
            if backward:
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own method has no types
        return loss

    def finish_segment(self) -> Record:
        """Evaluate, off the clock; return the record."""
        self.segment += 1
        train_loss = self._mean_loss(0)
        measures = self._evaluated()
        self._losses, self._logged = [], 0
        if self._planned("segment"):
            self.scheduler.step(measures.get("validation_loss", train_loss))
        return {
            "kind": "eval",
            "segment": self.segment,
            "step": self.steps,
            "epoch": self.segment * self.task.epochs,
            "train_loss": train_loss,
            **measures,
            "seconds": self.seconds,
        }

    def end(self) -> Record:
        """Return the last record."""
        outcome = "diverged" if self.diverged else "finished"
        return {"kind": "end", "outcome": outcome, "step": self.steps}

    def header(self) -> Record:
        """Return the first record: the whole question, and with what it was answered."""
        return {
            "task": self.task.name,
            **asdict(self.question),
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
            "own": {name: getattr(self, name) for name in _OWN},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        for name in _OWN:
            setattr(self, name, state["own"][name])

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

    def _evaluated(self) -> dict[str, float]:
        """The task's measures, at the weights that the optimizer is tested at."""
        if self.recipe.averages:
            self.optimizer.eval()
        self.model.eval()
        measures = self.task.evaluate(self.model)
        self.model.train()
        if self.recipe.averages:
            self.optimizer.train()
        return measures

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


_OWN = ("steps", "segment", "seconds", "diverged")


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple | list):
        return type(batch)(_moved(part, device) for part in batch)
    return batch


def _made(device: torch.device) -> Record:
    """With what a run was made: the versions and the machine."""
    try:
        own = version("zenith-optim")
    except PackageNotFoundError:
        own = "unknown"
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "zenith-optim": own,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": named,
        "threads": torch.get_num_threads(),
    }


def checked_device(name: str) -> str:
    """Return the name of a device that is there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("`--device` must be cpu: torch finds no GPU here, got cuda")
    return name
