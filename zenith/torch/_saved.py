"""SGD whose parameter groups hold the schedule as well, and are saved and loaded with it."""

from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.optimizer import ParamsT

from zenith import core
from zenith.core import ZenithState
from zenith.torch._groups import (
    KEYS,
    OWN,
    checked_options,
    checked_params,
    holder_in,
    plain,
    put,
    state_in,
    take_out,
)
from zenith.torch._state import dtype_for, restored, tensors

__all__ = ["Saved", "alive"]

alive: "WeakSet[Saved]" = WeakSet()


class Saved(SGD):
    """What a `Zenith` keeps between two steps: see `zenith.torch._groups`.

    Args:
        params: as for any torch optimizer.
        own: ZENITH's options.
        of_sgd: those of torch.optim.SGD.
    """

    window: int
    max_grad_norm: float | None
    nonfinite: str
    _rates: list[float | Tensor]

    def __init__(self, params: ParamsT, own: dict[str, Any], of_sgd: dict[str, Any]) -> None:
        checked_options(own | of_sgd)
        checked_params(params)
        self.window, self.max_grad_norm, self.nonfinite = (own[name] for name in OWN)
        super().__init__(params, **plain(of_sgd))
        self.defaults |= own
        for group in self.param_groups:
            group.setdefault("decay_in_norm", own["decay_in_norm"])
        self._holder: dict[str, Any] = {}
        self._state = tensors(core.init(self.window), self._dtype, self._home())
        alive.add(self)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, the schedule's among it, as `torch.save` can write it."""
        state = tensors(self._state, self._dtype, self._home())
        take_out(self.param_groups)
        self._state = state  # in the first group from now on
        # torch.distributed.checkpoint wants an entry for every parameter as soon as there is one
        # for any; but on a fresh optimizer none at all, or it would not fill in the momentum.
        if self.state or not any(group["momentum"] for group in self.param_groups):
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` of a Zenith of the same window, or of an SGD, returned.

        Raises:
            ValueError: if the schedule in it is of another window or impossible; then nothing has
                changed.
        """
        # torch.distributed.checkpoint drops "state" where it is empty: without momentum.
        super().load_state_dict({"state": {}, **state_dict})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, also in the middle of a run: the schedule goes on as it was.

        Raises:
            TypeError, ValueError: as the constructor does.
        """
        if isinstance(param_group, dict):
            self._check_group(param_group)
            if KEYS[0] in param_group:  # a group of another Zenith, whose schedule stays there
                param_group = {key: x for key, x in param_group.items() if key not in KEYS}
        super().add_param_group(param_group)
        for name in OWN:
            param_group.pop(name, None)
        self._dtype = dtype_for(p for group in self.param_groups for p in group["params"])

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in (*OWN, "_holder")}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Both unpickling and load_state_dict come through here, the latter with a copy whose
        # tensors were neither cast nor moved. Whatever is refused is refused before any change.
        groups = state["param_groups"]
        dtype = dtype_for(p for group in groups for p in group["params"])
        window = state["window"] if "window" in state else self.window  # noqa: SIM401
        loaded = take_out(groups) or take_out([state.get("_holder", {})])
        # A state_dict of torch.optim.SGD has none, and the schedule starts empty.
        loaded = core.init(window) if loaded is None else restored(loaded, window, dtype)
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for group in self.param_groups:
            group.setdefault("decay_in_norm", self.defaults["decay_in_norm"])
        self._dtype, self._rates, self._holder = dtype, [], {}
        self._state = tensors(loaded, dtype, self._home())
        alive.add(self)

    def __repr__(self) -> str:
        groups, own = self.param_groups, {name: getattr(self, name) for name in OWN}
        self.param_groups = [
            {key: value for key, value in group.items() if key not in KEYS} | own
            for group in groups
        ]
        try:
            return super().__repr__()
        finally:
            self.param_groups = groups

    @property
    def _state(self) -> ZenithState:
        """The state that a group holds; where that group was removed, what it held last."""
        return state_in(holder_in(self.param_groups) or self._holder)

    @_state.setter
    def _state(self, state: ZenithState) -> None:
        self._put(state)

    def _put(self, state: ZenithState) -> None:
        """Set the state without setting an attribute, which torch 2.11 refuses to compile."""
        holder = holder_in(self.param_groups) or next(iter(self.param_groups), self._holder)
        if holder is not self._holder:  # a compiled step loses an attribute that it sets anew
            self._holder = holder
        put(holder, state)

    def _present(self, norm: float | Tensor) -> ZenithState:
        """The state before a step with this norm; one that was loaded is checked first."""
        state = self._state
        read = isinstance(state.norms, Tensor) and not isinstance(norm, Tensor)
        if read or len(state.norms) != self.window:
            state = restored(state, self.window, self._dtype)
        return state

    def _check_group(self, group: dict[str, Any]) -> None:
        checked_params(group.get("params", ()))
        checked_options(group)
        for name in OWN:  # a wrapper puts the constructor's own arguments into its groups
            if name in group and group[name] != getattr(self, name):
                raise ValueError(
                    f"`{name}` is an option of the whole optimizer and not of a group, "
                    f"got {group[name]!r}"
                )

    def _home(self) -> torch.device:
        """Where the schedule's tensors belong: with the first parameter."""
        devices = (p.device for group in self.param_groups for p in group["params"])
        device = next(devices, torch.device("cpu"))
        return torch.device("cpu") if device.type == "meta" else device
