"""Every table and figure as a list of runs: of the ZENITH paper (arXiv 2601.15212), and beyond.

A study has rows, each a `Question` asked of every task and seed; at `toy` scale all of them are
asked of one small task, for a few steps. Runs that two studies share are made once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, NamedTuple

from experiments.optimizers import BLOCKS, recipe
from experiments.pool import Cell
from experiments.question import Question
from experiments.tasks import DETECTION, PAPER, SCENES, TEXT

__all__ = ["LENGTHS", "STUDIES", "Length", "Study", "cells", "hours"]

LINES = 4  # `step` records between two evaluations


class Length(NamedTuple):
    """How long a run of a task is."""

    epochs: int
    steps: int  # of an epoch
    segment: float = 1  # epochs
    seconds: float = 0.0  # of one core, with SGD; or of a GPU at the most


LENGTHS = {
    "digits": Length(2, 21),  # of a toy
    "desk-a": Length(100, 32, 5, 30),  # these three, and of the scenes: medians in `results`
    "desk-b": Length(480, 16, 24, 85),
    "desk-c": Length(280, 32, 14, 85),
    "text-gru": Length(20, 133, 1, 60),
    "text-transformer": Length(20, 133, 1, 60),
    "scenes-keypoints": Length(12, 125, 1, 71),
    "scenes-instances": Length(12, 125, 1, 73),
    # At paper scale, with the paper's hours instead of measured seconds.
    **{
        name: Length(PAPER[name].epochs, steps, seconds=3600 * PAPER[name].hours)
        for name, steps in zip(PAPER, (421, 351, 351, 532, 703, 890), strict=True)
    },
    **{
        name: Length(DETECTION[name].epochs, 7393, 1 / 3, 3600 * DETECTION[name].hours)
        for name in ("coco-keypoints", "coco-instances")
    },
}
DESK = ("desk-a", "desk-b", "desk-c")
TOYS = {
    "digits": {"epochs": 2, "batch": 64},
    "text-gru": {"epochs": 1},
    **{name: {"epochs": 1} for name in SCENES},
}
PROBED = ("zenith", "sgd", "sgd-cosine")  # of a toy, of which the others have no probes
Rows = Callable[[Length], Iterable[Question]]


class Part(NamedTuple):
    """Rows of a study.

    Attributes:
        rows: what is asked.
        tasks: of which, at each scale.
        probes: of `experiments.probes`, which measure more at the evaluations.
        seeds: how many; 0, 1, ....
        desk: how many at desk scale, where these are fewer.
    """

    rows: Rows
    tasks: Mapping[str, Sequence[str]]
    probes: tuple[str, ...] = ()
    seeds: int = 6
    desk: int | None = None

    def count(self, scale: str) -> int:
        """Return how many seeds it has."""
        own = {"toy": 2, "desk": self.desk}.get(scale)
        return own or self.seeds


class Study(NamedTuple):
    """What is run for a table or a figure.

    Attributes:
        title: what it shows.
        parts: what is asked of which tasks; of a row that is in two, the first counts.
        paper: what of the paper it is; empty beyond.
        shown: the tables and figures of its report, see `experiments.report.study`.
        best_rate: optimizers which are shown at the best of their rates too.
    """

    title: str
    parts: Sequence[Part]
    paper: str = ""
    shown: Sequence[str] = ("comparison", "lead", "figure1", "figure3f", "details")
    best_rate: Sequence[str] = ()

    @property
    def apart(self) -> bool:
        """Whether the blocks of `BLOCKS` are what it is about, which are never compared."""
        return "table3" in self.shown


def cells(name: str, scale: str, seeds: int | None = None) -> list[Cell]:
    """Return every run of a study, all seeds of a row before the next row.

    Args:
        name: of `STUDIES`.
        scale: `toy`, `desk` or `paper`.
        seeds: how many; by default 2 at toy scale, and those of the study at the others.
    """
    wanted = _wanted(scale)
    return [
        Cell(
            task,
            replace(row, seed=seed, probes=tuple(sorted(wanted[task, row.name]))),
            (row.epochs or LENGTHS[task].epochs) * LENGTHS[task].steps,
        )
        for (task, _), (row, part) in _asked(STUDIES[name], scale).items()
        for seed in range(seeds or part.count(scale))
    ]


def hours(asked: Iterable[Cell]) -> float:
    """Return how long runs take together, each as if it were SGD's; of paper scale, at the most."""
    lengths = ((LENGTHS[cell.task], cell.question.epochs) for cell in asked)
    return sum(own.seconds * (epochs or own.epochs) / own.epochs for own, epochs in lengths) / 3600


