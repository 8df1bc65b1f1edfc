"""What `param_groups` holds: each group's options, and the schedule where a checkpoint finds it.

The state is in one of the groups at all times, under the names in `KEYS`, as it is between two
steps: plain numbers, or tensors on a device. So a wrapper that shares the groups, and saves them
without knowing of ZENITH, saves the schedule as well. It is never written in place: each step puts
a new state there, and what was saved before stays as it was.
"""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from zenith import core
from zenith.core import ZenithState

__all__ = [
    "KEYS",
    "OWN",
    "checked_options",
    "checked_params",
    "holder_in",
    "plain",
    "put",
    "state_in",
    "take_out",
]

KEYS = tuple(f"zenith_{field}" for field in ZenithState._fields)
OWN = ("window", "max_grad_norm", "nonfinite")  # options of the optimizer, and of no group

_NUMBERS = ("lr", "momentum", "dampening", "weight_decay")
_PLAIN = (float, int, Tensor)
_FLAGS = ("nesterov", "decay_in_norm", "maximize", "foreach", "differentiable", "fused")
# How torch.optim.SGD begins its message where the number is negative.
_AT_LEAST_0 = {"lr": "learning rate", "momentum": "momentum value"}
_AT_LEAST_0["weight_decay"] = "weight_decay value"

Group: TypeAlias = dict[str, Any]


def holder_in(groups: Iterable[Group]) -> Group | None:
    """Return the group that holds the state, if one does."""
    for group in groups:
        if KEYS[0] in group:
            return group
    return None


def state_in(group: Group) -> ZenithState:
    """Return the state that this group holds."""
    return ZenithState(*[group[key] for key in KEYS])


def put(group: Group, state: ZenithState) -> None:
    """Put a state into this group, in place of one that it holds."""
    group.update(zip(KEYS, state))  # noqa: B905 - the check would take as long as the rest


def take_out(groups: Iterable[Group]) -> ZenithState | None:
    """Take the state out of the groups, and return it.

    Raises:
        ValueError: if it lacks a field; then nothing has changed.
    """
    holder = next((group for group in groups if not group.keys().isdisjoint(KEYS)), None)
    if holder is None:
        return None
    if missing := [key for key in KEYS if key not in holder]:
        raise ValueError(f"the state_dict of a Zenith lacks {', '.join(missing)}")
    return ZenithState(*[holder.pop(key) for key in KEYS])


def plain(group: Group) -> Group:
    """Return the group with plain numbers for those of NumPy, which no tensor multiplies."""
    odd = {name: group[name] for name in _NUMBERS if type(group[name]) not in _PLAIN}
    if not odd:
        return group
    if torch.compiler.is_compiling():
        odd.pop("lr", None)  # an input of the graph, which a new rate does not compile anew
    else:  # no range: of a float that a scheduler has put there none is checked either
        for name, value in odd.items():
            _checked_type(name, value)
    odd = {name: float(x) for name, x in odd.items() if not isinstance(x, Tensor)}
    return {**group, **odd}


def checked_params(params: Any) -> None:
    """Refuse what is no collection of parameters.

    Raises:
        TypeError: saying what to pass.
    """
    if isinstance(params, Tensor):
        return  # torch says so itself, or makes a group of it
    if isinstance(params, nn.Module) and not isinstance(params, nn.ParameterList):
        raise TypeError(
            f"`params` must be the parameters of the {type(params).__name__}, not the module "
            "itself: pass its .parameters()"
        )
    if isinstance(params, Mapping | str) or not isinstance(params, Iterable):
        raise TypeError(
            "`params` must be an iterable of tensors, of (name, tensor) pairs or of groups, "
            f"got {type(params).__name__}"
        )


def checked_options(options: Mapping[str, Any]) -> None:
    """Refuse options that nothing can be made of, of the optimizer or of a group.

    Raises:
        TypeError: if one is of another type.
        ValueError: if one is out of its range.
    """
    for name in _NUMBERS:
        if name not in options or isinstance(value := options[name], Tensor):
            continue
        _checked_type(name, value)
        if name in _AT_LEAST_0 and not float(value) >= 0:
            raise ValueError(f"Invalid {_AT_LEAST_0[name]}: {value!r}; `{name}` must be >= 0")
    for name in _FLAGS:
        if name in options and options[name] not in (None, False, True):
            raise TypeError(f"`{name}` must be True or False, got {options[name]!r}")
    _check_own(options.get("max_grad_norm"), options.get("nonfinite", "skip"))


def _checked_type(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        return
    number = value.item() if getattr(value, "ndim", None) == 0 else value  # of a NumPy array
    if not isinstance(number, Real):
        raise TypeError(f"`{name}` must be a number, got {value!r}")


def _check_own(max_grad_norm: Any, nonfinite: Any) -> None:
    core.checked_nonfinite(nonfinite)
    if max_grad_norm is not None and not isinstance(max_grad_norm, Real):
        raise TypeError(f"`max_grad_norm` must be a number or None, got {max_grad_norm!r}")
    if max_grad_norm is not None and not float(max_grad_norm) > 0:
        raise ValueError(f"`max_grad_norm` must be > 0 or None, got {max_grad_norm!r}")
