"""The figures of a study, from the records alone.

What the records do not have is no line, and a panel without any says so. The numbers of a panel
are means over the seeds.
"""

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.records import Record, Records
from experiments.report.measures import Reach, lower_is_better, reach
from experiments.report.panels import (
    finished,
    judged,
    logarithmic,
    look,
    panels,
    plot,
    series,
    tinted,
    titled,
    wrapped,
    zoomed,
)
from experiments.report.sections import Column, Section, title
from experiments.report.statistics import profile
from experiments.report.stops import horizon
from experiments.report.style import rendered
from experiments.report.sweeps import flatness, landscape, sharpness, swept

__all__ = ["FIGURES", "Drawn", "picture"]

LEAST = 1e-4  # of the highest rate of a panel
FACTORS = np.geomspace(1, 16, 200)
_SIZES = {"font.size": 11, "axes.titlesize": 12, "legend.fontsize": 10}


def picture(name: str, section: Section) -> bytes:
    """Return one of `FIGURES` as a PNG, the same bytes for the same records."""
    drawn = FIGURES[name]
    having = [column for column in section.columns if _has(column, drawn.needs)]
    shown = section._replace(columns=[each.distinct for each in having or section.columns])
    return rendered(lambda: finished(drawn.draw(shown)), _SIZES)


def over_time(section: Section) -> Figure:
    """Figures 1 and 5: training loss and measures over the time of training, by task."""
    figure, grid = panels(1 + max(map(len, section.tasks)), len(section.tasks))
    for (losses, *others), columns in zip(grid.T, section.tasks, strict=True):
        name = title(columns[0].task, columns[0].strength)
        along = "seconds of training" if columns[0].timed() else "iteration"
        titled(losses, name, along, "training loss, mean of a segment")
        logarithmic(losses, "y")
        _timed(losses, columns[0], "train_loss")
        _topped(losses)
        for axes, column in zip(others, columns, strict=False):
            titled(axes, "", along, judged(column))
            _timed(axes, column, column.measure)
            if not lower_is_better(column.measure):
                zoomed(axes)
    return figure


def _topped(axes: Axes) -> None:
    """Let an axis end at ten times where the highest line begins: one that diverges leaves it."""
    begins = [float(np.asarray(line.get_ydata())[0]) for line in axes.lines]
    if begins:
        axes.set_ylim(top=min(axes.get_ylim()[1], 10 * max(begins)))


def _timed(axes: Axes, column: Column, measure: str) -> None:
    along = "seconds" if column.timed() else "step"
    for name, runs in column.runs.items():
        plot(axes, series(runs, "evals", measure, along), **look(name, column.runs))


def schedule(section: Section) -> Figure:
    """Figure 2: the mean norm that ZENITH measures, and its rate, by task."""
    figure, grid = panels(1, 2)
    norms, rates = grid[0]
    titled(norms, "(a) mean norm of the gradient", "iteration", "L2 norm")
    logarithmic(norms, "y")
    titled(rates, "(b) learning rate", "iteration", "learning rate")
    for column, tint in tinted([column for column, *_ in section.tasks]):
        name = title(column.task, column.strength)
        runs = column.runs.get(section.reference or "", {})
        full = {seed: run._replace(steps=_full(run)) for seed, run in runs.items()}
        plot(norms, series(full, "steps", "mean"), color=tint, label=name)
        plot(rates, series(runs, "steps", "lr"), color=tint, label=name)
    return figure


def rates(section: Section) -> Figure:
    """Figures 3f and 4: the rate of every optimizer that has one, by task; not as it comes to 0."""
    figure = _over_steps(section, "steps", "lr", "learning rate")
    for axes in figure.axes:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, LEAST * high), high)
    return figure


def noise(section: Section) -> Figure:
    """What share of the norm of a batch's gradient is noise, by task."""
    return _over_steps(section, "evals", "noise_share", "share of noise")


