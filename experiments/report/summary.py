"""The numbers of the table: means over the seeds, from the records alone."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.optimizers import OPTIMIZERS
from experiments.question import Question, parsed
from experiments.records import Record, Records, rounded
from experiments.report.measures import main_measure

__all__ = [
    "ACCURACY",
    "Runs",
    "grouped",
    "judged_by",
    "label",
    "late",
    "overhead",
    "own_name",
    "place",
    "plans",
    "reference",
    "summarise",
]

Runs = Mapping[str, Mapping[int, Records]]  # by the name of the optimizer, and the seed

MEASURES = ("train_loss", "lr", "seconds")  # besides the task's own
ACCURACY = "test_accuracy"
ENDS = ("diverged", "stopped")
# What may differ between runs that stand in one table.
_OWN = {"optimizer", "seed", "options", "l2", "log_every", "made", "parameters"}
_OWN |= {"sized", "amp", "probes"}
_SIZES = {"steps", "epochs", "segments", "batch", "hours"}  # differ where a run was `sized`


def grouped(found: Mapping[Path, Records]) -> Runs:
    """Return the runs of one task: ZENITH first, then as in the registry, then by their options.

    Raises:
        UserError: naming the file, if it is of another question than the others, of an optimizer
            that is not in the registry, or of a run that another file has.
    """
    runs: dict[str, dict[int, Records]] = {}
    for path, run in found.items():
        header = run.header
        if header["optimizer"] not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            raise UserError(
                f"{path}: `optimizer` must be one of {known}, got {header['optimizer']!r}"
            )
        _same(header, next(iter(found.values())).header, path)
        name = own_name(header)
        own = runs.setdefault(name, {})
        if header["seed"] in own:
            raise UserError(f"{path}: `seed` {header['seed']} of {name} is in another file too")
        own[header["seed"]] = run
    return {name: runs[name] for name in sorted(runs, key=place)}


def own_name(header: Record) -> str:
    """Return the name of the run with this header, as its folder has it."""
    return Question.of(header).name


def place(name: str) -> tuple[bool, int, list[tuple[str, float]]]:
    """Return the order of the names: ZENITH first, then as in the registry, then by options.

    Examples:
        >>> sorted(["zenith,window=12", "zenith,window=4", "sgd", "zenith"], key=place)
        ['zenith', 'zenith,window=4', 'zenith,window=12', 'sgd']
    """
    slug, options = parsed(name)
    sizes = [(key, _size(value)) for key, value in options.items()]
    return slug != "zenith", list(OPTIMIZERS).index(slug), sizes


def _size(value: str) -> float:
    """A number; what is none, such as `best`, comes last."""
    try:
        return float(value)
    except ValueError:
        return inf


def _same(header: Record, first: Record, path: Path) -> None:
    sized = _SIZES if "sized" in header.keys() | first.keys() else set()
    for field in sorted((header.keys() | first.keys()) - _OWN - sized):
        if header.get(field) != first.get(field):
            raise UserError(
                f"{path}: `{field}` must be {first.get(field)!r}, as in the other records of the "
                f"folder, got {header.get(field)!r}"
            )


def label(name: str) -> str:
    """Return how tables and pictures call an optimizer: `ZENITH, window=50`."""
    slug, *options = name.split(",")
    return ", ".join([OPTIMIZERS[slug].label, *options])


def plans(name: str) -> bool:
    """Whether an optimizer knows before its first step how long the run is."""
    return OPTIMIZERS[parsed(name)[0]].horizon


def late(name: str, stopped: int, runs: int) -> str:
    """Return a remark on runs whose hours ended before the steps of their plan, or ""."""
    return f"out of time: {stopped} of {runs}" if stopped and plans(name) else ""


def summarise(runs: Runs) -> dict[str, Any]:
    """Return what the records come to.

    After an interruption only the seeds that came furthest count: those with a run that has ended,
    or else the one that was under way. A run that diverged has come as far as it ever will, and its
    measures are null.

    Returns:
        `run` (what the headers have in common), `measure` (the task's own, where that is not
        `test_accuracy`), `seeds` (those that count), `begun` (how many there
        are), `epochs` (the most that one of them has) and, for each of the `optimizers`, `runs`
        (how many of those seeds it has), how many of them `diverged` or `stopped` (the hours ended
        before the steps that were planned), the `mean` and sample standard deviation `std` (null
        for one seed) of the measure and of each of `MEASURES`, and `overhead_percent` (the mean
        over the seeds of each quartile; null without `sgd` to compare with, trained in step with
        it). The mean of numbers one of which is null is null.
    """
    every = [run for own in runs.values() for run in own.values()]
    common = {name: value for name, value in every[0].header.items() if name not in _OWN}
    begun = sorted({run.header["seed"] for run in every})
    measure = judged_by(every)
    reached = {
        seed: _reached([own[seed] for own in runs.values() if seed in own]) for seed in begun
    }
    furthest = max(reached.values())
    seeds = [seed for seed in begun if furthest and reached[seed] == furthest]
    return {
        "run": {**common, "parameters": every[0].header["parameters"]},
        **({"measure": measure} if measure != ACCURACY else {}),
        "seeds": seeds,
        "begun": len(begun),
        "epochs": _evaluations(every, seeds, furthest) * common["epochs"],
        "optimizers": {name: rounded(_row(runs, name, seeds, furthest, measure)) for name in runs},
    }


def _reached(runs: Sequence[Records]) -> int:
    """The segments that the furthest of the runs of a seed has finished; all, if it has ended.

    A run that stops after some hours ends with fewer segments than others, and has ended for that.
    """
    whole: int = runs[0].header["segments"]
    going = [whole if run.outcome else len(run.evals) for run in runs if run.outcome != "diverged"]
    return max(going, default=whole)


def _evaluations(runs: Sequence[Records], seeds: Sequence[int], segments: int) -> int:
    """The most that a run of these seeds has; all where each of them diverged."""
    lasting = [run for run in runs if run.outcome != "diverged" and run.header["seed"] in seeds]
    return max((len(run.evals) for run in lasting), default=segments)


def judged_by(runs: Iterable[Records]) -> str:
    """Return the accuracy; of a task that has none, the first of what it is judged by."""
    named = (main_measure(run) for run in runs if run.evals and ACCURACY not in run.evals[0])
    return next(named, ACCURACY)


def _row(runs: Runs, name: str, seeds: Sequence[int], segments: int, measure: str) -> Record:
    base = reference(runs)
    found = {seed: runs[name][seed] for seed in seeds if seed in runs[name]}
    found = {s: run for s, run in found.items() if run.outcome or len(run.evals) == segments}
    last = [_measures(run) for run in found.values()]
    timed = {seed: run for seed, run in found.items() if name == base or _together(run, base)}
    bases = runs[base] if base else {}
    overheads = [overhead(run, bases[seed]) for seed, run in timed.items() if seed in bases]
    return {
        "runs": len(found),
        **{end: sum(run.outcome == end for run in found.values()) for end in ENDS},
        **{name: _spread([each.get(name) for each in last]) for name in (measure, *MEASURES)},
        "overhead_percent": _quartiles([each for each in overheads if each]),
    }


def reference(names: Iterable[str]) -> str | None:
    """Return the name of the one that the overhead of the others is over: the first of SGD."""
    return next((name for name in names if parsed(name)[0] == "sgd"), None)


def _together(run: Records, name: str | None) -> bool:
    """Whether it was trained in step with the run of this name; where none are named, it was."""
    together = run.header.get("made", {}).get("together")
    return together is None or name in together


def _measures(run: Records) -> Record:
    """What a run has come to at its last evaluation."""
    if run.outcome == "diverged":
        return {}
    last = run.evals[-1]
    rate = next((line["lr"] for line in run.steps if line["step"] == last["step"]), None)
    return {**last, "lr": rate}


def overhead(run: Records, base: Records) -> Record | None:
    """Return by how much longer a run took for its steps than `base` for the same ones.

    Both ran in step with one another. The ratio is taken of what lies between two `step` lines.

    Returns:
        The quartiles of the ratios minus 1, in percent: `q1`, `median` and `q3`; None where there
        is nothing to compare.
    """
    times, reference = _paces(run), _paces(base)
    excess = [
        100 * (time / reference[span] - 1) for span, time in times.items() if reference.get(span)
    ]
    if not excess:
        return None
    cuts = statistics.quantiles(excess, n=4, method="inclusive") if len(excess) > 1 else excess * 3
    return dict(zip(("q1", "median", "q3"), cuts, strict=True))


def _paces(run: Records) -> dict[tuple[int, int], float]:
    """The seconds between one line and the next."""
    return {
        (before["step"], line["step"]): line["seconds"] - before["seconds"]
        for before, line in pairwise(run.steps)
    }


def _spread(values: Sequence[float | None]) -> Record:
    """The mean and the sample standard deviation."""
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return {"mean": None, "std": None}
    std = statistics.stdev(numbers) if len(numbers) > 1 else None
    return {"mean": statistics.fmean(numbers), "std": std}


def _quartiles(overheads: Sequence[Record]) -> Record | None:
    if not overheads:
        return None
    return {name: statistics.fmean(each[name] for each in overheads) for name in overheads[0]}
