"""What a step costs as the work grows: with the parameters, with the tensors, with the window.

SGD and ZENITH, both fused, step the same random parameters side by side.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.optim import SGD

from experiments.cost.cases import Document
from experiments.cost.paired import differences, interleaved, quartiles, ratios, spread
from experiments.cost.step import LR, Variant, filled, subject, timed
from experiments.cost.timed import machine
from experiments.markdown import grid

__all__ = ["AXES", "draw", "measure", "table"]


class Case(NamedTuple):
    """One size of work."""

    parameters: int = 1_000_000
    tensors: int = 20
    window: int = 500


AXES = {
    "parameters": (10**4, 10**5, 10**6, 10**7, 10**8),
    "tensors": (10, 50, 200, 1000, 5000),
    "window": (50, 500, 1500, 5000, 15_000),
}


def measure(options: Any) -> Document:
    """Return microseconds a step of both optimizers for every case."""
    return {
        "made": machine(options),
        "axes": {
            axis: [
                {axis: getattr(case, axis), **_timed(case, options.repetitions)}
                for case in _cases(axis, options.largest)
            ]
            for axis in AXES
        },
    }


def _cases(axis: str, largest: int) -> Iterator[Case]:
    for value in AXES[axis]:
        if value <= largest:
            yield Case(**{"parameters": min(Case().parameters, largest), axis: value})


def _timed(case: Case, repetitions: int) -> dict[str, list[float]]:
    sub = subject([(case.parameters // case.tensors,)] * case.tensors)
    own = filled(sub.params, window=case.window, fused=True)
    runs = {"SGD": SGD(sub.params, lr=LR, fused=True).step, "ZENITH": own.step}
    steps = max(3, min(100, 2 * 10**7 // case.parameters))
    timings = {
        name: timed(Variant(name, "SGD", run), steps, max(1, steps // 10), torch.device("cpu"))
        for name, run in runs.items()
    }
    samples = interleaved(timings, repetitions)
    return {name: [1e3 * value for value in values] for name, values in samples.items()}


def table(document: Document) -> str:
    """The document as tables in Markdown, one for each axis."""
    return "\n\n".join(
        grid([axis, "SGD, us", "ZENITH, us", "ratio", "over SGD, us"], map(_row, rows))
        for axis, rows in document["axes"].items()
    )


def _row(row: Document) -> list[str]:
    value, sgd, ours = row.values()
    medians = [f"{quartiles(times)['median']:.0f}" for times in (sgd, ours)]
    return [f"{value:,}", *medians, spread(ratios(ours, sgd), 2), spread(differences(ours, sgd), 0)]


def draw(document: Document) -> Any:
    """The time of a step over each axis: a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, len(AXES))
    for axes, (axis, rows) in zip(panels, document["axes"].items(), strict=True):
        for name in ("SGD", "ZENITH"):
            medians = [quartiles(row[name])["median"] for row in rows]
            axes.loglog([row[axis] for row in rows], medians, "o-", label=name)
        axes.set_xlabel(axis)
        axes.set_ylim(bottom=10)
    panels[0].set_ylabel("microseconds a step")
    panels[0].legend()
    return figure