def _wanted(scale: str) -> Mapping[tuple[str, str], set[str]]:
    """By task and name, the probes of all studies that share the run."""
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for study in STUDIES.values():
        for key, (row, part) in _asked(study, scale).items():
            wanted[key] |= {*part.probes} if scale != "toy" or row.optimizer in PROBED else set()
    return wanted


def _asked(study: Study, scale: str) -> dict[tuple[str, str], tuple[Question, Part]]:
    """The rows of a study by task and name, in their order, each with its part."""
    found: dict[tuple[str, str], tuple[Question, Part]] = {}
    for part in study.parts:
        for task in part.tasks[scale]:
            for row in _sized(part.rows, task, TOYS.get(task, {}) if scale == "toy" else {}):
                found.setdefault((task, row.name), (row, part))
    return found


def _sized(rows: Rows, task: str, toy: Mapping[str, int]) -> Iterator[Question]:
    length = LENGTHS[task]
    log_every = ceil(length.segment * length.steps / LINES)
    for row in rows(length):
        size = {name: getattr(row, name) or value for name, value in toy.items()}
        yield replace(row, log_every=log_every, **size)  # type: ignore[arg-type]


def _of(*names: str, **options: Any) -> list[Question]:
    """One row for each optimizer, with the same options, of which a path names no default."""
    return [Question(name, options=recipe(name, options).chosen(options)) for name in names]


def _claimed(_: Length) -> list[Question]:
    return _of("zenith", "sgd", "sgd-cosine")


def _block(name: str) -> Rows:
    return lambda _: [row for slug, options in BLOCKS[name] for row in _of(slug, **options)]


def _tuned(_: Length) -> list[Question]:
    """The strong baselines at two more rates, of which validation chooses."""
    names = ("sgd", "sgd-cosine", "sgd-step")
    return [row for lr in (0.03, 0.3) for row in _of(*names, lr=lr)]


def _rates(_: Length) -> list[Question]:
    return [row for lr in (0.004, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7) for row in _of("sgd", lr=lr)]


def _initial_rates(*rates: float) -> Rows:
    names = ("zenith", "sgd", "sgd-cosine", "sps", "ali-g")
    asked = [row for lr in rates for row in _of(*names, lr=lr)]
    return lambda _: [*asked, *_of("dowg", "d-adaptation")]


def _regularised(names: Sequence[str], *strengths: float) -> Rows:
    """Optimizers with L2 of so much."""
    rows = [Question(name, l2=l2) for l2 in strengths for name in names]
    return lambda _: rows


def _decayed(_: Length) -> list[Question]:
    return _of("zenith-decay", "zenith-decay-in-norm", weight_decay=3e-4)


def _windows(epoch: int) -> Rows:
    """Those of the paper, as parts of an epoch, which has so many steps there."""

    def rows(length: Length) -> list[Question]:
        paper = (50, 150, 500, 1500, 5000, 15000)
        windows = sorted({max(1, round(each * length.steps / epoch)) for each in paper})
        return [*_of("zenith"), *(row for each in windows for row in _of("zenith", window=each))]

    return rows


def _planned(parts: int) -> Rows:
    """Planned to end at each of so many equal parts of the run."""

    def rows(length: Length) -> list[Question]:
        ends = {ceil(length.epochs * part / parts) for part in range(1, parts)} - {length.epochs}
        return [Question("sgd-cosine", epochs=epochs) for epochs in sorted(ends)]

    return rows


