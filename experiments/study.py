"""The command `study`: all runs of a table or figure in processes side by side, and its report."""

from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from experiments.errors import UserError, explained
from experiments.optimizers import recipe
from experiments.pool import Cell, Place, run_all
from experiments.records import paths
from experiments.report.study import study_report
from experiments.run import checked_device
from experiments.studies import STUDIES, cells
from experiments.terminal import interruptible, say

__all__ = ["report", "reports", "run", "wanted"]

DONE, FAILED, INTERRUPTED = 0, 2, 130


def run(options: Namespace) -> int:
    """Make the runs that are not there yet, and report; return the exit code, 130 after Ctrl-C."""
    asked = cells(_checked(options.name, "table1"), options.scale, options.seeds)
    if not asked:
        raise UserError(f"`--scale` must be one that {options.name} has, got {options.scale}")
    if options.tasks:
        asked = _of(asked, options.tasks.split(","))
    _import_what_they_need(asked)
    device = checked_device(options.device)
    with explained(f"`--out` must be a folder to write to, got {options.out}"):
        options.out.mkdir(parents=True, exist_ok=True)
    place = Place(options.out, options.data, device, options.jobs, options.weights)
    with interruptible() as stopped:
        failures = run_all(asked, place, stopped)
    for line in failures:
        say(line)
    if stopped():
        say(f"interrupted; what was finished is kept in {options.out}, the same command goes on")
        return INTERRUPTED
    report(options.name, options.scale, options.out, options.seeds)
    return FAILED if failures else DONE


def reports(scale: str, folder: Path, seeds: int | None = None) -> None:
    """Write the report of every study that has a run in `folder`."""
    there = {path.parent for path in paths(folder)}
    for name in STUDIES:
        if any(folder / c.question.path(c.task).parent in there for c in cells(name, scale, 1)):
            report(name, scale, folder, seeds)


def report(name: str, scale: str, folder: Path, seeds: int | None = None) -> None:
    """Write the report of a study into `folder/reports/NAME`, from the records in `folder`."""
    study, rows = STUDIES[_checked(name)], wanted(name, scale, seeds)
    out = folder / "reports" / name
    study_report(
        f"{study.title} ({study.paper or 'beyond the paper'})",
        rows,
        folder,
        out,
        study.shown,
        best_rate=study.best_rate,
        apart=study.apart,
    )
    print(f"the report is in {out}")


def wanted(name: str, scale: str, seeds: int | None = None) -> dict[str, Counter[str]]:
    """Return how many runs a study has, by task and name."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for cell in cells(name, scale, seeds):
        rows[cell.task][cell.question.name] += 1
    return rows


def _of(asked: Sequence[Cell], names: Sequence[str]) -> list[Cell]:
    known = list(dict.fromkeys(cell.task for cell in asked))
    for name in names:
        if name not in known:
            raise UserError(f"`--tasks` must be of {', '.join(known)}, got {name!r}")
    return [cell for cell in asked if cell.task in names]


def _import_what_they_need(asked: Sequence[Cell]) -> None:
    """Fail now, and not in the middle of a study, where a package is missing."""
    recipes = (recipe(cell.question.optimizer, cell.question.options) for cell in asked)
    modules = {module for own in recipes for module in own.needs}
    modules |= {"curvlinops" for cell in asked if "sharpness" in cell.question.probes}
    for module in sorted(modules):
        import_module(module)


def _checked(name: str, *others: str) -> str:
    if name not in STUDIES:
        known = ", ".join([*others, *STUDIES])
        raise UserError(f"`study` must be one of {known}, got {name!r}")
    return name
