"""Many runs in processes side by side: what is finished is kept, and what was cut is resumed."""

import multiprocessing
import os
import signal
import threading
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


class Place(NamedTuple):
    """Where runs are made: their records, the files of their tasks, and the device."""

    folder: Path
    data: Path | None = None
    device: str = "cpu"


def run_all(
    cells: Sequence[Cell], place: Place, jobs: int, stopped: Callable[[], bool] = lambda: False
) -> list[str]:
    """Make the runs, `jobs` at a time, each by a process of one thread.

    Args:
        cells: the runs; those that are finished are left as they are.
        place: where.
        jobs: how many processes.
        stopped: asked twice a second; once it is true, all end after the step they are at.

    Returns:
        A line for each run that could not be made, with the reason.

    Raises:
        UserError: if one of the processes was killed.
    """
    context = multiprocessing.get_context("spawn")
    halt, done = context.Event(), context.Value("q", 0)
    total = sum(_steps(cell, place) for cell in cells)
    with (
        progress(total) as show,
        ProcessPoolExecutor(jobs, context, _begin, (halt, done)) as pool,
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
    return [line for future, cell in made.items() if (line := _failure(future, cell))]


def _failure(future: Future[None], cell: Cell) -> str | None:
    error = None if future.cancelled() else future.exception()
    if isinstance(error, BrokenProcessPool):
        raise UserError("a process was killed; what is finished is kept, the same command goes on")
    if isinstance(error, UserError | ModuleNotFoundError):
        return f"{cell.question.path(cell.task).with_suffix('')}: {error}"
    if error:
        raise error
    return None


@cache
def _loaded(name: str, data: Path | None, epochs: int | None, batch: int | None) -> tasks.Task:
    return tasks.load(name, data, epochs, batch)


def _task(cell: Cell, place: Place) -> tasks.Task:
    return _loaded(cell.task, place.data, cell.question.epochs, cell.question.batch)


def _steps(cell: Cell, place: Place) -> int:
    task = _task(cell, place)
    return task.steps * task.segments


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
    task = _task(cell, place)
    left = task.steps * task.segments
    run = Run(task, cell.question, place.device)
    for _, record in train(task, [run], place.folder, resume=True, stopped=_shared["halt"].is_set):
        if record["kind"] == "eval":
            left -= _count(task.steps)
    if not _shared["halt"].is_set():
        _count(left)


def _count(steps: int) -> int:
    with _shared["done"].get_lock():
        _shared["done"].value += steps
    return steps
