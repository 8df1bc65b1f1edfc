"""What there is to run: the paper's tables and figures, the studies, tasks and optimizers."""

from collections.abc import Mapping
from pathlib import Path

from experiments import tasks
from experiments.machine import lacking
from experiments.optimizers import OPTIMIZERS, Recipe
from experiments.studies import STUDIES, cells, hours

__all__ = ["PAPER", "listing", "status"]

RESULTS = Path(__file__).parent / "results"
PAPER = {
    "Table 1": "study table1",
    "Table 2": "the tasks of paper scale",
    "Table 3": "study table3",
    "Table 4": "study table4",
    "Table 5": "study table5",
    "Figures 1, 2": "study table3",
    "Figures 3a, 3b": "study figure3a",
    "Figure 3c": "a drawing of an idea, nothing to measure",
    "Figures 3d, 3e, 3f": "study table3",
    "Figures 3g, 3h": "study figure3g",
    "Figure 4": "study table4",
    "Figure 5": "study table5",
    "Figure 6": "study figure6",
    "Theorem B.5": "tested: tests/core/test_core_theorem.py",
    "notebooks": "experiments/notebooks",
}


def listing(packages: Mapping[str, str]) -> str:
    """Return it as text.

    Args:
        packages: what to install for a module, where its name is another.
    """
    optimizers = {
        name: f"{recipe.label:32} {_options(recipe)}{_to_install(recipe, packages)}"
        for name, recipe in OPTIMIZERS.items()
    }
    commands = {
        name: f"run {name} --optimizer NAME --out DIR{_beside(name)}" for name in tasks.NAMES
    }
    parts = {
        "python -m experiments ... of the paper": PAPER,
        "python -m experiments study NAME": {name: _study(name) for name in STUDIES},
        "python -m experiments ... one run of a task": commands,
        "optimizers": optimizers,
    }
    return "\n\n".join(_part(title, rows) for title, rows in parts.items())


def status(name: str) -> str:
    """Return how many runs of a study, at desk scale, are in `results`."""
    places = [RESULTS / cell.question.path(cell.task) for cell in cells(name, "desk")]
    there = sum(place.with_suffix(".jsonl.gz").exists() for place in places)
    if there in (0, len(places)):
        return "measured" if there else "not measured"
    return f"{there} of {len(places)} runs measured"


def _part(title: str, rows: Mapping[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join([title, *(f"  {name:{width}}  {row}".rstrip() for name, row in rows.items())])


def _study(name: str) -> str:
    """What it shows, what it takes at desk scale, and whether its report is in `results`."""
    study, asked = STUDIES[name], cells(name, "desk")
    return (
        f"{study.title:52} {study.paper or 'beyond the paper':34} desk: {len(asked):4} runs, "
        f"{hours(asked):4.1f} core-hours of SGD; here {status(name)}"
    )


def _options(recipe: Recipe) -> str:
    return " ".join(f"--{name} {value:g}" for name, value in recipe.options.items())


def _to_install(recipe: Recipe, packages: Mapping[str, str]) -> str:
    missing = lacking(recipe.needs)
    return "".join(f" (pip install {packages.get(module, module)})" for module in missing)


def _beside(task: str) -> str:
    missing = lacking(tasks.needs(task))
    return f" (needs {', '.join(missing)}: see docs/experiments.md)" if missing else ""
