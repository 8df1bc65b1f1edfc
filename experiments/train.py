"""The one training loop: any number of runs in step with one another, until each is done."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from experiments.errors import UserError, explained
from experiments.parallel import agreed, leads
from experiments.records import Journal, Record, Silent, read
from experiments.run import Run
from experiments.tasks import Task

__all__ = ["train"]


def train(
    task: Task,
    runs: Sequence[Run],
    folder: Path,
    resume: bool = False,
    stopped: Callable[[], bool] = lambda: False,
    jobs: int = 1,
) -> Iterator[tuple[Run, Record]]:
    """Train the runs of one seed and write their records into `folder`, each into its own file.

    A step of one run is followed by the same step of the next, and who goes first rotates, so that
    whatever else the machine does falls on all of them alike. At the end of each segment a run is
    evaluated and leaves a checkpoint; a run that was cut is taken up there with `resume`, and its
    records come to be what they would have been. A run that is finished is left as it is. Of the
    processes of torchrun, the first one writes.

    Args:
        task: what they learn.
        runs: of one seed, and so with the same batches.
        folder: where `TASK/OPTIMIZER/seed-N.jsonl` go.
        resume: go on with what is there; otherwise it must not be.
        stopped: asked after each step; once it is true, the training ends.
        jobs: how many processes train side by side, for the header.

    Yields:
        Each record as it is written, with its run.

    Raises:
        UserError: if a file is there and `resume` is not given, is of another question, or cannot
            be written.
    """
    if len({run.question.seed for run in runs}) != 1:
        raise ValueError("`runs` must be of one seed")
    with _threads(task.threads), ExitStack() as stack:
        together = [run.question.name for run in runs]
        lanes = [_Lane(run, folder, {"together": together, "jobs": jobs}) for run in runs]
        for lane in lanes:
            stack.callback(lane.journal.close)
        lanes = [lane for lane in lanes if not agreed(partial(lane.finished, resume))]
        for lane in lanes:
            lane.begin(resume)
        while active := [lane for lane in lanes if not lane.run.done]:
            first = min(lane.run.segment for lane in active)
            yield from _segment(task, [a for a in active if a.run.segment == first], stopped)
            if stopped():
                return
        for lane in lanes:  # done already, but killed before it could say so
            if agreed(lane.checkpoint.exists):
                yield lane.run, lane.end()


def _segment(
    task: Task, lanes: Sequence["_Lane"], stopped: Callable[[], bool]
) -> Iterator[tuple[Run, Record]]:
    run = lanes[0].run
    for i, batch in enumerate(task.batches(run.question.seed, run.segment)):
        for turn in range(len(lanes)):
            lane = lanes[(i + turn) % len(lanes)]
            if not lane.run.diverged and (record := lane.run.step(batch)) is not None:
                yield lane.run, lane.journal.write(record)
        if stopped():
            return
    for lane in lanes:
        if not lane.run.diverged:
            yield lane.run, lane.journal.write(lane.run.finish_segment())
            lane.save()
        if lane.run.done:
            yield lane.run, lane.end()


class _Lane:
    """A run with its files."""

    def __init__(self, run: Run, folder: Path, made: Record) -> None:
        self.run = run
        path = folder / run.question.path(run.task.name)
        header = run.header()
        header["made"] |= made
        self.journal = (Journal if leads() else Silent)(path, header)
        self.checkpoint = self.journal.checkpoint

    def finished(self, resume: bool) -> bool:
        """Whether there is nothing left to do; if there is, no other process has the file."""
        path = self.journal.found()
        if path.exists() and not resume:
            raise UserError(f"{path} is there: --resume goes on with it, or choose another --out")
        gzipped = path != self.journal.path
        if not gzipped:
            self.journal.open()
        if self._ended(path):
            self.journal.close()
            return True
        if gzipped:
            self.journal.open()  # which says that it cannot go on with that
        return False

    def _ended(self, path: Path) -> bool:
        """Whether there is a whole run; what is there must have the probes that are asked for."""
        if not (header := self.journal.begun()):
            return False
        kept, asked = set(header.get("probes", ())), set(self.run.question.probes)
        ended = not self.checkpoint.exists() and read(path).outcome is not None
        if ended and not asked <= kept:
            raise UserError(f"{path}: finished without all probes of {', '.join(sorted(asked))}")
        if not ended and asked != kept:
            raise UserError(f"{path}: begun with other probes: {', '.join(sorted(kept)) or 'none'}")
        return ended

    def begin(self, resume: bool) -> None:
        """Begin, or go on where the checkpoint left it."""
        state = agreed(partial(self._left, resume))
        if state:
            self.run.load_state_dict(state["run"])
        self.journal.begin(state["offset"] if state else None)

    def _left(self, resume: bool) -> dict[str, Any] | None:
        """What the checkpoint holds; without its records it is of no use, and goes."""
        if resume and self.checkpoint.exists():
            state = self._saved()
            if state["offset"] <= self.journal.size():
                return state
        self.checkpoint.unlink(missing_ok=True)
        return None

    def _saved(self) -> dict[str, Any]:
        with explained(f"{self.checkpoint}: cannot be read"):
            try:
                state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
            except (EOFError, RuntimeError, UnpicklingError):
                raise UserError(
                    f"{self.checkpoint}: not a sound checkpoint; remove it to begin anew"
                ) from None
        return state

    def save(self) -> None:
        """Write a checkpoint, whole or not at all."""
        if not leads():
            return
        state: dict[str, Any] = {"offset": self.journal.mark(), "run": self.run.state_dict()}
        whole = self.checkpoint.with_suffix(".partial")
        with explained(f"{self.checkpoint}: cannot be written"):
            with whole.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(whole, self.checkpoint)

    def end(self) -> Record:
        """Write the last line; from then on no checkpoint is needed."""
        record = self.journal.write(self.run.end())
        self.journal.mark()
        if leads():
            self.checkpoint.unlink(missing_ok=True)
        return record


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch compute with so many threads; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
