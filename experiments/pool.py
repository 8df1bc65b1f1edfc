"""Many runs in processes side by side: what is finished is kept, and what was cut is resumed."""

import multiprocessing
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments import tasks
from experiments.errors import UserError
from experiments.question import Question
from experiments.run import Run
from experiments.terminal import progress
from experiments.train import train

__all__ = ["Cell", "Place", "run_all"]


class Cell(NamedTuple):
    """One run of many: what is to be learnt, and by what."""

    task: str
    question: Question
    steps: int  # about, for the progress


class Place(NamedTuple):
    """Where and how runs are made: their records, the files of their tasks, the device."""

    folder: Path
    data: Path | None = None
    device: str = "cpu"
    jobs: int = 1  # processes side by side
    weights: Path | None = None  # of the backbone of those tasks that begin with some


def run_all(
    cells: Sequence[Cell], place: Place, stopped: Callable[[], bool] = lambda: False
) -> list[str]:
    """Make the runs, `place.jobs` at a time, each by a process of one thread.

    Args:
        cells: the runs; those that are finished are left as they are.
        place: where and how.
        stopped: asked twice a second; once it is true, all end after the step they are at.

    Returns:
        A line for each reason why some of the runs could not be made.

    Raises:
        UserError: if one of the processes was killed.
    """
    context = multiprocessing.get_context("spawn")
    halt, done = context.Event(), context.Value("q", 0)
    total = sum(cell.steps for cell in cells)
    with (
        progress(total) as show,
        ProcessPoolExecutor(place.jobs, context, _begin, (halt, done)) as pool,
    ):
        made = {pool.submit(_make, cell, place): cell for cell in cells}
        pending: set[Future[None]] = set(made)
        while pending:
            _, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            show(done.value, f"{len(cells) - len(pending)} of {len(cells)} runs", not pending)
            if stopped():
                halt.set()
                pool.shutdown(cancel_futures=True)
                break
    failed: dict[str, list[Cell]] = defaultdict(list)
    for future, cell in made.items():
        if reason := _reason(future):
            failed[reason].append(cell)
    return [f"{_named(own)}: {reason}" for reason, own in failed.items()]


def _reason(future: Future[None]) -> str | None:
    error = None if future.cancelled() else future.exception()
    if isinstance(error, BrokenProcessPool):
        raise UserError("a process was killed; what is finished is kept, the same command goes on")
    if error is None:
        return None
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _named(cells: Sequence[Cell]) -> str:
    first = str(cells[0].question.path(cells[0].task).with_suffix(""))
    return first if len(cells) == 1 else f"{first} and {len(cells) - 1} more runs"


@cache
def _loaded(name: str, *asked: Any) -> tasks.Task:
    return tasks.load(name, *asked)


_shared: dict[str, Any] = {}  # of a process of the pool, with the one that began it


def _begin(halt: Any, done: Any) -> None:
    """Prepare a process: Ctrl-C is the parent's matter, and none outlives the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _shared.update(halt=halt, done=done)
    threading.Thread(target=_follow_the_parent, daemon=True).start()


def _follow_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        connection.wait([parent.sentinel])
        os._exit(1)


def _make(cell: Cell, place: Place) -> None:
    """Make one run, or what is left of it, and count its steps."""
    asked = cell.question
    weights = place.weights if cell.task in tasks.DETECTION else None
    task = _loaded(cell.task, place.data, asked.epochs, asked.batch, weights)
    run, halted, left = Run(task, asked, place.device), _shared["halt"].is_set, cell.steps
    for _, record in train(task, [run], place.folder, True, halted, place.jobs):
        if record["kind"] == "eval":
            left -= _count(min(left, cell.steps // task.segments))
    if not halted():
        _count(left)


def _count(steps: int) -> int:
    with _shared["done"].get_lock():
        _shared["done"].value += steps
    return steps
