"""Rewrite the tables of README.md and the documentation: `python docs/make_tables.py`.

A table stands between two comments that name one of `TABLES`, and is made from what a measurement
wrote, or from what pins the versions. A test compares what stands there with that.
"""

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs/getting-started/installation.md"]
BLOCK = re.compile(r"(<!-- made by docs/make_tables.py: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
FRAMEWORKS = {
    "torch": "PyTorch",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "jax": "JAX",
    "optax": "optax",
}
RIVALS = ("ZENITH", "ALI-G", "schedule-free SGD", "DoG", "D-Adaptation", "Prodigy", "COCOB")
COSTS = {
    "its step, in steps of SGD": "step / SGD's step",
    "that step over SGD's, % of an iteration": "of that, in the step",
    "memory, in models": "memory, models",
}


def cost() -> str:
    """What a step costs with a few optimizers, cut out of the table that was measured."""
    head, _, *rows = map(cells, (ROOT / "docs/overhead/overhead.md").read_text().splitlines())
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    costs = ([title, *(median(found[name][of]) for name in RIVALS)] for title, of in COSTS.items())
    return table(["", *RIVALS], *costs)


def versions() -> str:
    """The versions that are tested, and the lowest that are taken."""
    pins, floors = pinned(), lowest()
    rows = ([name, pins[key], floors.get(key, "")] for key, name in FRAMEWORKS.items())
    return table(["", "tested", "lowest"], *rows)


def tested() -> str:
    """The same in two sentences."""
    newest, least = (
        ", ".join(f"{name} {numbers[key]}" for key, name in FRAMEWORKS.items() if key in numbers)
        for numbers in (pinned(), lowest())
    )
    return (
        f"Tested on CPU with Python 3.11 (the core on 3.12 and 3.13 too), {newest}. The lowest "
        f"versions that pass\nthe tests are {least}.\n"
    )


def pinned() -> dict[str, str]:
    """What constraints.txt pins."""
    return dict(re.findall(r"(?m)^([\w-]+)==(.+)$", (ROOT / "constraints.txt").read_text()))


def lowest() -> dict[str, str]:
    """What the extras of pyproject.toml ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    return dict(re.findall(r"([\w-]+)>=([\d.]+)", "\n".join(extras)))


def table(head: list[str], *rows: list[str]) -> str:
    """The rows in Markdown."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cells(line: str) -> list[str]:
    """The cells of a row in Markdown."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def median(cell: str) -> str:
    """A figure without its quartiles."""
    return cell.partition(" [")[0]


TABLES = {"cost": cost, "versions": versions, "tested": tested}


def filled(text: str) -> str:
    """The text, with each of its tables as it is now."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n{block[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
