"""What a run is worth where it is stopped, beside runs that were planned for that moment.

A stop is a share of the whole run, in percent, and a cooldown that ends there began a tenth of the
run before. A run is planned for a stop if its name has `epochs` and others of its task are longer.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from experiments.markdown import grid
from experiments.question import named, parsed
from experiments.records import Record, Records
from experiments.report.cells import noted, spread
from experiments.report.measures import valued
from experiments.report.panels import Line, look, panels, plot, series, titled, zoomed
from experiments.report.sections import Column, Section
from experiments.report.statistics import effect, paired, shown
from experiments.report.summary import label

__all__ = ["STOPS", "at_stop", "horizon", "planned", "planned_for", "shares", "stops"]

STOPPED = {
    "test_accuracy": "as it is",
    "cooldown_accuracy": "after a cooldown",
    "averaged_accuracy": "averaged",
    "cooldown_averaged_accuracy": "averaged, after a cooldown",
}
STOPS = (20, 40, 60, 80, 100)
COOLDOWN = 10  # % of the run
_NEAR = 0.5  # %: an evaluation that is no farther from a stop is at it
_NOTE = """
Test accuracy, the mean over the seeds that all have ± their standard deviation, of one evaluation:
that at so many percent of the epochs. A cooldown that is shown there began {} % of the run before,
so that what stands in a column has trained for as long. *Planned* is the last evaluation of a run
whose schedule was planned to end there, and against it stands the mean of the differences with its
95 % interval. An average begins with the weights after the first step,
and for some 2,000 steps these are a part of it.
"""
_SHARES = """
`1 - ||G||² / E||g||²`, of the full gradient G and those of the batches g, the mean over the seeds ±
their standard deviation, by point of the run (% of its epochs).
"""


def planned(column: Column, row: str) -> bool:
    """Whether a run was planned to end before the others of its task do."""
    epochs = float(parsed(row)[1].get("epochs", "inf"))
    return epochs < 0.999 * _whole(column)  # records are rounded


def horizon(section: Section) -> Figure:
    """The accuracy when stopped at any part of the run: as it is, averaged, after a cooldown."""
    figure, axes = panels(len(section.columns), len(STOPPED))
    for across, every in zip(axes, section.columns, strict=True):
        column = every.paired
        for panel, (measure, how) in zip(across, STOPPED.items(), strict=True):
            titled(panel, f"{column.title}, {how}", "stopped at % of the run", "test accuracy, %")
            rows = [row for row in column.runs if not planned(column, row)]
            for row in rows:
                runs = column.runs[row]
                there = {seed: _stopped(column, run, measure) for seed, run in runs.items()}
                style = look(row, rows) | {"marker": "."}
                plot(panel, series(there, "evals", measure, "stop"), **style)
            for name, ends in _plans(column).items():
                first = next(iter(ends.values()))
                style = look(first, [*rows, first])
                plot(panel, _ends(column, ends), **style | {"marker": "s", "label": _called(name)})
        zoomed(*across)
    return figure


def stops(section: Section) -> str:
    """Return the accuracy at five stops, by task and row, with how far ZENITH is from the planned.

    Those that a task has no evaluation at are "-".
    """
    base = section.reference
    tables = [_stops(column.paired, base) for column in section.columns]
    return noted("\n\n".join(tables), _NOTE.format(COOLDOWN))


def shares(section: Section) -> str:
    """Return the share of noise at each point where it was measured, by task and row."""
    return noted("\n\n".join(_shares(column) for column in section.columns), _SHARES)


def planned_for(column: Column, name: str, stop: float) -> dict[int, float]:
    """Return the accuracy of each seed at the end of the runs of a name planned for that stop."""
    return _planned_at(column, _plans(column).get(name, {}))[STOPS.index(stop)]


def _stops(column: Column, base: str | None) -> str:
    plans = {name: _planned_at(column, ends) for name, ends in _plans(column).items()}
    found = {
        (row, measure): [at_stop(column, row, measure, stop) for stop in STOPS]
        for row in column.runs
        if not planned(column, row)
        for measure in STOPPED
    }
    most = max((len(own) for across in found.values() for own in across), default=0)
    rows = [
        [label(row), *_line(measure, across, most)]
        for (row, measure), across in found.items()
        if any(across)
    ]
    for name, across in plans.items():
        rows.append([_called(name), *_line("test_accuracy", across, most)])
        rows += [
            [f"{label(row)} against it", STOPPED[measure], *map(_difference, ours, across)]
            for (row, measure), ours in found.items()
            if row == base and any(ours)
        ]
    seeds = len({seed for own in column.runs.values() for seed in own})
    head = [f"{column.title}, {seeds} seed{'s' * (seeds != 1)}", "how"]
    return grid([*head, *(f"{stop} %" for stop in STOPS)], rows, words=2)


def _line(measure: str, across: Sequence[Mapping[int, float]], most: int) -> list[str]:
    """How a measure was come by, with the number of seeds where others have more, and the means."""
    count = max(map(len, across))
    how = STOPPED[measure] + (f", {count} seeds" if count < most else "")
    return [how, *(spread([*own.values()]) for own in across)]


def _shares(column: Column) -> str:
    every = [run for own in column.runs.values() for run in own.values()]
    points = sorted(
        {_share(column, at) for run in every for at in run.evals if "noise_share" in at}
    )
    rows = []
    for row, runs in column.runs.items():
        lines = {
            point: [at for run in runs.values() for at in run.evals if _share(column, at) == point]
            for point in points
        }
        values = [[at.get("noise_share") for at in lines[point]] for point in points]
        rows.append([label(row), *(spread(own, ".3f") for own in values)])
    return grid([column.title, *(f"{point:.3g} %" for point in points)], rows)


def _whole(column: Column) -> float:
    """The epochs of the longest run of a task, as far as its records and names go; else 1."""
    every = [run.header for own in column.runs.values() for run in own.values()]
    names = [float(parsed(row)[1].get("epochs", 0)) for row in column.runs]
    return float(max([*names, *(header["epochs"] * header["segments"] for header in every)])) or 1.0


def _share(column: Column, at: Record) -> float:
    """What part of the whole run lies before an evaluation, in percent."""
    return round(100 * float(at["epoch"]) / _whole(column), 3)


def _stopped(column: Column, run: Records, measure: str) -> Records:
    """The run with the stop at which each evaluation has the measure."""
    later = COOLDOWN if measure.startswith("cooldown") else 0
    return run._replace(evals=[at | {"stop": _share(column, at) + later} for at in run.evals])


def at_stop(column: Column, row: str, measure: str, stop: float) -> dict[int, float]:
    """Return a measure of each seed at a stop, one of `STOPPED` at one of `STOPS`."""
    found = {}
    for seed, run in column.runs[row].items():
        evals = _stopped(column, run, measure).evals
        lines = [at for at in evals if abs(at["stop"] - stop) <= _NEAR and measure in at]
        if (value := valued(run, lines, measure)) is not None:
            found[seed] = value
    return found


def _plans(column: Column) -> Mapping[str, Mapping[float, str]]:
    """Of what was planned for several stops: by the name without it, the rows by their stops."""
    found: dict[str, dict[float, str]] = defaultdict(dict)
    for row in column.runs:
        slug, options = parsed(row)
        epochs = float(options.pop("epochs", _whole(column)))
        found[named(slug, options)][round(100 * epochs / _whole(column), 3)] = row
    several = {name: ends for name, ends in found.items() if len(ends) > 1}
    return {name: dict(sorted(ends.items())) for name, ends in several.items()}


def _last(column: Column, row: str) -> dict[int, float]:
    """The accuracy of each seed at the end of a run."""
    found = {
        seed: valued(run, run.evals[-1:], "test_accuracy") for seed, run in column.runs[row].items()
    }
    return {seed: value for seed, value in found.items() if value is not None}


def _ends(column: Column, ends: Mapping[float, str]) -> Line:
    """The mean accuracy at the end of each run that was planned to end there."""
    found = {stop: [*_last(column, row).values()] for stop, row in ends.items()}
    points = [(stop, fmean(own)) for stop, own in found.items() if own]
    x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return x, y


def _planned_at(column: Column, ends: Mapping[float, str]) -> list[dict[int, float]]:
    near = [[row for end, row in ends.items() if abs(end - stop) <= _NEAR] for stop in STOPS]
    return [_last(column, rows[0]) if rows else {} for rows in near]


def _called(name: str) -> str:
    return f"{label(name)}, planned for each stop"


def _difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    both = paired(ours, theirs)
    return shown(effect(both)) if both else "-"
