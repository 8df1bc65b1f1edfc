"""The optimizer: torch.optim.SGD, whose rate the gradient norm scales."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.optimizer import ParamsT

from zenith import core
from zenith.core import ZenithState
from zenith.torch._norm import (
    as_norm,
    decayed,
    norm_of,
    norm_or_number,
    on_host,
    partial_norms,
    unscaled,
)
from zenith.torch._sgd import Batch, descend
from zenith.torch._state import advance, dtype_for, is_ignored, restored, snapshot, tensors

__all__ = ["Zenith"]

_FIELDS = tuple(f"zenith_{field}" for field in ZenithState._fields)  # keys of param_groups[0]


class Zenith(SGD):
    r"""SGD that lowers its own learning rate as the gradient norm falls.

    .. math::
        \eta_t = \mathrm{lr} \cdot \frac{\mu_t}{Z_t}, \qquad
        \mu_t = \frac{1}{W} \sum_{k=0}^{W-1} \lVert g_{t-k} \rVert_2, \qquad
        Z_t = \max(Z_{t-1}, \mu_t)

    `mean` (:math:`\mu`) is the mean of the last `window` gradient norms and `zenith` (:math:`Z`)
    the highest such mean so far. Until `window` norms are known this is `torch.optim.SGD`, bit for
    bit; from then on the rate is at most `lr`, and `lr` wherever the mean is at its zenith.

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
        TypeError: if `window` is not an integer.
        ValueError: if an argument is out of its range.

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
        nonfinite: str = "skip",
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        empty = core.init(window)
        if nonfinite not in ("skip", "propagate"):
            raise ValueError(f'`nonfinite` must be "skip" or "propagate", got {nonfinite!r}')
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"`max_grad_norm` must be > 0 or None, got {max_grad_norm!r}")
        if not isinstance(lr, Tensor) and not lr >= 0:
            raise ValueError(f"Invalid learning rate: {lr!r}; `lr` must be >= 0")
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
        )
        self.window = len(empty.norms)
        self.nonfinite = nonfinite
        self.max_grad_norm = max_grad_norm
        self.defaults["decay_in_norm"] = decay_in_norm
        for group in self.param_groups:
            group.setdefault("decay_in_norm", decay_in_norm)
        self._rates: list[float | Tensor] = []
        self._schedule: dict[str, Any] = {}
        self._state = tensors(empty, self._dtype, self._home())
        self._mirror()

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
                is given, and no norm is computed: a NaN that it hides is not found.

        Returns:
            What `closure` returned, or None.

        Raises:
            ValueError: if `grad_norm` is negative, is not one number, or comes with a `closure`.
        """
        if closure is not None and grad_norm is not None:
            raise ValueError(
                f"`grad_norm` must be None where `closure` computes the gradient, got {grad_norm!r}"
            )
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
        self._mirror()
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
        """Add a parameter group, also in the middle of a run: the schedule goes on as it was."""
        super().add_param_group(param_group)
        self._dtype = dtype_for(p for group in self.param_groups for p in group["params"])

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("window", "nonfinite", "max_grad_norm")}
        self._mirror()
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Both unpickling and load_state_dict come through here, the latter with a copy whose
        # tensors were neither cast nor moved. Whatever is refused is refused before any change.
        groups = state["param_groups"]
        dtype = dtype_for(p for group in groups for p in group["params"])
        window = state["window"] if "window" in state else self.window  # noqa: SIM401
        loaded = _state_of(groups)
        # A state_dict of torch.optim.SGD has none, and the schedule starts empty.
        loaded = core.init(window) if loaded is None else restored(loaded, window, dtype)
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for group in self.param_groups:
            group.setdefault("decay_in_norm", self.defaults["decay_in_norm"])
        self._dtype, self._rates, self._schedule = dtype, [], {}
        self._state = tensors(loaded, dtype, self._home())
        self._mirror()

    def __repr__(self) -> str:
        groups = self.param_groups
        self.param_groups = [
            {key: value for key, value in group.items() if key not in _FIELDS}
            | {"window": self.window}
            for group in groups
        ]
        try:
            return super().__repr__()
        finally:
            self.param_groups = groups

    # A dictionary holds the state, since a compiled step loses an attribute that it sets anew.

    @property
    def _state(self) -> ZenithState:
        return ZenithState(*self._schedule.values())

    @_state.setter
    def _state(self, state: ZenithState) -> None:
        self._schedule.update(zip(_FIELDS, state, strict=True))

    def _mirror(self) -> None:
        """Copy the state into param_groups[0], where a checkpoint finds it.

        `torch.distributed.checkpoint` carries nothing else but the state of parameters, which it
        would cast to the parameters' own dtype.
        """
        for group in self.param_groups:
            for field in _FIELDS:
                group.pop(field, None)
        state = tensors(self._state, self._dtype, self._home())
        self.param_groups[0].update(zip(_FIELDS, state, strict=True))

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
        return Batch(group, params, grads, momentum_buffers, has_sparse_grad)

    def _update(self, batches: list[Batch], grad_norm: float | Tensor | None) -> None:
        norms, raw_norms = self._measure(batches, grad_norm)
        if norms[0].dtype is torch.float64:  # the model has become float64 since
            self._dtype = torch.float64
        norm = norm_or_number(norms)
        raw_norm = norm if raw_norms is norms else norm_or_number(raw_norms)
        found_inf = getattr(self, "found_inf", None)
        ignored = is_ignored(raw_norm, [batch.group["lr"] for batch in batches], found_inf)
        before = self._state
        self._state = state = advance(before, norm, ignored, self._dtype)
        scale, keep = state.scale, self._keep(state.skipped == before.skipped)
        if not isinstance(norm, Tensor) or _sparse_kernels_wait(batches):
            scale, keep = float(scale), bool(keep)
        if ignored is not True:
            # In place, since a compiled step loses an attribute that it sets anew.
            self._rates[:] = [batch.group["lr"] * scale for batch in batches]
        if keep is False:
            return
        if self.max_grad_norm is not None:
            params = [param for batch in batches for param in batch.params]
            _clip(params, self.max_grad_norm, norm_of(raw_norms))
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            for batch in batches:
                self._descend(batch, scale, keep if isinstance(keep, Tensor) else None)

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


def _state_of(groups: list[dict[str, Any]]) -> ZenithState | None:
    """The state that a checkpoint has put into one of its parameter groups."""
    for group in groups:
        if found := [field for field in _FIELDS if field in group]:
            if missing := [field for field in _FIELDS if field not in found]:
                raise ValueError(f"the state_dict of a Zenith lacks {', '.join(missing)}")
            return ZenithState(*(group[field] for field in _FIELDS))
    return None


def _number(value: float | Tensor) -> float:
    return value.item() if isinstance(value, Tensor) else float(value)


def _sparse_kernels_wait(batches: list[Batch]) -> bool:
    sparse = any(batch.has_sparse_grad for batch in batches)
    return sparse and not torch.compiler.is_compiling()


def _clip(params: list[Tensor], max_norm: float, norm: Tensor) -> None:
    """torch.nn.utils.clip_grad_norm_ by a norm that is known, and no pass where nothing is cut."""
    if on_host(norm) and max_norm / (norm + 1e-6) >= 1:
        return
    # The foreach form refuses DTensors of several meshes, and a mixture of DTensor and Tensor.
    foreach = False if any(hasattr(p.grad, "device_mesh") for p in params) else None
    torch.nn.utils.clip_grads_with_norm_(params, max_norm, norm, foreach=foreach)
