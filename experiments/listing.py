"""What there is to run: the tasks, the optimizers, and the tables of the paper."""

from collections.abc import Mapping
from importlib.util import find_spec

from experiments import tasks
from experiments.optimizers import OPTIMIZERS, Recipe

__all__ = ["listing"]

PAPER = {
    "Table 1": "python -m experiments cost overhead",
    "other tables and figures": "not yet",
}


def listing(packages: Mapping[str, str]) -> str:
    """Return it as text.

    Args:
        packages: what to install for a module, where its name is another.
    """
    optimizers = {
        name: f"{recipe.label:25} {_options(recipe)}{_lacking(recipe, packages)}"
        for name, recipe in OPTIMIZERS.items()
    }
    commands = {
        name: f"python -m experiments run {name} --optimizer NAME --out DIR" for name in tasks.NAMES
    }
    parts = {"tasks": commands, "optimizers": optimizers, "of the paper": PAPER}
    return "\n\n".join(_part(title, rows) for title, rows in parts.items())


def _part(title: str, rows: Mapping[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join([title, *(f"  {name:{width}}  {row}".rstrip() for name, row in rows.items())])


def _options(recipe: Recipe) -> str:
    return " ".join(f"--{name} {value:g}" for name, value in recipe.options.items())


def _lacking(recipe: Recipe, packages: Mapping[str, str]) -> str:
    if recipe.needs is None or find_spec(recipe.needs):
        return ""
    return f" (pip install {packages.get(recipe.needs, recipe.needs)})"