def _batches(*sizes: int) -> Rows:
    """Batches of so many examples, of which an epoch has two at least."""

    def rows(length: Length) -> list[Question]:
        fitting = [size for size in sizes if size <= 64 * length.steps]
        asked = [None if size == 128 else size for size in fitting]  # 128 is the tasks' own
        return [Question("zenith", batch=size) for size in asked]

    return rows


def _signals(_: Length) -> list[Question]:
    return [*_claimed(_), *_of("signal-halves", "signal-loss", "sasa")]


def _more_signals(_: Length) -> list[Question]:
    emas = (f"signal-ema-{decay}" for decay in (0.9, 0.99, 0.999))
    return _of(*emas, "signal-successive")


def _ablations(_: Length) -> list[Question]:
    return _of(
        "zenith", *(f"ablation-{what}" for what in ("exponential", "first", "late", "layers"))
    )


def _momentum(_: Length) -> list[Question]:
    return _of("zenith", "sgd", "sgd-cosine", momentum=0.9, lr=0.02)


def _adamw(_: Length) -> list[Question]:
    return _of("adamw-zenith", "adamw", "adamw-cosine")


def _clipped(*norms: float) -> Rows:
    names = ("zenith-clip", "sgd-clip")
    clipped = [row for norm in norms for row in _of(*names, max_grad_norm=norm)]
    return lambda _: [*_of("zenith", "sgd"), *clipped]


def _detected(_: Length) -> list[Question]:
    rivals = ("pal", "gen", "cocob", "dog", "d-adaptation")
    return _of("zenith", "sgd", "sgd-cosine", *rivals)


def _detected_with_a_window_to_scale(length: Length) -> list[Question]:
    """Such a part of an epoch as the paper's 500 is of COCO's."""
    window = round(500 / LENGTHS["coco-keypoints"].steps * length.steps)
    return [*_of("zenith", "sgd", "sgd-cosine"), *_of("zenith", window=window)]


def _text(_: Length) -> list[Question]:
    return [*_of("zenith", "sgd", "sgd-cosine", lr=1.0), *_adamw(_)]


_PAPER = tuple(PAPER)
_CIFAR100 = ("cifar100-resnet50",)
_TABLE4 = ("cifar100-resnet50", "food101-dla")
_OF_TABLE4 = ("zenith", "dowg", "d-adaptation", "ali-g", "sps", "sgd", "sgd-cosine")


def _tasks(
    desk: Sequence[str], paper: Sequence[str] = _CIFAR100, toy: Sequence[str] = ("digits",)
) -> dict[str, Sequence[str]]:
    return {"toy": toy, "desk": desk, "paper": paper}


