"""What there is to report on: the records of many files, whatever the state of one of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.errors import UserError
from experiments.records import Records, paths, read
from experiments.report.summary import Runs, grouped, own_name, place
from experiments.terminal import say

__all__ = ["Tasks", "complete", "gathered", "sound"]

Tasks = Mapping[str, Runs]  # by task; a name without a run is one that is missing


def sound(files: Iterable[Path], ended: bool = False) -> dict[Path, Records]:
    """Return the records in those files that can be read.

    What is of no use to a report is named on stderr, a line each: one that cannot be read, and one
    that has no evaluation yet or, if so asked, has not ended.

    Args:
        files: of runs.
        ended: return no run that is under way.
    """
    found = {}
    for path in files:
        try:
            run = read(path)
        except UserError as error:
            say(f"left out: {error}")
            continue
        if run.outcome is None and (ended or not run.evals):
            say(f"left out: {path}: {'not finished' if run.evals else 'no evaluation yet'}")
        if run.outcome or not ended:
            found[path] = run
    return found


def gathered(folder: Path, rows: Mapping[str, Mapping[str, int]]) -> Tasks:
    """Return the runs of a study that have ended, from `folder/TASK/NAME/seed-N.jsonl[.gz]`.

    Args:
        folder: of the records.
        rows: by task, the names of the runs that there should be, and how many of each, with seeds
            0, 1, ...; what is there beyond these is left out.

    Raises:
        UserError: naming the file or folder, if there is no run at all, a run is there twice or in
            the folder of another, or the runs of a task are not of one question.
    """
    tasks = {task: _gathered(folder / task, seeds) for task, seeds in rows.items()}
    if not any(own for runs in tasks.values() for own in runs.values()):
        raise UserError(f"{folder}: holds no finished run of {', '.join(rows)}")
    return tasks


def complete(tasks: Tasks, rows: Mapping[str, Mapping[str, int]]) -> bool:
    """Return whether every run is there that `gathered` was asked for with these `rows`."""
    return all(
        len(tasks[task][name]) == seeds for task, own in rows.items() for name, seeds in own.items()
    )


def _gathered(folder: Path, seeds: Mapping[str, int]) -> Runs:
    there = [folder / name for name in sorted(seeds) if any((folder / name).glob("seed-*.jsonl*"))]
    found = sound((path for place in there for path in paths(place)), ended=True)
    for path, run in found.items():
        if own_name(run.header) != path.parent.name:
            raise UserError(f"{path}: is a run of {own_name(run.header)}, which its folder is not")
        if path.name.split(".")[0] != f"seed-{run.header['seed']}":
            raise UserError(f"{path}: is a run of seed {run.header['seed']}, by its first line")
    asked = {p: run for p, run in found.items() if run.header["seed"] < seeds[p.parent.name]}
    runs = grouped(asked)
    return {name: runs.get(name, {}) for name in sorted(seeds, key=place)}
