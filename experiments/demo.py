"""ZENITH beside SGD and SGD + cosine on images: the harness with three optimizers."""

import math
import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from experiments import tasks
from experiments.errors import UserError, explained
from experiments.optimizers import recipe
from experiments.question import Question
from experiments.records import paths, read
from experiments.report import report
from experiments.run import Run
from experiments.tasks import Task
from experiments.terminal import interruptible, progress, say
from experiments.train import train
from zenith.cli import write

__all__ = ["run"]

LINES_PER_RUN = 400  # `step` records of a run, unless `--log-every` says otherwise
MARK = ".demo"  # the file that tells which runs in a folder are the demo's
DONE, INTERRUPTED = 0, 130


def run(options: Namespace) -> int:
    """Train as the options say, and report; return the exit code, 130 after Ctrl-C.

    The runs are written into a folder of their own, which takes the place of an earlier demo's
    once the training has ended; a demo that is interrupted leaves an earlier one as it is.
    """
    task = tasks.load(options.data, options.data_dir, options.epochs, options.batch_size)
    questions = _questions(options, tasks.length(task))
    _claim(options.out, task.name)
    made = {str(question.path(task.name).parent) for question in questions}
    folder = _folder(options.out, task.name, options.resume)
    if folder == options.out:
        _mark(options.out, made)
    with interruptible() as stopped:
        _train(task, questions, options, folder, stopped)
    if not any(read(path).evals or read(path).outcome for path in paths(folder / task.name)):
        shutil.rmtree(folder, ignore_errors=True)
        say("interrupted before the first epoch was finished; kept nothing")
        return INTERRUPTED
    if folder != options.out:
        if stopped() and (options.out / task.name).exists():
            say(f"interrupted; the earlier demo is still in {options.out}, --resume goes on")
            return INTERRUPTED
        _mark(options.out, made)
        _replace(folder, options.out, task.name)
    report(options.out / task.name)
    if stopped():
        say(f"interrupted; what was finished is kept in {options.out}, --resume goes on with it")
    return INTERRUPTED if stopped() else DONE


def _questions(options: Namespace, steps: int) -> list[Question]:
    """What each optimizer is asked in a run of so many steps, with seed 0."""
    names = [name.strip() for name in options.optimizers.split(",")]
    if len(set(names)) < len(names):
        raise UserError(f"`--optimizers` must name each one once, got {','.join(names)}")
    log_every = options.log_every or math.ceil(steps / LINES_PER_RUN)
    chosen = {name: _chosen(name, options) for name in names}
    window = options.window or recipe("zenith", {}).options["window"]
    if window > steps and "zenith" in names:
        say(
            f"warning: `--window` {window} is longer than the run of {steps} steps, so ZENITH will "
            "be SGD at a constant rate"
        )
    return [Question(name, options=chosen[name], log_every=log_every) for name in names]


def _chosen(name: str, options: Namespace) -> dict[str, float]:
    """The options that an optimizer was given; the window is of those alone that have one."""
    names = ["lr", "momentum", *(["window"] if "window" in recipe(name, {}).options else [])]
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    return recipe(name, given).chosen(given)


def _claim(out: Path, task: str) -> None:
    """Make sure that the folder is there, and that what is to be replaced is a demo's."""
    with explained(f"`--out` must be a folder to write to, got {out}"):
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not (out / MARK).exists():
            raise UserError(f"`--out` must be empty or hold an earlier demo, got {out}")
        there = {str(folder.relative_to(out)) for folder in (out / task).glob("*/")}
        _mark(out, set())
        if foreign := sorted(there - _marked(out)):
            raise UserError(f"{out / foreign[0]}: no demo made this, so it is not replaced")


def _mark(out: Path, made: set[str]) -> None:
    """Note down which folders of runs are the demo's."""
    write(out / MARK, "".join(f"{name}\n" for name in sorted(_marked(out) | made)).encode())


def _marked(out: Path) -> set[str]:
    return set((out / MARK).read_text().splitlines()) if (out / MARK).exists() else set()


def _folder(out: Path, task: str, resume: bool) -> Path:
    """Return the folder to train in: anew, or what was killed or interrupted."""
    partial = out / f"{task}.partial"
    if resume:
        return out if (out / task).exists() and not partial.exists() else partial
    shutil.rmtree(partial, ignore_errors=True)
    return partial


def _replace(partial: Path, out: Path, task: str) -> None:
    """Let the new runs take the place of the earlier ones."""
    with explained(f"{out / task}: cannot be written"):
        shutil.rmtree(out / task, ignore_errors=True)
        os.replace(partial / task, out / task)
        partial.rmdir()


def _train(
    task: Task,
    questions: Sequence[Question],
    options: Namespace,
    folder: Path,
    stopped: Callable[[], bool],
) -> None:
    steps = tasks.length(task)
    with progress(options.seeds * steps) as show:
        for seed in range(options.seeds):
            text = f"seed {seed + 1} of {options.seeds}"
            runs = [Run(task, replace(question, seed=seed)) for question in questions]
            for _, record in train(task, runs, folder, options.resume, stopped):
                if record["kind"] == "step":
                    loss = math.nan if record["loss"] is None else record["loss"]
                    text = f"seed {seed + 1} of {options.seeds}, loss {loss:.3g}"
                    show(seed * steps + record["step"], text, False)
            if stopped():
                return
            show((seed + 1) * steps, text, True)