STUDIES = {
    "claims": Study(
        "The primary claims",
        [
            Part(_claimed, _tasks(("desk-a",)), ("average", "cooldown", "sharpness"), 10),
            Part(_claimed, _tasks(("desk-b", "desk-c"), (), ()), ("average", "cooldown"), 10),
            Part(_regularised(("zenith", "sgd"), 0.0, 3e-4), _tasks(("desk-b",)), seeds=10),
        ],
        shown=("claims", "comparison", "figure1", "figure2", "figure3f", "details"),
    ),
    "table3": Study(
        "Accuracy and time of every optimizer",
        [
            Part(_claimed, _tasks(("desk-a",), _PAPER), ("sharpness", "line"), 10),
            Part(_claimed, _tasks(("desk-b",), (), ()), seeds=10),
            Part(_block("A"), _tasks(("desk-a",), _PAPER), ("sharpness", "line")),
            Part(_block("A"), _tasks(("desk-b",), (), ()), desk=3),
            Part(_tuned, _tasks(("desk-a",), _PAPER), desk=3),
            Part(_block("B"), _tasks(("desk-b",), _PAPER), desk=3),
        ],
        paper="Table 3, Figures 1, 2, 3d, 3e, 3f",
        shown=(
            *("table3", "lead", "figure1", "figure2", "figure3d", "figure3e", "correlations"),
            *("figure3f", "profile", "details", "settings"),
        ),
        best_rate=("sgd", "sgd-cosine", "sgd-step"),
    ),
    "figure3a": Study(
        "Rate, sharpness of the minimum and accuracy of SGD",
        [Part(_rates, _tasks(("desk-a",), _PAPER), ("sharpness",), desk=3)],
        paper="Figures 3a, 3b",
        shown=("figure3ab", "correlations", "details"),
    ),
    "figure3g": Study(
        "The initial rate",
        [
            Part(_initial_rates(0.05, 0.1, 0.25), _tasks(("desk-a",), ()), desk=3),
            Part(_initial_rates(0.05, 0.1, 0.15, 0.2, 0.25), _tasks((), toy=())),
        ],
        paper="Figures 3g, 3h",
        shown=("figure3gh", "comparison", "lead", "details"),
    ),
    "table4": Study(
        "L2 regularisation",
        [
            Part(_regularised(("zenith", "sgd"), 0.0, 3e-4), _tasks(("desk-b",), ()), seeds=10),
            Part(_regularised(("zenith", "sgd"), 1e-4), _tasks(("desk-b",), ()), desk=3),
            Part(_regularised(_OF_TABLE4, 0.0, 3e-4), _tasks(("desk-b",), ()), desk=3),
            Part(_regularised(_OF_TABLE4, 0.0, 1e-4, 2e-4, 3e-4), _tasks((), _TABLE4)),
            Part(_decayed, _tasks(("desk-b",), _TABLE4), desk=3),
        ],
        paper="Table 4, Figure 4",
        shown=("table4", "lead", "figure4", "details"),
    ),
    "table5": Study(
        "Detection and segmentation",
        [Part(_detected, _tasks(SCENES, ("coco-keypoints", "coco-instances"), SCENES))],
        paper="Table 5, Figure 5",
        shown=("table5", "detection", "figure5", "figure2", "figure3f", "details"),
    ),
    "table5-window": Study(
        "Detection and segmentation with a window to scale",
        [Part(_detected_with_a_window_to_scale, _tasks(SCENES, (), SCENES), desk=3)],
        shown=("comparison", "lead", "figure3f", "details"),
    ),
    "figure6": Study(
        "The window",
        [
            Part(_windows(390), _tasks(("desk-a",), ())),
            Part(_windows(LENGTHS["cifar100-resnet50"].steps), _tasks((), toy=())),
        ],
        paper="Figure 6",
        shown=("figure6", "comparison", "details"),
    ),
    "horizon": Study(
        "Stopped at any time",
        [
            Part(_claimed, _tasks(DESK), ("average", "cooldown"), 10),
            Part(_planned(5), _tasks(DESK)),
            Part(_planned(10), _tasks(())),
        ],
        shown=("horizon", "stops", "comparison", "details"),
    ),
    "noise": Study(
        "How much of the norm is noise",
        [
            Part(_batches(128, 512, 2048), _tasks(("desk-a", "desk-c"), ()), ("noise",), 3),
            Part(_batches(32, 128, 512, 2048), _tasks(()), ("noise",), 3),
        ],
        shown=("noise", "shares", "comparison", "details"),
    ),
    "signals": Study(
        "What else could set the rate",
        [
            Part(_signals, _tasks(("desk-c", "desk-b")), desk=3),
            Part(_more_signals, _tasks(())),
        ],
    ),
    "ablations": Study(
        "ZENITH otherwise", [Part(_ablations, _tasks(("desk-a", "desk-b")), desk=3)]
    ),
    "momentum": Study("With momentum", [Part(_momentum, _tasks(("desk-b",)), desk=3)]),
    "adamw": Study("Over AdamW", [Part(_adamw, _tasks(("desk-a", "desk-b")), desk=3)]),
    "clipping": Study(
        "With clipped gradients",
        [
            Part(_clipped(1.0), _tasks(("desk-b",)), desk=3),
            Part(_clipped(0.3, 3.0), _tasks(())),
        ],
    ),
    "text": Study(
        "The next character of a text",
        [Part(_text, _tasks(("text-transformer",), TEXT, ("text-gru",)), desk=3)],
    ),
}
STUDIES["secondary"] = Study(
    "The secondary claims",
    [
        part
        for name, study in STUDIES.items()
        if name not in ("claims", "table5", "table5-window")
        for part in study.parts
    ],
    shown=("secondary",),
)
