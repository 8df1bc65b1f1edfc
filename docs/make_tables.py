"""Rewrite the tables of README.md and the documentation: `python docs/make_tables.py`.

A table stands between two comments that name one of `TABLES`, and is made from what a measurement
wrote, from the lists of runs, or from what pins the versions. A test compares what stands there
with that.
"""

import json
import re
import sys
import tomllib
from collections import Counter, defaultdict
from functools import cache, partial
from itertools import chain
from operator import truediv
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments.report.sections import Column, Section

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("choosing.md", "comparison.md", "experiments.md", "getting-started/installation.md")
RESULTS = ROOT / "experiments/results"
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in NAMES), RESULTS / "README.md"]
BLOCK = re.compile(r"(<!-- made by docs/make_tables.py: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
FRAMEWORKS = {
    "torch": "PyTorch",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "jax": "JAX",
    "optax": "optax",
}
sys.path.append(str(ROOT))  # for the experiments, which no wheel has


def cost() -> str:
    """What a step costs with a few optimizers, and with a small network."""
    from experiments.cost.overhead import short

    return f"{short(measured('overhead'))}\n\n{small()}"


def small() -> str:
    """What a step of a small network costs."""
    from experiments.cost.paired import differences, quartiles, ratios

    case = measured("tried")["cases"]["small"]
    ours, base = case["variants"]["ZENITH"], case["variants"]["SGD"]
    step = differences(ours["step milliseconds"], base["step milliseconds"])["median"]
    whole = ratios(ours["milliseconds"], base["milliseconds"])["median"]
    return (
        f"What is not so cheap: on a CPU the step of a *small* network ({case['parameters']:,} "
        f"parameters) takes {step:.2f} ms more,\nwhich makes an iteration of "
        f"{quartiles(base['milliseconds'])['median']:.1f} ms {100 * (whole - 1):.0f} % longer.\n"
    )


def apart() -> str:
    """What the table of all optimizers cannot show: the steps alone, and the mean of GeN."""
    from experiments.cost.overhead import in_the_step
    from experiments.optimizers import OPTIMIZERS

    document = measured("overhead")
    optimizers = document["optimizers"]
    rivals = {name for name, recipe in OPTIMIZERS.items() if recipe.paper} - {"sgd", "zenith"}
    once = [name for name in rivals if optimizers[name]["forwards"] == 1]
    steps = sorted(in_the_step(document, name) for name in once)

    def mean(name: str) -> str:
        pairs = (optimizers[each]["milliseconds"] for each in (name, "sgd"))
        return f"{100 * (fmean(map(truediv, *pairs)) - 1):.1f} %"

    return (
        "What can be told apart is the step alone: ZENITH's takes "
        f"**{in_the_step(document, 'zenith'):.1f} %** of an iteration more than SGD's, and those "
        f"of the paper's\nrivals that need one forward pass between {steps[0]:.1f} and "
        f"{steps[-1]:.1f} %. GeN makes its further passes in every fourth iteration, so that\na "
        f"median of single iterations hides them: its mean is {mean('gen')}, and "
        f"{mean('gen-same-batch')} where it stays on the same batch.\n"
    )


def measured(name: str) -> Any:
    """The figures of one of the measurements of cost."""
    return json.loads((ROOT / f"docs/overhead/{name}.json").read_text())


def results() -> str:
    """What the records of Fashion-MNIST come to, as `python -m experiments report` tells it."""
    from experiments.markdown import grid
    from experiments.records import paths, read
    from experiments.report import summary, table

    runs = summary.grouped({path: read(path) for path in paths(ROOT / "docs/fashion-mnist")})
    found = summary.summarise(runs)
    rows = (
        table.cells(name, row, len(found["seeds"])) for name, row in found["optimizers"].items()
    )
    return f"{table.headline(found)}:\n\n{grid(table.COLUMNS, rows)}\n"


def desk() -> str:
    """What the runs of the primary claims come to, as they are, averaged and cooled down."""
    from experiments.markdown import grid
    from experiments.report.cells import spread
    from experiments.report.claims import averaged, cooled
    from experiments.report.measures import chosen, headline
    from experiments.report.summary import label

    columns = of_study("claims").columns
    ways = {
        "": lambda run, _: headline(run),
        ", averaged": averaged,
        ", cooled down": cooled,
        ": its scale at the end": lambda run, _: run.steps[-1].get("scale"),
    }
    asked = [("zenith", ""), ("sgd", ""), ("sgd-cosine", "")]
    asked += [(name, way) for way in (", averaged", ", cooled down") for name in ("zenith", "sgd")]
    rows = [
        [
            label(name) + way,
            *(
                spread([ways[way](run, at) for run in at.runs.get(name, {}).values()])
                for at in columns
            ),
        ]
        for name, way in [*asked, ("zenith", ": its scale at the end")]
    ]
    moments = {"": headline, ", where validation is best": chosen}
    rows[-1:-1] = [
        [f"ZENITH less {label(other)}{at}", *(less(each, "zenith", other, by) for each in columns)]
        for other in ("sgd", "sgd-cosine")
        for at, by in moments.items()
    ]
    seeds = {len(own) for column in columns for own in column.runs.values() if own}
    counted = " to ".join(str(each) for each in sorted({min(seeds), max(seeds)}))
    return grid([f"{counted} seeds", *(column.title for column in columns)], rows) + "\n"


def less(column: "Column", ours: str, theirs: str, by: "Callable[..., float | None]") -> str:
    """The mean difference of two rows within a seed, with its interval; - where there is none."""
    from experiments.report.statistics import effect, paired, shown

    first, second = (
        {seed: by(run, column.measure) for seed, run in column.runs.get(row, {}).items()}
        for row in (ours, theirs)
    )
    both = paired(first, second)
    return shown(effect(both)) if both else "-"


def rivals(task: str, block: str) -> str:
    """What the optimizers of a block come to on one task, and how far ZENITH is from each."""
    from experiments.markdown import grid
    from experiments.report.cells import called, headlines, spread, typical
    from experiments.report.measures import chosen, headline
    from experiments.report.secondary import times
    from experiments.report.sections import listed
    from experiments.report.statistics import paired

    column = next(own for own in of_study("table3").columns if own.title == task)
    found = {row: headlines(column, row) for row in listed(block) if column.runs.get(row)}
    zenith, target = next(row for row in found if row.startswith("zenith")), column.target or 0.0
    leads = {row: fmean(paired(found[zenith], theirs)) for row, theirs in found.items()}
    alike = column._replace(runs={row: column.runs[row] for row in found}).paired
    rows = [
        [
            called(row),
            spread([*found[row].values()]),
            f"{len(found[row])}",
            *("" if row == zenith else less(column, zenith, row, by) for by in (headline, chosen)),
            typical([*times(alike, row).values()], "{:,.0f} steps".format),
        ]
        for row in sorted(leads, key=leads.__getitem__)
    ]
    head = [task, "test accuracy, %", "seeds", "ZENITH is ahead by", "where validation is best by"]
    return grid([*head, f"to {target:.2f} %"], rows) + "\n"


def detected() -> str:
    """What the eight optimizers of table 5 come to in each measure, and how far ZENITH is ahead."""
    from experiments.markdown import grid
    from experiments.report.cells import called, headlines, spread
    from experiments.report.measures import headline

    section = of_study("table5")
    head, rows = [f"{section.seeds} seeds"], [[called(row)] for row in section.rows]
    for column in section.columns:
        head += [f"{column.title}, %", "ZENITH is ahead by"]
        for row, cells in zip(section.rows, rows, strict=True):
            ahead = "" if row == "zenith" else less(column, "zenith", row, headline)
            cells += [spread([*headlines(column, row).values()]), ahead]
    return grid(head, rows) + "\n"


def windows() -> str:
    """What ZENITH comes to with other windows."""
    from experiments.markdown import grid
    from experiments.report import secondary
    from experiments.report.cells import headlines, spread
    from experiments.report.statistics import effect, paired, shown

    (column,) = of_study("figure6").columns
    found = dict(sorted(secondary.windows(column).items()))
    base = headlines(column, found[secondary.WINDOW])
    rows = []
    for window, row in found.items():
        runs, own = column.runs[row].values(), headlines(column, row)
        epochs = {window * run.header["epochs"] / run.header["steps"] for run in runs}
        rows.append(
            [
                f"{window:,}",
                " to ".join(f"{each:.2g}" for each in sorted(epochs)),
                spread([*own.values()]),
                "" if window == secondary.WINDOW else shown(effect(paired(own, base))),
                spread([run.steps[-1].get("scale") for run in runs]),
            ]
        )
    head = [
        "window",
        "epochs",
        "test accuracy, %",
        f"less {secondary.WINDOW}'s",
        "scale at the end",
    ]
    return grid(head, rows) + "\n"


def rates() -> str:
    """What ZENITH, SGD and the cosine come to from other rates."""
    from experiments.markdown import grid
    from experiments.report.cells import headlines, spread
    from experiments.report.sections import without
    from experiments.report.summary import label

    (column,) = of_study("figure3g").columns
    names = ("zenith", "sgd", "sgd-cosine")
    found: dict[float, dict[str, str]] = defaultdict(dict)
    for row in column.runs:
        name, rate = without(row, "lr")
        if rate is not None and name in names:
            found[rate][name] = spread([*headlines(column, row).values()])
    rows = [[f"{rate:g}", *map(own.get, names)] for rate, own in sorted(found.items())]
    return grid(["lr", *map(label, names)], rows) + "\n"


def beyond() -> str:
    """What ZENITH is worth over other ways to step, and on text."""
    from experiments.markdown import grid
    from experiments.report.cells import headlines, spread
    from experiments.report.measures import chosen, headline, lower_is_better
    from experiments.report.summary import label

    momentum, high = ",lr=0.02,momentum=0.9", ",lr=1"
    asked = [
        ("momentum", *(name + momentum for name in ("zenith", "sgd", "sgd-cosine"))),
        ("adamw", "adamw-zenith", "adamw", "adamw-cosine"),
        ("clipping", "zenith-clip", "sgd-clip", ""),
        ("text", *(name + high for name in ("zenith", "sgd", "sgd-cosine"))),
        ("text", "adamw-zenith", "adamw", "adamw-cosine"),
    ]
    rows = []
    for study, ours, *others in asked:
        for column in of_study(study).columns:
            found, lower = headlines(column, ours), lower_is_better(column.measure)
            first = [(other, ours) if lower else (ours, other) for other in others]
            leads = [less(column, *first[0], by) for by in (headline, chosen)]
            leads.append(less(column, *first[1], headline))
            level = spread([*found.values()], ".3f" if lower else ".2f")
            rows.append([label(ours), column.title, level, f"{len(found)}", *leads])
    head = ["", "task", "accuracy, %, or loss", "seeds", "ahead of the constant rate"]
    return grid([*head, "where validation is best", "of cosine"], rows, words=2) + "\n"


@cache
def of_study(name: str) -> "Section":
    """The committed runs of a study, all in one section."""
    from experiments.report.found import complete, gathered
    from experiments.report.sections import sections
    from experiments.study import wanted

    rows = wanted(name, "desk")
    tasks = gathered(RESULTS, rows)
    (section,) = sections(tasks, apart=False, complete=complete(tasks, rows))
    return section


def claims() -> str:
    """What has become of each claim of `results/claims.md`, by its tests."""
    from experiments.markdown import grid
    from experiments.report import claims, detection, secondary

    tests: dict[str, list[str]] = defaultdict(list)
    primary, _, _ = claims.judged(claims.CLAIMS, of_study("claims"))
    for name, _, task, *_, verdict in primary:
        tests[name].append(f"{task}: {verdict.replace('-', 'not run yet')}")
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    others = secondary.tested(of_study("secondary")) + detection.tested(of_study("table5"))
    for name, *_, verdict in others:
        counted[name][verdict.replace("-", "not run yet")] += 1
    said = {name: [f"{n} {word}" for word, n in own.items()] for name, own in counted.items()}
    text = (RESULTS / "claims.md").read_text()
    found = re.findall(r"(?m)^\| ([PSD]\d+) \| (.*?) \|", text)
    rows = ([name, what, "; ".join((tests | said)[name])] for name, what in found)
    return grid(["", "claimed by the paper, or by us", "here"], rows, words=3) + "\n"


def listed() -> str:
    """Every table and figure of the paper, and the studies beyond it."""
    from experiments.listing import PAPER
    from experiments.markdown import grid
    from experiments.studies import STUDIES

    own = {name: what for name, what in PAPER.items() if name != "notebooks"}  # a section of theirs
    rows = [(name, what.removeprefix("study ")) for name, what in own.items()]
    rows += [("", name) for name, study in STUDIES.items() if not study.paper]
    head = ["paper", "here", "`python -m experiments`", "status"]
    return grid(head, ([name, *described(what)] for name, what in rows), words=4) + "\n"


def described(what: str) -> list[str]:
    """What is here, its command, and whether it was measured."""
    from experiments.listing import status
    from experiments.studies import STUDIES

    if what == "table1":
        return ["The overhead", "`study table1`", "[measured](comparison.md#cost)"]
    if what not in STUDIES:
        return [what, "", ""]
    return [STUDIES[what].title, f"`study {what}`", status(what)]


def hours() -> str:
    """How many runs a study has, and how long they take."""
    from experiments import studies
    from experiments.markdown import grid

    def taken(name: str, scale: str) -> list[str]:
        asked = studies.cells(name, scale)
        return [f"{len(asked):,}", f"{studies.hours(asked):,.1f}"]

    rows = ([f"`{name}`", *taken(name, "desk"), *taken(name, "paper")] for name in studies.STUDIES)
    return grid(["study", "desk: runs", "core-hours", "paper: runs", "GPU-hours"], rows) + "\n"


def versions() -> str:
    """The versions that are tested, and the lowest that are taken."""
    from experiments.markdown import grid

    pins, floors = pinned(), lowest()
    rows = ([name, pins[key], floors.get(key, "")] for key, name in FRAMEWORKS.items())
    return grid(["", "tested", "lowest"], rows) + "\n"


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
    """What constraints.txt pins, and the file that it includes."""
    files = ROOT / "constraints-common.txt", ROOT / "constraints.txt"
    text = "".join(path.read_text() for path in files)
    return dict(re.findall(r"(?m)^([\w-]+)==(.+)$", text))


def lowest() -> dict[str, str]:
    """What the extras of pyproject.toml ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    return dict(re.findall(r"([\w-]+)>=([\d.]+)", "\n".join(extras)))


TABLES = {
    "results": results,
    "desk": desk,
    "claims": claims,
    "rivals": partial(rivals, "desk-a", "A"),
    "rivals_b": partial(rivals, "desk-b", "A"),
    "recommended": partial(rivals, "desk-b", "B"),
    "beyond": beyond,
    "detected": detected,
    "windows": windows,
    "rates": rates,
    "cost": cost,
    "small": small,
    "apart": apart,
    "listed": listed,
    "hours": hours,
    "versions": versions,
    "tested": tested,
}


def filled(text: str) -> str:
    """The text, with each of its tables as it is now."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n{block[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
