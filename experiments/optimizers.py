"""Every optimizer of the experiments, by the name that the command line and paths have for it.

The published package is used where there is one that does what its paper says, with the settings
that its authors recommend, and is imported when the optimizer is built. What `build` takes besides
the parameters are the optimizer's options, with their defaults: 0.1 where it takes a rate, as in
the ZENITH paper. `tests/experiments` holds a step of each against numbers worked out by hand.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
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
        build: makes it of a list of parameters; its keywords are the optimizer's options.
        scheduler: makes what plans the rate, of the optimizer and the steps of the whole run.
        planned: when the scheduler steps: after every `"step"`, or after every `"segment"`, on the
            validation loss, or the training loss where a task has none.
        averages: whether it is tested at other weights than it is trained at: `eval()`, `train()`.
        rate: the rate in force, of the first group; NaN where there is no single one.
        color: of its lines.
        dash: of its lines, to tell them apart without colours.
        paper: its row of table 1.
        needs: the module that `build` imports, of a package that is not among the harness' own.
    """

    label: str
    build: Callable[..., Any]
    scheduler: Callable[[Any, int], Any] | None = None
    planned: Literal["step", "segment"] = "step"
    averages: bool = False
    rate: Callable[[Any], float] = _in_force
    color: str = "0.5"
    dash: str = "-"
    paper: Paper | None = None
    needs: str | None = None

    def takes(self) -> dict[str, Any]:
        """The options and their defaults."""
        parameters = inspect.signature(self.build).parameters.items()
        return {name: option.default for name, option in parameters if name != "params"}

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the options that are not as by default."""
        defaults = self.takes()
        return {name: value for name, value in options.items() if value != defaults[name]}

    def make(self, params: Iterable[Any], steps: int, options: Mapping[str, Any]) -> Any:
        """Return the optimizer, and its scheduler or None.

        Args:
            params: the parameters.
            steps: the horizon, for those that must know it.
            options: of `takes`.
        """
        optimizer = self.build(list(params), **options)
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


def _zenith(params: Any, lr: float = 0.1, window: int = 500, momentum: float = 0.0) -> Any:
    return Zenith(params, lr=lr, window=window, momentum=momentum)


def _sgd(params: Any, lr: float = 0.1, momentum: float = 0.0) -> Any:
    return torch.optim.SGD(params, lr=lr, momentum=momentum)


def _adamw(params: Any, lr: float = 1e-3) -> Any:
    return torch.optim.AdamW(params, lr=lr, weight_decay=0.0)


def _cocob(params: Any) -> Any:
    from parameterfree import COCOB

    return COCOB(params)


def _dog(params: Any) -> Any:
    from dog import DoG

    return DoG(params)


def _d_adaptation(params: Any) -> Any:
    from dadaptation import DAdaptSGD

    return DAdaptSGD(params)


def _prodigy(params: Any) -> Any:
    from prodigyopt import Prodigy

    return Prodigy(params)


def _ali_g(params: Any, lr: float = 0.1) -> Any:
    from pytorch_optimizer import AliG

    return AliG(params, max_lr=lr)


def _schedule_free(params: Any, lr: float = 0.1, momentum: float = 0.9) -> Any:
    from schedulefree import SGDScheduleFree

    optimizer = SGDScheduleFree(params, lr=lr, momentum=momentum)
    optimizer.train()
    return optimizer


def _lqa(params: Any, lr: float = 0.1) -> Any:
    return rivals.LQA(params, lr)


def _gen(params: Any, lr: float = 0.1) -> Any:
    return rivals.GeN(params, lr)


def _sps(params: Any, lr: float = 0.1) -> Any:
    return rivals.SPS(params, lr)


def _tenthed_twice(optimizer: Any, steps: int) -> Any:
    return StepLR(optimizer, max(1, steps // 3))


def _adapted(optimizer: Any) -> float:
    group = optimizer.param_groups[0]
    return float(group["d"] * group["lr"])


OPTIMIZERS = {
    "sgd": Recipe("SGD", _sgd, color="#D55E00", dash="--", paper=Paper(17.24, 0.0, 0)),
    "pal": Recipe("PAL", lambda params: rivals.PAL(params), paper=Paper(25.86, 49.99, 1)),
    "lqa": Recipe("LQA", _lqa, paper=Paper(81.45, 372.3, 5)),
    "gen": Recipe("GeN", _gen, paper=Paper(22.29, 29.25, 1)),
    "cocob": Recipe(
        "COCOB",
        _cocob,
        rate=lambda optimizer: float("nan"),
        paper=Paper(25.95, 50.49, 5),
        needs="parameterfree",
    ),
    "dog": Recipe(
        "DoG",
        _dog,
        rate=lambda optimizer: float(optimizer.param_groups[0]["eta"][0]),
        paper=Paper(19.98, 15.86, 1),
        needs="dog",
    ),
    "dowg": Recipe("DoWG", lambda params: rivals.DoWG(params), paper=Paper(22.06, 27.91, 1)),
    "d-adaptation": Recipe(
        "D-Adaptation",
        _d_adaptation,
        rate=_adapted,
        paper=Paper(24.16, 40.12, 3),
        needs="dadaptation",
    ),
    "prodigy": Recipe(
        "Prodigy", _prodigy, rate=_adapted, paper=Paper(29.14, 68.97, 4), needs="prodigyopt"
    ),
    "l4": Recipe("L4", lambda params: rivals.L4(params), paper=Paper(31.31, 81.55, 2)),
    "ali-g": Recipe("ALI-G", _ali_g, paper=Paper(20.47, 18.72, 0), needs="pytorch_optimizer"),
    "sps": Recipe("SPS", _sps, paper=Paper(20.44, 18.56, 0)),
    "zenith": Recipe("ZENITH", _zenith, color="#0072B2", paper=Paper(17.47, 1.337, 0)),
    "sgd-cosine": Recipe("SGD + cosine", _sgd, CosineAnnealingLR, color="#009E73", dash="-."),
    "sgd-step": Recipe("SGD + step decay", _sgd, _tenthed_twice),
    "sgd-plateau": Recipe(
        "SGD + ReduceLROnPlateau", _sgd, lambda o, _: ReduceLROnPlateau(o), "segment"
    ),
    "schedule-free": Recipe(
        "schedule-free SGD", _schedule_free, averages=True, needs="schedulefree"
    ),
    "adamw-cosine": Recipe("AdamW + cosine", _adamw, CosineAnnealingLR),
}
