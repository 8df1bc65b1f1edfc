"""What may be compared: runs by task, strength of L2 and block, with what the tables are about."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from statistics import fmean
from typing import NamedTuple

from experiments.optimizers import BLOCKS, OPTIMIZERS
from experiments.question import Question, named, parsed
from experiments.records import Records
from experiments.report.found import Tasks
from experiments.report.measures import headline, lower_is_better, main_measures, spoken
from experiments.report.summary import Runs, place

__all__ = [
    "Column",
    "Place",
    "Section",
    "listed",
    "sections",
    "title",
    "without",
]

_TITLES = {
    "A": "Block A: no momentum but what is an optimizer's own, 0.1 where it takes a rate",
    "B": "Block B: as the authors of each recommend",
}


# What ZENITH is over, and so compared with, where it is not SGD.
_LIKE = {"adamw-zenith": ("adamw", "adamw-cosine"), "zenith-clip": ("sgd-clip",)}

Place = tuple[str, str, str]  # task, strength of L2, and the measure where there are several


class Column(NamedTuple):
    """The runs on one task with one strength of L2, by one of the measures they are judged by.

    Attributes:
        task: its name.
        strength: of `l2`, or of `weight_decay`, as in the names; "" without.
        runs: by the name without that; none of a run that was asked for and is missing.
        measure: what they are judged by.
        target: the lowest headline of SGD at a constant rate over its seeds, which each of these
            runs reached; None without any.
        several: whether they are judged by others too, in columns of their own.
    """

    task: str
    strength: str
    runs: Runs
    measure: str
    target: float | None
    several: bool = False

    @property
    def place(self) -> Place:
        """What it is called by."""
        return (self.task, self.strength, self.measure if self.several else "")

    @property
    def title(self) -> str:
        """As tables and pictures have it."""
        return title(*self.place)

    def timed(self, *rows: str) -> bool:
        """Whether the seconds of rows, by default of all, can be held against those of ZENITH.

        They can where both were made on the same kind of machine, and the records say which: the
        first ones that were made have the architecture alone. Where there is no ZENITH, it is the
        first row.
        """
        there = sorted((row for row, own in self.runs.items() if own), key=place)
        wanted = [*there[:1], *(rows or self.runs)]
        runs = [run for row in wanted for run in self.runs[row].values()]
        devices = {run.header.get("made", {}).get("device", "") for run in runs}
        return len(devices) == 1 and " " in devices.pop()

    def copied(self, row: str) -> str | None:
        """Return the row which one at the best rate repeats, if it has one."""
        if parsed(row)[1].get("lr") != "best":
            return None
        runs = [*map(id, self.runs.get(row, {}).values())]
        same = (other for other, own in self.runs.items() if [*map(id, own.values())] == runs)
        return next((other for other in same if runs and other != row), None)

    @property
    def paired(self) -> "Column":
        """With those seeds alone that every row has which has any."""
        there = [{*own} for own in self.runs.values() if own]
        seeds = set.intersection(*there) if there else set()
        runs = {
            row: {seed: run for seed, run in own.items() if seed in seeds}
            for row, own in self.runs.items()
        }
        return self._replace(runs=runs)

    @property
    def distinct(self) -> "Column":
        """Without the rows that repeat another."""
        return self._replace(
            runs={row: own for row, own in self.runs.items() if not self.copied(row)}
        )


class Section(NamedTuple):
    """Runs that are compared with one another.

    Attributes:
        title: what they have in common; "" where there is but one section.
        columns: the tasks.
        seeds: how many runs there should be of each.
        complete: whether every run of the study is there.
    """

    title: str
    columns: Sequence[Column]
    seeds: int
    complete: bool = True

    @property
    def rows(self) -> list[str]:
        """The names, ZENITH first, then as in the registry."""
        return sorted({row for column in self.columns for row in column.runs}, key=place)

    @property
    def tasks(self) -> list[list[Column]]:
        """The columns of the same runs together, one for each measure."""
        found: dict[tuple[str, str], list[Column]] = defaultdict(list)
        for column in self.columns:
            found[column.task, column.strength].append(column)
        return list(found.values())

    @property
    def reference(self) -> str | None:
        """The name of ZENITH that the others are compared with: with the fewest options."""
        return self._plainest("zenith")

    def against(self, row: str) -> str | None:
        """Return the name that a row is compared with, None of that itself: see `_LIKE`."""
        slug = parsed(row)[0]
        like = next((own for own, rivals in _LIKE.items() if slug in (own, *rivals)), "zenith")
        base = self._plainest(like) or self.reference
        return None if base == row else base

    def _plainest(self, slug: str) -> str | None:
        own = [row for row in self.rows if parsed(row)[0] == slug]
        return min(own, key=lambda row: row.count(","), default=None)


def title(task: str, strength: str = "", measure: str = "") -> str:
    """Return how a task with a strength of L2 is called, and what is measured if it is not plain.

    Examples:
        >>> title("digits", "0.001"), title("coco-keypoints", measure="box_map50")
        ('digits, L2 0.001', 'coco-keypoints, box mAP50')
    """
    named = f"{task}, L2 {strength}" if strength else task
    return f"{named}, {spoken(measure)}" if measure else named


def without(row: str, option: str) -> tuple[str, float | None]:
    """Return a name without an option, and its value; None where it takes none, or several.

    Examples:
        >>> without("zenith,lr=0.2,window=50", "lr"), without("sgd", "lr"), without("dowg", "lr")
        (('zenith,window=50', 0.2), ('sgd', 0.1), ('dowg', None))
    """
    slug, options = parsed(row)
    value = options.pop(option, OPTIMIZERS[slug].options.get(option))
    return named(slug, options), None if value in (None, "best") else float(value)


def sections(
    tasks: Tasks,
    seeds: int | None = None,
    best_rate: Sequence[str] = (),
    apart: bool = True,
    complete: bool = True,
) -> list[Section]:
    """Return the runs as they may be compared, none of block A with one of B.

    Args:
        tasks: the runs.
        seeds: how many runs there should be of each; by default as many as any has.
        best_rate: the optimizers which, where they were run at several rates, have a row more,
            `lr=best`: on each task the rate whose mean validation is best. Those of their rates
            that are not in `BLOCKS` have no row of their own.
        apart: keep the blocks apart; else there is one section.
        complete: whether these are all that there should be.
    """
    every = [own for runs in tasks.values() for own in runs.values()]
    seeds = seeds or max(map(len, every))
    columns = [column for task, runs in tasks.items() for column in _columns(task, runs)]
    columns = [column._replace(runs=_chosen(column.runs, best_rate)) for column in columns]
    if not apart:
        return [Section("", columns, seeds, complete)]
    own = {block for column in columns for row in column.runs for block in _only(row)}
    found = [
        Section(_TITLES[block], _within(columns, block), seeds, complete) for block in sorted(own)
    ]
    return found if len(found) > 1 else [Section("", columns, seeds, complete)]


def _columns(task: str, runs: Runs) -> list[Column]:
    parts: dict[str, dict[str, Mapping[int, Records]]] = defaultdict(dict)
    for name, own in runs.items():
        row, strength = _split(name)
        parts[strength][row] = own
    return [
        Column(task, strength, own, measure, _target(own, measure), len(measures) > 1)
        for strength, own in sorted(parts.items(), key=lambda part: float(part[0] or 0))
        for measures in [_judged(own)]
        for measure in measures
    ]


def _split(name: str) -> tuple[str, str]:
    """The name without the strength of its L2, and that."""
    slug, options = parsed(name)
    strength = options.pop("l2", "")
    if "weight_decay" in options:
        strength, options["weight_decay"] = options["weight_decay"], ""
    return named(slug, options), strength


def _judged(runs: Runs) -> list[str]:
    """The measures."""
    evaluated = (run for own in runs.values() for run in own.values() if run.evals)
    first = next(evaluated, None)
    return main_measures(first) if first else ["test_accuracy"]


def _target(runs: Runs, measure: str) -> float | None:
    """That of `Column`."""
    lasting = [run for run in runs.get("sgd", {}).values() if run.outcome != "diverged"]
    reached = [value for run in lasting if (value := headline(run, measure)) is not None]
    return (max if lower_is_better(measure) else min)(reached, default=None)


def _within(columns: Iterable[Column], block: str) -> list[Column]:
    found = [
        column._replace(runs={row: own for row, own in column.runs.items() if block in _of(row)})
        for column in columns
    ]
    return [column for column in found if column.runs]


def listed(block: str) -> list[str]:
    """Return the rows of one of `BLOCKS`."""
    return [Question(slug, options=options).name for slug, options in BLOCKS[block]]


def _of(row: str) -> set[str]:
    """The blocks that a row belongs to; where none has it, B if it is by the rules of B alone."""
    if found := {block for block in BLOCKS if row in listed(block)}:
        return found
    slug, options = parsed(row)
    has = {block: slug in dict(BLOCKS[block]) for block in BLOCKS}
    return {"B"} if "momentum" in options or (has["B"] and not has["A"]) else {"A"}


def _only(row: str) -> set[str]:
    """The block that a row belongs to, if it is one: what both have makes no section."""
    found = _of(row)
    return found if len(found) == 1 else set()


def _chosen(runs: Runs, slugs: Sequence[str]) -> Runs:
    """The runs with a row more for each of the optimizers, at the rate that validation chooses."""
    rates: dict[str, list[str]] = defaultdict(list)
    for name in runs:
        slug, options = parsed(name)
        if slug in slugs:
            rates[named(slug, {**options, "lr": "best"})].append(name)
    rates = {best: names for best, names in rates.items() if len(names) > 1}
    blocks = [row for block in BLOCKS for row in listed(block)]
    hidden = {name for names in rates.values() for name in names if name not in blocks}
    kept = {name: own for name, own in runs.items() if name not in hidden}
    return {**kept, **{best: _validated(runs, names) for best, names in rates.items()}}


def _validated(runs: Runs, names: Sequence[str]) -> Mapping[int, Records]:
    """The runs of the name with the best mean validation over the seeds that all of them have."""
    lines = [line for name in names for run in runs[name].values() for line in run.evals]
    measures = ("validation_accuracy", "validation_loss")
    by = next((each for each in measures if any(each in line for line in lines)), None)
    if by is None or not all(runs[name] for name in names):
        return {}
    sign = -1 if lower_is_better(by) else 1

    shared = set.intersection(*({*runs[name]} for name in names))

    def score(name: str) -> float:
        found = [headline(runs[name][seed], by) for seed in shared]
        return fmean(-inf if value is None else sign * value for value in found)

    return runs[max(names, key=score)] if shared else {}
