"""The optimizer: torch.optim.SGD, whose rate the gradient norm scales."""

from collections.abc import Callable
from typing import Any, Literal

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
from zenith.torch._norm import (
    as_norm,
    decayed,
    norm_of,
    norm_or_number,
    partial_norms,
    unscaled,
)
from zenith.torch._sgd import Batch, clip, descend, has_lazy, sparse_kernels_wait
from zenith.torch._state import advance, dtype_for, is_ignored, restored, snapshot, tensors

__all__ = ["Zenith"]


class Zenith(SGD):
    """SGD that lowers its own learning rate as the gradient norm falls.

    The rate of a step is `lr * mean / zenith`, where `mean` is the mean of the last `window`
    gradient norms, this step's included, and `zenith` the highest such mean so far. Until `window`
    norms are known this is `torch.optim.SGD`, bit for bit; from then on the rate is at most `lr`,
    and `lr` wherever the mean is at its zenith.

    `group["lr"]` stays the user's own and is never written, so that any `LRScheduler` composes:
    ZENITH multiplies whatever it finds there. One norm is taken over all groups together, before
    any clipping of its own, and the schedule costs no memory beyond `window` + 5 numbers.

    Args:
        params: parameters, named parameters or parameter groups, as for any torch optimizer.
        lr: the initial learning rate, at once the highest that will be used; a float or a tensor.
        window: how many gradient norms the mean is taken over.
        momentum: as in `torch.optim.SGD`; so are `dampening`, `weight_decay`, `nesterov`,
            `maximize`, `foreach`, `differentiable` and `fused`. On a GPU `fused=True` is the
            fastest form.
        decay_in_norm: measure the norm of `grad + weight_decay * param`, the gradient of the
            regularised loss, in place of `grad`. May be set for each group.
        max_grad_norm: clip the gradients in place to this norm, as
            `torch.nn.utils.clip_grad_norm_` does, after ZENITH has measured them. Clipping *before*
            the step without telling it the norm (`grad_norm=`) hides from ZENITH what it lives on.
        nonfinite: what to do with a gradient whose norm is NaN or infinite. `"skip"` leaves
            parameters, momentum and schedule as they are and counts it in `zenith_state.skipped`;
            `"propagate"` does so for the schedule alone and makes SGD's step.

    Raises:
        TypeError: if an argument is of another type: a `window` that is no integer, a rate that is
            text, a module in place of its parameters.
        ValueError: if an argument is out of its range, or a group has an option that only the whole
            optimizer can have: `window`, `max_grad_norm`, `nonfinite`.

    Examples:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = Zenith(model.parameters(), lr=0.1, window=2)
        >>> for shrinking in [1.0, 1.0, 0.5, 0.5]:
        ...     optimizer.zero_grad()
        ...     (shrinking * model(torch.ones(1, 2)).sum()).backward()
        ...     optimizer.step()
        ...     print([round(lr, 3) for lr in optimizer.get_last_lr()])
        [0.1]
        [0.1]
        [0.075]
        [0.05]

    Source: Saha, "ZENITH: Automated Gradient Norm Informed Stochastic Optimization",
    arXiv 2601.15212, equations 1 to 3 and Algorithm 1.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.1,
        *,
        window: int = 500,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float | Tensor = 0.0,
        nesterov: bool = False,
        decay_in_norm: bool = False,
        max_grad_norm: float | None = None,
        nonfinite: Literal["skip", "propagate"] = "skip",
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        empty = core.init(window)
        own: dict[str, Any] = {
            "window": len(empty.norms),
            "max_grad_norm": max_grad_norm,
            "nonfinite": nonfinite,
        }
        sgds: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        checked_options({**own, **sgds, "decay_in_norm": decay_in_norm})
        checked_params(params)
        self.window: int = own["window"]
        self.max_grad_norm, self.nonfinite = max_grad_norm, nonfinite
        super().__init__(params, **plain(sgds))
        self.defaults |= own | {"decay_in_norm": decay_in_norm}
        for group in self.param_groups:
            group.setdefault("decay_in_norm", decay_in_norm)
        self._rates: list[float | Tensor] = []
        self._holder: dict[str, Any] = {}
        self._state = tensors(empty, self._dtype, self._home())

    @property
    def zenith_state(self) -> ZenithState:
        """A copy of the schedule's state, as plain tensors.

        Set it to carry a run over: from another optimizer, or from another framework by
        `zenith.from_dict`. A state of another window is refused with a ValueError.
        """
        return snapshot(self._state, self._dtype)

    @zenith_state.setter
    def zenith_state(self, state: ZenithState) -> None:
        state = restored(state, self.window, self._dtype)
        self._state = tensors(state, self._dtype, self._home())

    def zenith_metrics(self) -> dict[str, Any]:
        """Return what a log wants to show of the last step, with no copy from the device.

        Returns:
            `lr` (the rate in force of the first group), `grad_norm` (the last accepted norm, 0
            before the first), `mean`, `zenith`, `scale`, `count` and `skipped`: plain numbers, or
            0-dim tensors on the device.
        """
        state = self._state
        rates = self._rates or [plain(group)["lr"] * state.scale for group in self.param_groups]
        return {"lr": rates[0] if rates else None, **core.metrics(state)}

    def get_last_lr(self) -> list[float]:
        """Return the rate in force at the last step, `lr * scale`, one for each parameter group.

        Before the first step, and for a group added since the last, it is the rate of a step at
        the present scale.
        """
        scale = _number(self._state.scale)
        present = [_number(group["lr"]) * scale for group in self.param_groups]
        last = [_number(rate) for rate in self._rates[: len(present)]]
        return last + present[len(last) :]

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        grad_norm: float | Tensor | None = None,
    ) -> Any:
        """Perform one step at the rate that this step's own gradient norm sets.

        Args:
            closure: reevaluates the model and returns the loss, as for any torch optimizer.
            grad_norm: the L2 norm of the gradients over all parameters before clipping, if it is
                known already: what `torch.nn.utils.clip_grad_norm_` returns. It is recorded as it
                is given, and no norm is computed: a NaN that it hides is not found. Beside a
                `closure` it is the norm of the gradients that the closure leaves.

        Returns:
            What `closure` returned, or None.

        Raises:
            TypeError: if `grad_norm` is neither a number nor a tensor.
            ValueError: if `grad_norm` is negative, or is not one number.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        batches = [self._batch(group) for group in self.param_groups]
        if any(batch.grads for batch in batches):
            with torch.set_grad_enabled(False):  # no_grad() takes twice as long to enter
                self._update(batches, grad_norm)
        return loss

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
        holder = holder_in(self.param_groups) or next(iter(self.param_groups), self._holder)
        if holder is not self._holder:  # a compiled step loses an attribute that it sets anew
            self._holder = holder
        put(holder, state)

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

    def _batch(self, group: dict[str, Any]) -> Batch:
        params: list[Tensor] = []
        grads: list[Tensor] = []
        momentum_buffers: list[Tensor | None] = []
        has_sparse_grad = self._init_group(  # type: ignore[no-untyped-call]
            group, params, grads, momentum_buffers
        )
        if group["fused"] and has_lazy(grads):
            grads = [grad.resolve_conj().resolve_neg() for grad in grads]
        return Batch(plain(group), params, grads, momentum_buffers, has_sparse_grad)

    def _update(self, batches: list[Batch], grad_norm: float | Tensor | None) -> None:
        norms, raw_norms = self._measure(batches, grad_norm)
        if norms[0].dtype is torch.float64:  # the model has become float64 since
            self._dtype = torch.float64
        norm = norm_or_number(norms)
        raw_norm = norm if raw_norms is norms else norm_or_number(raw_norms)
        found_inf = getattr(self, "found_inf", None)
        ignored = is_ignored(raw_norm, [batch.group["lr"] for batch in batches], found_inf)
        before = self._present(norm)
        self._state = state = advance(before, norm, ignored, self._dtype)
        scale, keep = state.scale, self._keep(state.skipped == before.skipped)
        if not isinstance(norm, Tensor) or sparse_kernels_wait(batches):
            scale, keep = float(scale), bool(keep)
        if ignored is not True:
            # In place, since a compiled step loses an attribute that it sets anew.
            self._rates[:] = [batch.group["lr"] * scale for batch in batches]
        if keep is False:
            return
        if self.max_grad_norm is not None:
            params = [param for batch in batches for param in batch.params]
            clip(params, self.max_grad_norm, norm_of(raw_norms))
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            for batch in batches:
                self._descend(batch, scale, keep if isinstance(keep, Tensor) else None)

    def _present(self, norm: float | Tensor) -> ZenithState:
        """The state before a step with this norm; one that was loaded is checked first."""
        state = self._state
        read = isinstance(state.norms, Tensor) and not isinstance(norm, Tensor)
        if read or len(state.norms) != self.window:
            state = restored(state, self.window, self._dtype)
        return state

    def _descend(self, batch: Batch, scale: float | Tensor, keep: Tensor | None) -> None:
        descend(batch, scale, keep, getattr(self, "grad_scale", None))
        if batch.group["momentum"] != 0:
            for param, buffer in zip(batch.params, batch.momentum_buffers, strict=True):
                self.state[param]["momentum_buffer"] = buffer

    def _measure(
        self, batches: list[Batch], grad_norm: float | Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the norms whose norm is the schedule's, and those whose norm is the gradient's."""
        grads = [grad for batch in batches for grad in batch.grads]
        if grad_norm is not None:
            raw_norms = unscaled([as_norm(grad_norm, self._dtype, grads[0].device)], self)
            return raw_norms, raw_norms
        raw_norms = unscaled(partial_norms(grads), self)
        if not any(batch.group["decay_in_norm"] for batch in batches):
            return raw_norms, raw_norms
        regularised = [g for batch in batches for g in self._regularised(batch)]
        return unscaled(partial_norms(regularised), self), raw_norms

    def _regularised(self, batch: Batch) -> list[Tensor]:
        """The gradients of the regularised loss, with a GradScaler's factor where they have one."""
        decay = batch.group["weight_decay"]
        if not batch.group["decay_in_norm"] or decay == 0:
            return batch.grads
        if (grad_scale := getattr(self, "grad_scale", None)) is not None:
            decay = decay * grad_scale
        pairs = zip(batch.grads, batch.params, strict=True)
        return [decayed(g, p, decay, batch.group["maximize"]) for g, p in pairs]

    def _keep(self, accepted: bool | Tensor) -> bool | Tensor:
        """Whether this step may change the parameters."""
        keep = accepted if self.nonfinite == "skip" else True
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        return keep if found_inf is None else (found_inf == 0) & keep


def _number(value: float | Tensor) -> float:
    return value.item() if isinstance(value, Tensor) else float(value)
