"""The command `check`: a sample of committed runs made anew, and whether they come out the same."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from experiments import tasks
from experiments.errors import UserError
from experiments.machine import lacking
from experiments.markdown import grid
from experiments.optimizers import OPTIMIZERS
from experiments.pool import Cell, Place, run_all
from experiments.question import Question
from experiments.records import Record, Records, paths, read
from experiments.report.found import sound
from experiments.report.measures import headline, main_measure
from experiments.terminal import interruptible, say

__all__ = ["run"]

AGREED, DIFFERENT, FAILED, INTERRUPTED = 0, 1, 2, 130
_SAME, _NEAR, _FAR = "the same records", "within the spread of the seeds", "DIFFERENT"


def run(options: Namespace) -> int:
    """Make a sample of the runs in a folder anew, print how they compare; return the exit code.

    What takes a package that is not installed is left out, and that is said. On the same machine
    with the same versions the records are the same, times aside. Elsewhere the headline is to be no
    farther from the one on record than those of its seeds are from each other.

    Returns:
        0 where all of them agree, 1 where one does not, 2 where one could not be made, 130 after
        Ctrl-C.

    Raises:
        UserError: if there is no finished run, or none that can be made here.
    """
    found = sound(paths(options.folder), ended=True)
    if not found:
        raise UserError(f"{options.folder}: holds no finished run")
    there = _makeable(found)
    if not there:
        raise UserError(f"{options.folder}: holds no run that can be made with what is installed")
    kept = Random(options.seed).sample(there, min(options.sample, len(there)))
    cells = [_cell(found[path].header) for path in kept]
    with TemporaryDirectory() as folder, interruptible() as stopped:
        place = Place(Path(folder), options.data, jobs=options.jobs, weights=options.weights)
        failures = run_all(cells, place, stopped)
        for line in failures:
            say(line)
        if stopped():
            return INTERRUPTED
        if failures:
            return FAILED
        again = [read(place.folder / cell.question.path(cell.task)) for cell in cells]
    rows = [_row(path, found, new) for path, new in zip(kept, again, strict=True)]
    print(grid(["run", "headline, there", "here", ""], rows))
    return DIFFERENT if any(_FAR in row for row in rows) else AGREED


def _makeable(found: Mapping[Path, Records]) -> list[Path]:
    """The runs that take nothing which is not installed; of the others it is said what that is."""
    missing = {path: _lacking(records.header) for path, records in found.items()}
    if without := sorted({module for modules in missing.values() for module in modules}):
        count = sum(map(bool, missing.values()))
        say(f"{count} of {len(found)} runs left out: not installed: {', '.join(without)}")
    return sorted(path for path, modules in missing.items() if not modules)


def _lacking(header: Record) -> list[str]:
    return lacking(tasks.needs(header["task"]) + OPTIMIZERS[header["optimizer"]].needs)


def _cell(header: Record) -> Cell:
    question = replace(Question.of(header), probes=())  # which change nothing
    return Cell(header["task"], question, round(header["steps"] * header["segments"]))


def _row(path: Path, found: Mapping[Path, Records], new: Records) -> list[str]:
    old, name = found[path], main_measure(found[path])
    seeds = [headline(each, name) for at, each in found.items() if at.parent == path.parent]
    before, now = headline(old, name), headline(new, name)
    place = path.relative_to(path.parents[2]).as_posix()
    said = _SAME if _shared(old, new) == _shared(new, old) else _compared(before, now, seeds)
    return [place, *("-" if value is None else f"{value:.2f}" for value in (before, now)), said]


def _shared(run: Records, other: Records) -> list[Record]:
    """The lines of a run, without their times and what the other has not measured."""
    lines, others = [*run.steps, *run.evals], [*other.steps, *other.evals]
    if len(lines) != len(others):
        return lines
    return [
        {name: line[name] for name in line if name in beside and name != "seconds"}
        for line, beside in zip(lines, others, strict=True)
    ]


def _compared(before: float | None, now: float | None, seeds: Sequence[float | None]) -> str:
    known = [value for value in seeds if value is not None]
    if before is None or now is None or len(known) < 2:
        return _FAR
    return _NEAR if abs(now - before) <= max(known) - min(known) else _FAR
