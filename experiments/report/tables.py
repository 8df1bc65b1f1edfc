"""The tables of a study in the paper's form, and what the tests say: in Markdown."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import repeat
from math import inf, isinf
from statistics import fmean, median

from experiments.markdown import grid
from experiments.optimizers import OPTIMIZERS
from experiments.question import parsed
from experiments.records import Records
from experiments.report import paper
from experiments.report.cells import called, duration, headlines, noted, spread, unit
from experiments.report.measures import Reach, collapse, lower_is_better, reach
from experiments.report.sections import Column, Section, title
from experiments.report.statistics import (
    DRAWN,
    EXACT,
    LEAST,
    MARGIN,
    Effect,
    effect,
    holm,
    paired,
    powerless,
    ranks,
    shown,
    verdict,
)
from experiments.report.stops import planned
from experiments.report.summary import label, late

__all__ = ["comparison", "lead", "table3", "table4", "table5"]

_NOTE = """
The mean over the seeds of the last quarter of the evaluations (5 of 20) ± their standard deviation,
and the median time of training, without evaluation, to the first evaluation that is as good, in
steps where the machine was not that of ZENITH's runs, or is not known. Bold
is the best mean over the seeds that all rows have, by which the ranks are too; there are none where
a row lacks one of the tasks. A run that diverged
counts with what guessing gives. † knows before its first step how long the run is; *out of time*
are runs of it whose hours ended before the steps of its plan. What was planned to be shorter than
the other runs of a task has no rank and is never bold.
"""
_TABLE5_NOTE = """
At desk scale that quarter is 3 evaluations of 12. The paper has one run of each, does not say at
which evaluation its numbers are taken, and gives one time for both measures of a task; it prints
numbers for D-Adaptation, of whose training it says that it ends with divergent gradients. COCO's
noise between seeds, some 0.3 points of AP, makes the difference of two single runs uncertain by
0.42: see `results/claims.md`.
"""
_LEAD_NOTE = """
The mean of the differences over the seeds that both have, positive where ZENITH is better, and its
95 % interval. Of fewer than {least} seeds no test is made; there is no verdict (-) where each run
of one of the two has learnt nothing (diverged, or at chance).
"""
_TESTED = """
p is that of the paired test {flips}, then the same after Holm over the {tests} of this table, and
what becomes of the claim that ZENITH is better at 0.05: *equivalent* where two one-sided tests,
with a Holm of their own over the {tests}, show a difference of less than {margin} points of
accuracy. The primary claims are judged over all of their tests, in the report of `study claims`.
{powerless}
"""


def table3(section: Section) -> str:
    """Return the comparison beside the paper's table 3."""
    return comparison(section, paper.TABLE3)


def table4(section: Section) -> str:
    """Return the comparison beside the paper's table 4."""
    return comparison(section, paper.TABLE4)


def table5(section: Section) -> str:
    """Return the comparison beside the paper's table 5."""
    return noted(comparison(section, paper.TABLE5), _TABLE5_NOTE)


def comparison(section: Section, printed: paper.Table | None = None) -> str:
    """Return every optimizer on every task, and the mean rank of those that have a run on each.

    Args:
        section: the runs.
        printed: a table of the paper, whose columns for these tasks stand beside, or all of them
            where it has none of these tasks.
    """
    columns, beside = section.columns, _beside(section, printed or {})
    shared = [_shared(column) for column in columns]
    scores = {row: [*map(_score, columns, repeat(row), shared)] for row in section.rows}
    shorter = {row for row in scores if any(planned(column, row) for column in columns)}
    ranked = {row: own for row, own in scores.items() if row not in shorter}
    tops = [max(own) for own in zip(*(ranked or scores).values(), strict=True)]
    whole = {row: own for row, own in ranked.items() if -inf not in own}
    partly = any({*own} != {-inf} for row, own in ranked.items() if row not in whole)
    places = {} if partly else ranks(whole)  # which would be among some of them alone
    rows = [
        [
            called(row),
            *(
                _cell(column, row, section.seeds, bold=row not in shorter and score == top)
                for column, score, top in zip(columns, own, tops, strict=True)
            ),
            f"{places[row]:.1f}" if row in places else "-",
            *(cells.get(row, "-") for cells in beside.values()),
        ]
        for row, own in scores.items()
    ]
    head = ["optimizer", *(f"{column.title}, {unit(column)}" for column in columns), "mean rank"]
    return noted(grid([*head, *(f"paper: {title}" for title in beside)], rows), _NOTE)


def lead(section: Section) -> str:
    """Return by how much ZENITH is better than each of the others, with what a test says of it."""
    others = {row: base for row in section.rows if (base := section.against(row))}
    if not others:
        return "No run of ZENITH has one to be compared with."
    keys = [(against, row, column) for row, against in others.items() for column in section.columns]
    found = [_effect(column, base, row) for base, row, column in keys]
    lost = [_collapses(column, base) or _collapses(column, row) for base, row, column in keys]
    tested = [each for each, no in zip(found, lost, strict=True) if each and _testable(each, no)]
    adjusted = iter(_adjusted(tested))
    cells = [
        _verdict(each, next(adjusted) if _testable(each, no) else None, no)
        if each
        else _without(column, row)
        for each, no, (_, row, column) in zip(found, lost, keys, strict=True)
    ]
    width = len(section.columns)
    rows = [
        [f"{label(base)} against {called(row)}", *cells[i * width : (i + 1) * width]]
        for i, (row, base) in enumerate(others.items())
    ]
    head = ["", *(column.title for column in section.columns)]
    return noted(grid(head, rows), _LEAD_NOTE.format(least=LEAST) + _tests(tested))


