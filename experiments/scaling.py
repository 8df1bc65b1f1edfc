"""What a step costs as the work grows: with the parameters, with the tensors, with the window.

SGD and ZENITH, both fused, step the same random parameters side by side, as `benchmarks.step` does.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.optim import SGD

from benchmarks.quartiles import quartiles, ratios, spread
from benchmarks.step import LR, Model, Variant, filled, measure, subject
from zenith.torch import Zenith

__all__ = ["AXES", "measured", "table", "write"]


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


def measured(repetitions: int, largest: int = 10**8) -> dict[str, Any]:
    """Return microseconds a step of both optimizers for every case, as `json` can write them.

    Args:
        repetitions: how often both are timed, one after the other.
        largest: leave out the cases of more parameters, tensors or window than this.
    """
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "axes": {
            axis: [_timed(axis, case, repetitions) for case in _cases(axis, largest)]
            for axis in AXES
        },
    }


def _cases(axis: str, largest: int) -> Iterator[Case]:
    for value in AXES[axis]:
        if value <= largest:
            yield Case(**{"parameters": min(Case().parameters, largest), axis: value})


def _timed(axis: str, case: Case, repetitions: int) -> dict[str, Any]:
    sub = subject([(case.parameters // case.tensors,)] * case.tensors, torch.device("cpu"))
    own = Zenith(sub.params, lr=LR, window=case.window, fused=True)
    variants = [
        Variant("SGD", "SGD", SGD(sub.params, lr=LR, fused=True).step),
        Variant("ZENITH", "SGD", filled(own, sub.norm).step),
    ]
    steps = max(3, min(100, 2 * 10**7 // case.parameters))
    model = Model([], steps=steps, warm_up=max(1, steps // 10), targets={})
    samples = measure(model, variants, repetitions, torch.device("cpu"))
    return {axis: getattr(case, axis), **samples}


def table(document: dict[str, Any]) -> str:
    """The document as tables in Markdown, one for each axis."""
    lines = []
    for axis, rows in document["axes"].items():
        lines += [f"| {axis} | SGD, us | ZENITH, us | ratio |", "|--:|--:|--:|--:|"]
        for row in rows:
            sgd, ours = (quartiles(row[name])["median"] for name in ("SGD", "ZENITH"))
            ratio = spread(ratios(row["ZENITH"], row["SGD"]), 2)
            lines.append(f"| {row[axis]:,} | {sgd:.0f} | {ours:.0f} | {ratio} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def write(document: dict[str, Any], folder: Path) -> None:
    """Write the figures, the tables and the picture."""
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scaling.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "scaling.md").write_text(table(document) + "\n")
    fig, panels = plt.subplots(1, len(AXES), figsize=(12, 3.6), layout="constrained")
    for axes, (axis, rows) in zip(panels, document["axes"].items(), strict=True):
        for name in ("SGD", "ZENITH"):
            medians = [quartiles(row[name])["median"] for row in rows]
            axes.loglog([row[axis] for row in rows], medians, "o-", label=name)
        axes.set_xlabel(axis)
        axes.set_ylim(bottom=10)
    panels[0].set_ylabel("microseconds a step")
    panels[0].legend()
    fig.savefig(folder / "scaling.png", dpi=120)
    plt.close(fig)
