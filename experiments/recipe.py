"""What is known of an optimizer: how it is made, what it takes, and how it is run."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from experiments.errors import UserError

__all__ = ["Paper", "Recipe", "Setting"]


class Paper(NamedTuple):
    """A row of table 1 of the ZENITH paper: an A100, VGG-19 on CIFAR-10, batch 128."""

    milliseconds: float  # per iteration
    extra: float  # per cent of SGD's iteration
    memory: int  # multiples of the model


class Setting(NamedTuple):
    """What an optimizer may be told of its run."""

    steps: int  # of the whole run: the horizon
    epoch: float  # steps in an epoch
    batch_norm: bool = False  # whether the network has any


def _in_force(optimizer: Any) -> float:
    """The rate at which the last step was made, of the first group."""
    if hasattr(optimizer, "zenith_metrics"):  # ZENITH, and what is under a ZenithLR
        return float(optimizer.zenith_metrics()["lr"])
    group = optimizer.param_groups[0]  # of a rival, of ALI-G, of schedule-free, of any other
    names = ("rate", "step_size", "scheduled_lr", "lr")
    return float(next(group[name] for name in names if name in group))


def _nothing(setting: Setting) -> Mapping[str, Any]:
    return {}


class Recipe(NamedTuple):
    """How an optimizer is made, and how it is run.

    Attributes:
        label: its name in tables and pictures.
        build: makes it of a list of parameters and the options; `MODULE:CLASS` in a package that is
            not among the harness' own.
        options: what it takes, with the defaults.
        scheduler: makes what plans the rate, of the optimizer and the steps of the whole run.
        planned: when the scheduler steps: after every `"step"`, or after every `"epoch"`, on the
            validation loss, or the training loss where a task has none.
        averages: whether it is tested at other weights than it is trained at: `eval()`, `train()`.
        rate: the rate in force, of the first group; NaN where there is no single one.
        color: of its lines.
        dash: of its lines, to tell them apart without colours.
        paper: its row of table 1.
        lr_name: what `build` calls the option `lr`.
        told: what else `build` is handed, which depends on the run.
        averager: makes of the model what averages its weights after every `step()`, and is tested
            instead: its `averaged_model`. Like `build`.
        horizon: whether it knows before its first step how long the run is.
    """

    label: str
    build: Callable[..., Any] | str
    options: Mapping[str, float]
    scheduler: Callable[[Any, int], Any] | None = None
    planned: Literal["step", "epoch"] = "step"
    averages: bool = False
    rate: Callable[[Any], float] = _in_force
    color: str = "0.5"
    dash: str = "-"
    paper: Paper | None = None
    lr_name: str = "lr"
    told: Callable[[Setting], Mapping[str, Any]] = _nothing
    averager: Callable[[nn.Module], Any] | str | None = None
    horizon: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The module that `build` imports, if it does."""
        return (self.build.partition(":")[0],) if isinstance(self.build, str) else ()

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the options that are not as by default."""
        asked = {**self.options, **options}
        return {name: asked[name] for name, value in self.options.items() if asked[name] != value}

    def make(self, params: Iterable[Any], setting: Setting, options: Mapping[str, Any]) -> Any:
        """Return the optimizer, and its scheduler or None.

        Args:
            params: the parameters.
            setting: of the run.
            options: of those that it takes.
        """
        build = _imported(self.build)
        if self.needs:
            build = _explained(build)
        given = {**self.options, **options, **self.told(setting)}
        if "lr" in given:
            given[self.lr_name] = given.pop("lr")
        optimizer = build(list(params), **given)
        if self.averages:
            optimizer.train()
        return optimizer, self.scheduler(optimizer, setting.steps) if self.scheduler else None

    def average(self, model: nn.Module) -> Any:
        """Return what averages the weights of a model, or None."""
        return _imported(self.averager)(model) if self.averager else None


def _imported(build: Callable[..., Any] | str) -> Any:
    if not isinstance(build, str):
        return build
    module, _, name = build.partition(":")
    return getattr(import_module(module), name)


def _explained(kind: Any) -> Any:
    """The class of a package, whose step says in one line on which gradients it breaks.

    dadaptation 3.2 divides by the norm of the first gradient, and dog 1.0.3 takes no None. Where
    the loss is not finite there is nothing to explain: the run has diverged.
    """

    def step(self: Any, closure: Callable[[], Tensor]) -> Tensor:
        with torch.enable_grad():
            loss = closure()
        try:
            kind.step(self, lambda: loss)
        except (AssertionError, AttributeError, ZeroDivisionError) as error:
            if loss.isfinite():
                name = f"{kind.__name__} of {kind.__module__.partition('.')[0]}"
                rule = "cannot step where gradients are missing or all zero"
                raise UserError(f"{name} {rule} ({error})") from error
        return loss

    return type(kind.__name__, (kind,), {"step": step})