def _beside(section: Section, printed: paper.Table) -> dict[str, dict[str, str]]:
    """The columns of the paper by their titles, its cells by the rows here that are like its own.

    These have no options, but for ZENITH's; with momentum, as in block B, there are none.
    """
    base = section.reference or ""
    if "momentum" in parsed(base)[1]:
        return {}
    own = {column.place for column in section.columns}
    wanted = own & set(printed) or set(printed)
    like = {slug: base if slug == "zenith" else slug for slug in OPTIMIZERS}
    return {
        title(*place): {
            like[slug]: f"{cell.accuracy} ({cell.time})" for slug, cell in cells.items()
        }
        for place, cells in printed.items()
        if place in wanted
    }


def _shared(column: Column) -> set[int]:
    """The seeds that all rows have which have any."""
    found = [own.keys() for row in column.runs if (own := headlines(column, row))]
    return set.intersection(*map(set, found)) if found else set()


def _score(column: Column, row: str, shared: Container[int]) -> float:
    """The mean over these seeds, the higher the better; minus infinity where there is none."""
    values = [value for seed, value in headlines(column, row).items() if seed in shared]
    sign = -1 if lower_is_better(column.measure) else 1
    return sign * fmean(values) if values else -inf


def _cell(column: Column, row: str, seeds: int, bold: bool) -> str:
    if row not in column.runs:
        return "-"
    runs, values = column.runs[row], list(headlines(column, row).values())
    if not values:
        return "missing"
    mean = f"**{spread(values)}**" if bold else spread(values)
    reached = [
        reach(runs[seed], value, column.measure) for seed, value in headlines(column, row).items()
    ]
    remarks = [*_collapsed(runs.values()), *_partial(len(values), seeds), *_rate(row, runs)]
    remarks += [said] if (said := _late(row, runs)) else []
    return ", ".join([f"{mean} ({_when(reached, column.timed(row))})", *remarks])


def _when(reached: Sequence[Reach], timed: bool) -> str:
    middle = median(each.seconds if timed else each.steps for each in reached)
    if isinf(middle):
        return "-"
    return duration(middle) if timed else f"{middle:,.0f} steps"


def _collapsed(runs: Iterable[Records]) -> list[str]:
    found = [collapse(run) for run in runs]
    return [
        word if count == len(found) else f"{word} {count} of {len(found)}"
        for word, count in Counter(found).items()
        if word
    ]


def _partial(count: int, seeds: int) -> list[str]:
    return [f"{count} seed{'s' * (count > 1)}"] if count < seeds else []


def _late(row: str, runs: Mapping[int, Records]) -> str:
    return late(row, sum(run.outcome == "stopped" for run in runs.values()), len(runs))


def _rate(row: str, runs: Mapping[int, Records]) -> list[str]:
    """The rate that validation has chosen."""
    slug, options = parsed(row)
    if options.get("lr") != "best":
        return []
    own = next(iter(runs.values())).header["options"]
    return [f"lr {own.get('lr', OPTIMIZERS[slug].options['lr']):g}"]


def _effect(column: Column, base: str, row: str) -> Effect | None:
    ours, others = headlines(column, base), headlines(column, row)
    lower = lower_is_better(column.measure)
    sign, margin = (-1, 0.0) if lower else (1, MARGIN)  # the margin is in points of accuracy
    differences = [sign * each for each in paired(ours, others)]
    return effect(differences, margin) if differences and not column.copied(row) else None


def _without(column: Column, row: str) -> str:
    """What stands where there is nothing to test."""
    return f"as {called(same)}" if (same := column.copied(row)) else "-"


def _collapses(column: Column, row: str) -> bool:
    """Whether no run of it has learnt anything."""
    runs = column.runs.get(row, {})
    return bool(runs) and all(map(collapse, runs.values()))


def _testable(found: Effect, lost: bool) -> bool:
    return found.pairs >= LEAST and not lost


def _adjusted(tested: Sequence[Effect]) -> Iterable[tuple[float, float]]:
    """Both p-values of each, after Holm."""
    ps, equivalent = ([each.p for each in tested], [each.p_equivalent for each in tested])
    return zip(holm(ps), holm(equivalent), strict=True)


def _tests(tested: Sequence[Effect]) -> str:
    """What the note says of the tests, if there are any."""
    pairs, tests = [each.pairs for each in tested], len(tested)
    if not pairs:
        return ""
    drawn = f"of all flips of signs, above {EXACT} seeds of {DRAWN:,} drawn by a fixed generator"
    return _TESTED.format(
        flips=drawn if max(pairs) > EXACT else "of all flips of signs",
        tests=tests,
        margin=MARGIN,
        powerless=powerless(pairs),
    )


def _verdict(found: Effect, adjusted: tuple[float, float] | None, lost: bool) -> str:
    if adjusted is None:
        few = f"{found.pairs} seed{'s' if found.pairs > 1 else ''}: no test"
        return f"{shown(found)}: {'-' if lost else few}"
    p, equivalent = adjusted
    says = verdict(found, p, equivalent)
    if says in ("held", "contradicted here"):
        says = f"{says.removesuffix(' here')} in this table"
    return f"{shown(found)}, {found.pairs} seeds, p {found.p:.2g}, Holm {p:.2g}: {says}"
