"""Records written by hand, for the tests of the reports."""

import json
from pathlib import Path

from experiments.records import Records
from experiments.report.summary import own_name


def header(optimizer="zenith", seed=0, options=None, l2=0.0, task="digits", segments=2, **others):
    """That of a run of five steps an epoch."""
    return {
        "kind": "run",
        "format": 1,
        "task": task,
        "train_images": 1347,
        "test_images": 450,
        "batch": 8,
        "steps": 5,
        "epochs": 1.0,
        "segments": segments,
        "optimizer": optimizer,
        "seed": seed,
        "options": options or {},
        "l2": l2,
        "hours": None,
        "log_every": 5,
        "parameters": 53002,
        "made": {"threads": seed, "device": "x86_64 of a make"},
    } | others


def made(optimizer="zenith", seed=0, epochs=2, outcome="finished", options=None, **last):
    """The records of a run of two epochs; `last` is of its last evaluation."""
    numbers = {"train_loss": 0.5, "test_accuracy": 90.0, "seconds": 10.0} | last
    evals = [
        {"kind": "eval", "segment": e, "step": 5 * e, "epoch": float(e), **numbers}
        for e in range(1, epochs + 1)
    ]
    steps = [
        {"kind": "step", "step": 5 * e, "loss": 1.0, "lr": 0.1 / e, "seconds": 5.0 * e}
        for e in range(1, epochs + 1)
    ]
    return Records(header(optimizer, seed, options), steps, evals, outcome)


def trained(accuracy=(90.0,), loss=(0.5,), outcome="finished", steps=(), measures=None, **question):
    """The records of a run of 20 evaluations, a second apart.

    Args:
        accuracy: of the evaluations; the last is repeated.
        loss: of training, likewise.
        outcome: of the run.
        steps: what else its `step` lines have.
        measures: what else its `eval` lines have, by name, likewise.
        question: of the header.
    """
    rows = {"train_loss": loss, "test_accuracy": accuracy, **(measures or {})}
    evals = [
        {"kind": "eval", "segment": e, "step": 5 * e, "epoch": float(e), "seconds": float(e)}
        | {name: values[min(e, len(values)) - 1] for name, values in rows.items() if values}
        for e in range(1, 21)
    ]
    lines = [
        {"kind": "step", "step": 5 * e, "loss": 1.0, "seconds": float(e), "grad_norm": 1.0} | line
        for e, line in enumerate(steps, start=1)
    ]
    return Records(header(segments=20, **{"classes": 10} | question), lines, evals, outcome)


def sized(epochs, accuracy, **others):
    """The records of a run that was planned for so many of those 20 evaluations, an epoch each."""
    run = trained(accuracy, sized={"epochs": epochs}, **others)
    return run._replace(header=run.header | {"segments": epochs}, evals=run.evals[:epochs])


def write(folder: Path, *runs: Records) -> Path:
    """Write runs where they belong; return the folder."""
    for run in runs:
        place = folder / run.header["task"] / own_name(run.header)
        place.mkdir(parents=True, exist_ok=True)
        end = [{"kind": "end", "outcome": run.outcome, "step": 100}] if run.outcome else []
        lines = [run.header, *run.steps, *run.evals, *end]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / f"seed-{run.header['seed']}.jsonl").write_text(text)
    return folder
