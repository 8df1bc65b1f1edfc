"""The numbers of the table: means over the seeds, from the records alone."""

import statistics
from collections.abc import Sequence
from typing import Any

from zenith.demo.records import Record, of_kind, rounded

MEASURES = ("test_accuracy", "train_loss", "lr", "seconds", "step_ms")


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Return what the records come to.

    After an interruption only the seeds that came furthest count: those that finished every epoch,
    or else the one that was under way.

    Args:
        records: all records of a run, the header first.

    Returns:
        `run` (the header), `seeds` (those that count), `epochs` (how many they finished) and, for
        each of the `optimizers`, the `mean` and sample standard deviation `std` (null for one seed)
        of each of `MEASURES`, the number of seeds whose loss `diverged`, and `overhead_percent`
        (the mean over the seeds of each quartile; null without `sgd` to compare with). The mean of
        numbers one of which is null is null.
    """
    header = records[0]
    results = [record for record in records if record["kind"] == "result"]
    epochs = max((result["epoch"] for result in results), default=0)
    counted = [result for result in results if result["epoch"] == epochs]
    rows = {name: _row(of_kind(counted, "result", name)) for name in header["optimizers"]}
    seeds = sorted({result["seed"] for result in counted})
    return {"run": header, "seeds": seeds, "epochs": epochs, "optimizers": rounded(rows)}


def _row(results: Sequence[Record]) -> Record:
    row = {measure: _spread([r[measure] for r in results]) for measure in MEASURES}
    diverged = sum(result["train_loss"] is None for result in results)
    overheads = [r["overhead_percent"] for r in results if r["overhead_percent"] is not None]
    return {**row, "diverged": diverged, "overhead_percent": _quartiles(overheads)}


def _spread(values: Sequence[float | None]) -> Record:
    """The mean and the sample standard deviation."""
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return {"mean": None, "std": None}
    std = statistics.stdev(numbers) if len(numbers) > 1 else None
    return {"mean": statistics.fmean(numbers), "std": std}


def _quartiles(overheads: Sequence[Record]) -> Record | None:
    names = ("q1", "median", "q3")
    if not overheads:
        return None
    return {name: statistics.fmean(overhead[name] for overhead in overheads) for name in names}
