"""What a run has come to, in single numbers, from its records alone.

A run that diverged counts as the worst that there is: at chance in an accuracy, infinite in a loss,
and never at any target. What is expected is a run that has ended.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import inf, log
from statistics import fmean
from typing import NamedTuple

from experiments.records import Record, Records

__all__ = [
    "Reach",
    "best",
    "chance",
    "chosen",
    "collapse",
    "final_loss",
    "headline",
    "lower_is_better",
    "main_measure",
    "main_measures",
    "moment",
    "reach",
    "spoken",
    "valued",
]

TAIL = 4  # the headline is over the last of so many equal parts: the last 5 of 20 evaluations
AT_CHANCE = 1.5  # times what guessing gives, in percent: no more than that, nothing was learnt


class Reach(NamedTuple):
    """When a run came to a target; infinite where it never did."""

    steps: float
    seconds: float  # of training, evaluation left out


def main_measures(run: Records) -> list[str]:
    """Return all that a run is judged by: the `measures` of its header, or the one of others."""
    return [*map(str, run.header.get("measures", ()))] or [main_measure(run)]


def main_measure(run: Records) -> str:
    """Return what a run is judged by.

    That is the `measure` of its header, or the first of its `measures`, or else `test_accuracy`, or
    else its first measure of the test set; of a run without any, as one that diverged before its
    first evaluation, the accuracy.
    """
    for named in (*run.header.get("measures", ()), run.header.get("measure")):
        if named:
            return str(named)
    names = [name for line in run.evals[:1] for name in line if name.startswith("test_")]
    return "test_accuracy" if "test_accuracy" in names else next(iter(names), "test_accuracy")


def spoken(name: str) -> str:
    """Return a measure as an axis or a title has it: `box mAP50`."""
    return name.replace("_", " ").replace("map50", "mAP50")


def lower_is_better(name: str) -> bool:
    """Whether a measure is a loss."""
    return name.endswith("loss")


def chance(run: Records) -> float:
    """Return what guessing gives, in percent, or 0 where the header names no `classes`."""
    classes = run.header.get("classes")
    return 100 / classes if classes else 0.0


def headline(run: Records, name: str = "test_accuracy") -> float | None:
    """Return the mean of a measure over the last quarter of the evaluations: the last 5 of 20.

    None where none of these has the measure. It is never beyond the highest or lowest of them, so
    that the run has an evaluation that is as good.
    """
    values = _values(run, run.evals[-max(1, len(run.evals) // TAIL) :], name)
    # As computed, the mean of five times 0.11 is more than 0.11.
    return min(max(fmean(values), min(values)), max(values)) if values else None


def chosen(run: Records, name: str = "test_accuracy") -> float | None:
    """Return a measure where the validation was best, the first of equals; None without one."""
    if run.outcome == "diverged":
        return _worst(run, name)
    for by in ("validation_accuracy", "validation_loss"):
        lines = [line for line in run.evals if line.get(by) is not None]
        if lines:
            sign = -1 if lower_is_better(by) else 1
            return valued(run, [max(lines, key=lambda at: sign * at[by])], name)
    return None


def best(run: Records, name: str = "test_accuracy") -> float | None:
    """Return the best that a measure ever was; of one of the test set, it is chosen on that."""
    values = _values(run, run.evals, name)
    return (min if lower_is_better(name) else max)(values, default=None)


def valued(run: Records, lines: Sequence[Record], name: str) -> float | None:
    """Return a measure in the first of those lines that has it; None where none has."""
    return next(iter(_values(run, lines, name)), None)


def final_loss(run: Records) -> float:
    """Return the mean training loss over the last segment."""
    loss = valued(run, run.evals[-1:], "train_loss")
    return inf if loss is None else loss


def reach(run: Records, target: float, name: str = "train_loss") -> Reach:
    """Return when, as of its evaluations, a run first had a measure as good as the target.

    The training loss of an evaluation is the mean over the segment before it.
    """
    sign = 1 if lower_is_better(name) else -1
    for line in [] if run.outcome == "diverged" else run.evals:
        if line.get(name) is not None and sign * line[name] <= sign * target:
            return Reach(line["step"], line["seconds"])
    return Reach(inf, inf)


def moment(run: Records, name: str, loss: float | None = None) -> Record | None:
    """Return the evaluation at which to look at a measure that not every one has.

    Args:
        run: that has ended.
        name: of the measure.
        loss: of the weights themselves (`NAME_loss`, not the mean over a segment): what lies there,
            on lines over the logarithm of the loss, between the last evaluation with the measure
            before that loss is first reached and the one after; by default the last evaluation.

    Returns:
        The line, or None where there is none; and none of a run that diverged.
    """
    lines = [line for line in run.evals if line.get(name) is not None]
    if run.outcome == "diverged" or not lines:
        return None
    if loss is None:
        return lines[-1] if lines[-1] is run.evals[-1] else None
    lines = [line for line in lines if line.get(f"{name}_loss") is not None]
    for above, below in pairwise(lines):
        if above[f"{name}_loss"] > loss >= below[f"{name}_loss"]:
            return _between(above, below, f"{name}_loss", loss)
    return None


def _between(above: Record, below: Record, by: str, loss: float) -> Record:
    """All numbers of two lines where the loss `by`, on its logarithm, is this one between them."""
    if below[by] <= 0:  # a loss that came out as 0 has no logarithm
        return below
    share = log(above[by] / loss) / log(above[by] / below[by])
    numbers = [name for name in above if _number(above[name]) and _number(below.get(name))]
    return {name: above[name] + share * (below[name] - above[name]) for name in numbers}


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def collapse(run: Records) -> str:
    """Return `diverged`, or `at chance` where the headline shows that nothing was learnt, or ""."""
    if run.outcome == "diverged":
        return "diverged"
    name = main_measure(run)
    accuracy = headline(run, "test_accuracy" if lower_is_better(name) else name)
    return "at chance" if accuracy is not None and accuracy <= AT_CHANCE * chance(run) else ""


def _values(run: Records, lines: Sequence[Record], name: str) -> list[float]:
    """The values of a measure in those lines that have it; a null is the worst there is."""
    if run.outcome == "diverged":
        return [_worst(run, name)]
    found = [line[name] for line in lines if name in line]
    return [_worst(run, name) if value is None else value for value in found]


def _worst(run: Records, name: str) -> float:
    return inf if lower_is_better(name) else chance(run)