def profiles(section: Section) -> Figure:
    """The performance profiles of the way to the target of each task, of those that have them all.

    The way is the median over the seeds.
    """
    columns = [column for column in section.columns if column.target is not None]
    fields = Reach._fields if all(column.timed() for column in columns) else ("steps",)
    figure, grid = panels(1, len(fields))
    whole = [row for row in section.rows if all(column.runs.get(row) for column in columns)]
    for axes, field in zip(grid[0], fields, strict=True):
        titled(axes, field, "times those of the fastest", "share of the tasks")
        axes.set_xscale("log", base=2)
        ways = {row: [_way(column, row, field) for column in columns] for row in whole}
        for row, shares in profile(ways, FACTORS).items() if columns and whole else ():
            plot(axes, (FACTORS, shares), drawstyle="steps-post", **look(row, whole))
    return figure


def _over_steps(section: Section, kind: Literal["steps", "evals"], measure: str, y: str) -> Figure:
    figure, grid = wrapped(len(section.tasks))
    for axes, (column, *_) in zip(grid, section.tasks, strict=True):
        titled(axes, title(column.task, column.strength), "iteration", y)
        logarithmic(axes, "y")
        for name, runs in column.runs.items():
            plot(axes, series(runs, kind, measure), **look(name, column.runs))
    return figure


def _full(run: Records) -> list[Record]:
    """The steps of ZENITH since its window is full."""
    return [line for line in run.steps if line.get("zenith")]


def _way(column: Column, row: str, field: str) -> float:
    """The median over the seeds, of steps or seconds."""
    target = column.target or 0.0
    reached = [reach(run, target, column.measure) for run in column.runs[row].values()]
    return float(median(getattr(each, field) for each in reached))


def _has(column: Column, measure: str) -> bool:
    """Whether a run of a task has a measure; of none there is nothing to have."""
    every = (run for own in column.runs.values() for run in own.values())
    return not measure or any(measure in line for run in every for line in run.evals)


class Drawn(NamedTuple):
    """A figure.

    Attributes:
        caption: what it shows.
        draw: what draws it.
        note: what else is to be said of it.
        needs: a measure; where some tasks have it, those without are left out.
    """

    caption: str
    draw: Callable[[Section], Figure]
    note: str = ""
    needs: str = ""


FIGURES: Mapping[str, Drawn] = {
    "figure1": Drawn("Training loss and accuracy over the time of training", over_time),
    "figure2": Drawn("The mean gradient norm, and the rate that ZENITH makes of it", schedule),
    "figure3ab": Drawn(
        "Sharpness and relative accuracy of SGD over its constant rate",
        sharpness,
        needs="sharpness",
    ),
    "figure3d": Drawn(
        "The loss along a line through where each optimizer ended", landscape, needs="line_0.0"
    ),
    "figure3e": Drawn(
        "Accuracy over sharpness, a point for each optimizer", flatness, needs="sharpness"
    ),
    "figure3f": Drawn("The learning rates of the optimizers that have one", rates),
    "figure3gh": Drawn("ZENITH and the others over the initial rate", partial(swept, option="lr")),
    "figure4": Drawn("The learning rates under L2 regularization", rates),
    "figure5": Drawn("Training loss and mAP50 over the time of training", over_time),
    "figure6": Drawn("ZENITH over the window", partial(swept, option="window")),
    "profile": Drawn(
        "On what share of the tasks the target is reached at so many times the fastest",
        profiles,
    ),
    "horizon": Drawn(
        "Accuracy when stopped at a part of the run",
        horizon,
        "What was cooled down stands where that ends, a tenth of the run after it began; the last "
        "evaluation of each run that was planned to end there, in every panel as it is. Means over "
        "the seeds that all lines of a task have.",
    ),
    "noise": Drawn(
        "The share of noise in the norm of a batch's gradient", noise, needs="noise_share"
    ),
}
