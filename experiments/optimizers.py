"""Every optimizer of the experiments, by the name that the command line and paths have for it.

The published package is used where there is one that does what its paper says, with the settings
that its authors recommend, and is imported when the optimizer is built. A rate is 0.1 by default
where one is taken, as in the ZENITH paper. `tests/experiments` holds a step of each against numbers
worked out by hand.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Literal, NamedTuple

from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR

from experiments import rivals
from experiments.errors import UserError
from zenith.torch import Zenith

__all__ = ["OPTIMIZERS", "Paper", "Recipe", "recipe"]


class Paper(NamedTuple):
    """A row of table 1 of the ZENITH paper: an A100, VGG-19 on CIFAR-10, batch 128."""

    milliseconds: float  # per iteration
    extra: float  # per cent of SGD's iteration
    memory: int  # multiples of the model


def _in_force(optimizer: Any) -> float:
    """The rate at which the last step was made, of the first group."""
    if isinstance(optimizer, Zenith):
        return optimizer.get_last_lr()[0]
    group = optimizer.param_groups[0]  # of a rival, of ALI-G, of any other
    return float(next(group[name] for name in ("rate", "step_size", "lr") if name in group))


class Recipe(NamedTuple):
    """How an optimizer is made, and how it is run.

    Attributes:
        label: its name in tables and pictures.
        build: makes it of a list of parameters and the options; `MODULE:CLASS` in a package that is
            not among the harness' own.
        options: what it takes, with the defaults.
        scheduler: makes what plans the rate, of the optimizer and the steps of the whole run.
        planned: when the scheduler steps: after every `"step"`, or after every `"segment"`, on the
            validation loss, or the training loss where a task has none.
        averages: whether it is tested at other weights than it is trained at: `eval()`, `train()`.
        rate: the rate in force, of the first group; NaN where there is no single one.
        color: of its lines.
        dash: of its lines, to tell them apart without colours.
        paper: its row of table 1.
        lr_name: what `build` calls the option `lr`.
    """

    label: str
    build: Callable[..., Any] | str
    options: Mapping[str, float]
    scheduler: Callable[[Any, int], Any] | None = None
    planned: Literal["step", "segment"] = "step"
    averages: bool = False
    rate: Callable[[Any], float] = _in_force
    color: str = "0.5"
    dash: str = "-"
    paper: Paper | None = None
    lr_name: str = "lr"

    @property
    def needs(self) -> str | None:
        """The module that `build` imports."""
        return self.build.partition(":")[0] if isinstance(self.build, str) else None

    def takes(self) -> Mapping[str, float]:
        """The options and their defaults."""
        return self.options

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the options that are not as by default."""
        asked = {**self.options, **options}
        return {name: asked[name] for name, value in self.options.items() if asked[name] != value}

    def make(self, params: Iterable[Any], steps: int, options: Mapping[str, Any]) -> Any:
        """Return the optimizer, and its scheduler or None.

        Args:
            params: the parameters.
            steps: the horizon, for those that must know it.
            options: of `takes`.
        """
        build: Any = self.build
        if self.needs:
            build = getattr(import_module(self.needs), build.partition(":")[2])
        given = {**self.options, **options}
        if "lr" in given:
            given[self.lr_name] = given.pop("lr")
        optimizer = build(list(params), **given)
        if self.averages:
            optimizer.train()
        return optimizer, self.scheduler(optimizer, steps) if self.scheduler else None


def recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a name.

    Raises:
        UserError: if there is none, or it does not take one of the options.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    found = OPTIMIZERS[name]
    if wrong := sorted(set(options) - set(found.takes())):
        taken = ", ".join(f"--{option}" for option in sorted(found.takes())) or "no option"
        raise UserError(f"`--{wrong[0]}` is no option of {name}, which takes {taken}")
    return found


def _tenthed_twice(optimizer: Any, steps: int) -> Any:
    return StepLR(optimizer, max(1, steps // 3))


def _none(optimizer: Any) -> float:
    return float("nan")


def _of_dog(optimizer: Any) -> float:
    return float(optimizer.param_groups[0]["eta"][0])


def _adapted(optimizer: Any) -> float:
    group = optimizer.param_groups[0]
    return float(group["d"] * group["lr"])


_LR = {"lr": 0.1}
_SGD = {"lr": 0.1, "momentum": 0.0}

OPTIMIZERS = {
    "sgd": Recipe("SGD", SGD, _SGD, color="#D55E00", dash="--", paper=Paper(17.24, 0.0, 0)),
    "pal": Recipe("PAL", rivals.PAL, {}, paper=Paper(25.86, 49.99, 1)),
    "lqa": Recipe("LQA", rivals.LQA, _LR, paper=Paper(81.45, 372.3, 5)),
    "gen": Recipe("GeN", rivals.GeN, _LR, paper=Paper(22.29, 29.25, 1)),
    "cocob": Recipe("COCOB", "parameterfree:COCOB", {}, rate=_none, paper=Paper(25.95, 50.49, 5)),
    "dog": Recipe("DoG", "dog:DoG", {}, rate=_of_dog, paper=Paper(19.98, 15.86, 1)),
    "dowg": Recipe("DoWG", rivals.DoWG, {}, paper=Paper(22.06, 27.91, 1)),
    "d-adaptation": Recipe(
        "D-Adaptation", "dadaptation:DAdaptSGD", {}, rate=_adapted, paper=Paper(24.16, 40.12, 3)
    ),
    "prodigy": Recipe(
        "Prodigy", "prodigyopt:Prodigy", {}, rate=_adapted, paper=Paper(29.14, 68.97, 4)
    ),
    "l4": Recipe("L4", rivals.L4, {}, paper=Paper(31.31, 81.55, 2)),
    "ali-g": Recipe(
        "ALI-G", "pytorch_optimizer:AliG", _LR, paper=Paper(20.47, 18.72, 0), lr_name="max_lr"
    ),
    "sps": Recipe("SPS", rivals.SPS, _LR, paper=Paper(20.44, 18.56, 0)),
    "zenith": Recipe(
        "ZENITH",
        Zenith,
        {"lr": 0.1, "window": 500, "momentum": 0.0},
        color="#0072B2",
        paper=Paper(17.47, 1.337, 0),
    ),
    "sgd-cosine": Recipe("SGD + cosine", SGD, _SGD, CosineAnnealingLR, color="#009E73", dash="-."),
    "sgd-step": Recipe("SGD + step decay", SGD, _SGD, _tenthed_twice),
    "sgd-plateau": Recipe(
        "SGD + ReduceLROnPlateau", SGD, _SGD, lambda o, _: ReduceLROnPlateau(o), "segment"
    ),
    "schedule-free": Recipe(
        "schedule-free SGD",
        "schedulefree:SGDScheduleFree",
        {"lr": 0.1, "momentum": 0.9},
        averages=True,
    ),
    "adamw-cosine": Recipe(
        "AdamW + cosine", partial(AdamW, weight_decay=0.0), {"lr": 1e-3}, CosineAnnealingLR
    ),
}
