"""Every table and figure as a list of runs: of the ZENITH paper (arXiv 2601.15212), and beyond.

A study has rows, each a `Question` asked of every task and seed; at `toy` scale all of them are
asked of the digits, for a few steps. Runs that two studies share are made once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, NamedTuple

from experiments.optimizers import BLOCKS
from experiments.pool import Cell
from experiments.run import Question

__all__ = ["LENGTHS", "SCALES", "STUDIES", "Length", "Study", "cells"]

SCALES = ("toy", "desk", "paper")
LINES = 8  # `step` records between two evaluations


class Length(NamedTuple):
    """How long a run of a task is."""

    epochs: int
    steps: int  # of an epoch
    segment: int = 1  # epochs


LENGTHS = {
    "digits": Length(2, 21),  # at toy scale
    "desk-a": Length(100, 32, 5),
    "desk-b": Length(480, 16, 24),
    "desk-c": Length(280, 32, 14),
}
TOY = {"epochs": 2, "batch": 64}
DESK = ("desk-a", "desk-b", "desk-c")
Rows = Callable[[Length], Iterable[Question]]


class Study(NamedTuple):
    """What is run for a table or a figure.

    Attributes:
        title: what it shows.
        paper: what of the paper it is; empty beyond.
        parts: rows, and the tasks they are asked of at `desk` and at `paper` scale.
        seeds: at desk scale; 0, 1, ....
        figures: of `experiments.report.figures`.
        probes: of `experiments.probes`, which measure more at the evaluations.
    """

    title: str
    parts: Sequence[tuple[Rows, Mapping[str, Sequence[str]]]]
    seeds: int = 6
    paper: str = ""
    figures: Sequence[str] = ()
    probes: tuple[str, ...] = ()


def cells(study: Study, scale: str, seeds: int | None = None) -> list[Cell]:
    """Return every run of a study, all seeds of a row before the next row.

    Args:
        study: one of `STUDIES`.
        scale: one of `SCALES`.
        seeds: how many; by default 2 at toy scale, and the study's own at the others.
    """
    count = seeds or (2 if scale == "toy" else study.seeds)
    found = [
        Cell(task, replace(question, seed=seed))
        for rows, tasks in study.parts
        for task in (("digits",) if scale == "toy" else tasks[scale])
        for question in _sized(rows, task, study.probes)
        for seed in range(count)
    ]
    return list(dict.fromkeys(found))


def _sized(rows: Rows, task: str, probes: tuple[str, ...]) -> Iterable[Question]:
    length = LENGTHS[task]
    every = ceil(length.segment * length.steps / LINES)
    for row in rows(length):
        toy = {name: getattr(row, name) or size for name, size in TOY.items()}
        sizes = toy if task == "digits" else {}
        yield replace(row, log_every=every, probes=row.probes or probes, **sizes)


def _of(*names: str, **options: Any) -> list[Question]:
    """One row for each optimizer, with the same options."""
    return [Question(name, options=options) for name in names]


def _block(name: str) -> Rows:
    return lambda _: [Question(slug, options=options) for slug, options in BLOCKS[name]]


def _tuned(_: Length) -> list[Question]:
    """The strong baselines at two more rates, of which validation chooses."""
    names = ("sgd", "sgd-cosine", "sgd-step")
    return [row for lr in (0.03, 0.3) for row in _of(*names, lr=lr)]


def _rates(_: Length) -> list[Question]:
    return [row for lr in (0.004, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7) for row in _of("sgd", lr=lr)]


def _initial_rates(_: Length) -> list[Question]:
    names = ("zenith", "sgd", "sgd-cosine", "sps", "ali-g")
    asked = [row for lr in (0.05, 0.1, 0.15, 0.2, 0.25) for row in _of(*names, lr=lr)]
    return [*asked, *_of("dowg", "d-adaptation")]


def _regularised(_: Length) -> list[Question]:
    names = ("zenith", "dowg", "d-adaptation", "ali-g", "sps", "sgd", "sgd-cosine")
    rows = [Question(name, l2=l2) for l2 in (0.0, 1e-4, 2e-4, 3e-4) for name in names]
    decayed = ("zenith-decay", "zenith-decay-in-norm")
    return [*rows, *(row for x in (1e-4, 2e-4, 3e-4) for row in _of(*decayed, weight_decay=x))]


def _windows(length: Length) -> list[Question]:
    """Those of the paper, as parts of an epoch, which has 390 steps on CIFAR-100."""
    paper = (50, 150, 500, 1500, 5000, 15000)
    windows = sorted({max(1, round(each * length.steps / 390)) for each in paper})
    return [*_of("zenith"), *(row for each in windows for row in _of("zenith", window=each))]


def _stopped(length: Length) -> list[Question]:
    """Stopped at each tenth: as it is, cooled down, averaged; and planned for that moment."""
    branched = [
        Question(name, probes=("average", "cooldown")) for name in ("zenith", "sgd", "sgd-cosine")
    ]
    tenths = sorted({ceil(length.epochs * tenth / 10) for tenth in range(1, 10)})
    planned = [Question("sgd-cosine", epochs=e, probes=("average",)) for e in tenths]
    return [*branched, *(row for row in planned if row.epochs != length.epochs)]


def _batches(_: Length) -> list[Question]:
    sizes = (32, 128, 512, 2048)
    return [Question(name, batch=size) for size in sizes for name in ("zenith", "sgd")]


def _signals(_: Length) -> list[Question]:
    emas = (f"signal-ema-{decay}" for decay in (0.9, 0.99, 0.999))
    signals = ("signal-halves", "signal-successive", "signal-loss", "sasa")
    return _of("zenith", "sgd", "sgd-cosine", *emas, *signals)


def _ablations(_: Length) -> list[Question]:
    return _of(
        "zenith", *(f"ablation-{what}" for what in ("exponential", "first", "late", "layers"))
    )


def _momentum(_: Length) -> list[Question]:
    return _of("zenith", "sgd", "sgd-cosine", momentum=0.9, lr=0.02)


def _adamw(_: Length) -> list[Question]:
    return _of("adamw-zenith", "adamw", "adamw-cosine")


def _clipped(_: Length) -> list[Question]:
    clipped = [
        row for x in (0.3, 1.0, 3.0) for row in _of("zenith-clip", "sgd-clip", max_grad_norm=x)
    ]
    return [*_of("zenith", "sgd"), *clipped]


def _text(_: Length) -> list[Question]:
    return [*_of("zenith", "sgd", "sgd-cosine", lr=1.0), *_adamw(_)]


_PAPER = (
    *("mnist-efficientnet", "cifar10-vgg19", "cifar100-resnet50", "food101-dla"),
    *("tinyimagenet-inception", "imagenet100-densenet121"),
)
_CIFAR100 = ("cifar100-resnet50",)


def _tasks(desk: Sequence[str], paper: Sequence[str] = _CIFAR100) -> dict[str, Sequence[str]]:
    return {"desk": desk, "paper": paper}


STUDIES = {
    "table3": Study(
        "Accuracy and time of every optimizer",
        [
            (_block("A"), _tasks(DESK, _PAPER)),
            (_tuned, _tasks(DESK, _PAPER)),
            (_block("B"), _tasks(("desk-b",), _PAPER)),
        ],
        paper="Table 3, Figures 1, 2, 3d, 3e, 3f",
        figures=("1", "2", "3d", "3e", "3f", "profile"),
        probes=("sharpness", "line"),
    ),
    "figure3a": Study(
        "Rate, sharpness of the minimum and accuracy of SGD",
        [(_rates, _tasks(("desk-a",), _PAPER))],
        paper="Figures 3a, 3b",
        figures=("3a", "3b"),
        probes=("sharpness", "line"),
    ),
    "figure3g": Study(
        "The initial rate",
        [(_initial_rates, _tasks(("desk-a",)))],
        paper="Figures 3g, 3h",
        figures=("3g", "3h"),
    ),
    "table4": Study(
        "L2 regularisation",
        [(_regularised, _tasks(("desk-b",), ("cifar100-resnet50", "food101-dla")))],
        paper="Table 4, Figure 4",
        figures=("4",),
    ),
    "figure6": Study(
        "The window", [(_windows, _tasks(("desk-a",)))], paper="Figure 6", figures=("6",)
    ),
    "horizon": Study("Stopped at any time", [(_stopped, _tasks(DESK))], figures=("horizon",)),
    "noise": Study(
        "How much of the norm is noise",
        [(_batches, _tasks(("desk-a", "desk-c")))],
        seeds=3,
        figures=("noise",),
        probes=("noise",),
    ),
    "signals": Study(
        "What else could set the rate", [(_signals, _tasks(("desk-c", "desk-b")))], seeds=3
    ),
    "ablations": Study("ZENITH otherwise", [(_ablations, _tasks(DESK))], seeds=3),
    "momentum": Study("With momentum", [(_momentum, _tasks(("desk-b", "desk-c")))]),
    "adamw": Study("Over AdamW", [(_adamw, _tasks(DESK))], seeds=3),
    "clipping": Study("With clipped gradients", [(_clipped, _tasks(DESK))], seeds=3),
    "text": Study(
        "The next character of a text",
        [(_text, _tasks(("text-gru", "text-transformer"), ("text-gru", "text-transformer")))],
        seeds=3,
    ),
}
