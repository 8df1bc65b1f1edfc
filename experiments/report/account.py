"""What a study consists of: every measure, the settings, what is missing, and the machines."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isinf
from statistics import median

from experiments.markdown import grid
from experiments.optimizers import OPTIMIZERS
from experiments.question import parsed
from experiments.records import Records
from experiments.report.cells import called, duration, headlines, noted, spread, typical, unit
from experiments.report.found import Tasks
from experiments.report.measures import Reach, best, chosen, final_loss, reach
from experiments.report.sections import Column, Section
from experiments.report.summary import place

__all__ = ["compute", "details", "missing", "settings"]

LOSSES = (0.1, 0.03)  # of training, to which the way is measured
_NOTE = """
Mean ± standard deviation over the seeds; of a way, the median of steps and of the time of training,
which is left out where the machine was not that of ZENITH's runs, or is not known.
The target in the last of them is the lowest headline of SGD at a constant rate over its seeds.
"""


def details(section: Section) -> str:
    """Return all measures of every optimizer, a table for each task."""
    return noted("\n\n".join(_details(column) for column in section.columns), _NOTE)


def settings(section: Section) -> str:
    """Return with what each optimizer was run: all its options, and what else is done for it."""
    rows = [[called(row), *_setting(*parsed(row))] for row in section.rows]
    return grid(["optimizer", "made by", "options", "rate planned", "tested at"], rows)


def missing(tasks: Tasks, rows: Mapping[str, Mapping[str, int]]) -> str:
    """Return a line for each name that has fewer runs than `rows` has, as `gathered` takes them."""
    lines = [
        f"- `{task}/{name}`: {len(own)} of {rows[task][name]} seeds"
        for task, runs in tasks.items()
        for name, own in runs.items()
        if len(own) < rows[task][name]
    ]
    return "\n".join(lines) or "Nothing: every run is there and has ended."


def compute(tasks: Tasks) -> str:
    """Return how much was trained with what, a row for each machine with its versions."""
    spent: dict[str, list[float]] = defaultdict(list)
    for run in (run for runs in tasks.values() for own in runs.values() for run in own.values()):
        made = run.header.get("made", {})
        known = ", ".join(f"{name} {made[name]}" for name in made if name != "together")
        spent[known or "unknown"].append(_seconds(run))
    rows = [[by, f"{len(own):,}", f"{sum(own) / 3600:.2f}"] for by, own in sorted(spent.items())]
    return grid(["made with", "runs", "hours of training"], rows)


def _details(column: Column) -> str:
    ways = [("train_loss", loss, f"loss {loss}") for loss in LOSSES]
    if column.target is not None:
        ways.append((column.measure, column.target, f"{column.target:.2f} {unit(column)}"))
    head = [column.title, "headline", "where validation is best", "best, chosen on the test set"]
    head += ["final training loss", *(f"to {name}" for *_, name in ways), "whole run"]
    rows = [
        [called(row), *_measured(column, row, ways)]
        if column.runs[row]
        else [called(row), "missing", *["-"] * (len(head) - 2)]
        for row in sorted(column.runs, key=place)
    ]
    return grid(head, rows)


def _measured(column: Column, row: str, ways: Sequence[tuple[str, float, str]]) -> list[str]:
    runs = [column.runs[row][seed] for seed in sorted(column.runs[row])]
    timed = column.timed(row)
    return [
        spread([*headlines(column, row).values()]),
        *(spread([each(run, column.measure) for run in runs]) for each in (chosen, best)),
        spread([final_loss(run) for run in runs], ".2g"),
        *(_way([reach(run, target, by) for run in runs], timed) for by, target, _ in ways),
        typical([_seconds(run) for run in runs]) if timed else "-",
    ]


def _way(reached: Sequence[Reach], timed: bool) -> str:
    """The median steps and, where it can be compared, time; the misses are the same of both."""
    steps = typical([each.steps for each in reached], "{:,.0f} steps".format)
    seconds = median(each.seconds for each in reached)
    return f"{steps}, {duration(seconds)}" if timed and not isinf(seconds) else steps


def _seconds(run: Records) -> float:
    """Of training, as far as the records go."""
    return max((float(line["seconds"]) for line in [*run.steps, *run.evals]), default=0.0)


def _setting(slug: str, options: Mapping[str, str]) -> list[str]:
    recipe = OPTIMIZERS[slug]
    made = getattr(recipe.build, "func", recipe.build)  # of a partial
    plans = f"each {recipe.planned}{', of the whole run' if recipe.horizon else ''}"
    averaged = recipe.averages or recipe.averager is not None
    return [
        made if isinstance(made, str) else f"{made.__module__}:{made.__qualname__}",
        ", ".join(f"{name} {value}" for name, value in {**recipe.options, **options}.items()),
        plans if recipe.scheduler else "-",
        "averaged weights" if averaged else "its own weights",
    ]
