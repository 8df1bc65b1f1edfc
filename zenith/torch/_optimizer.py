"""The optimizer: torch.optim.SGD, whose rate the gradient norm scales."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from zenith import core
from zenith.core import NonFinite, ZenithState
from zenith.torch._groups import plain
from zenith.torch._norm import norm_of, norm_or_number
from zenith.torch._saved import Saved
from zenith.torch._sgd import (
    Batch,
    clip,
    descend,
    has_lazy,
    regularised_grads,
    sparse_kernels_wait,
)
from zenith.torch._state import from_scaler, measured, observe, restored, snapshot, tensors

__all__ = ["Zenith"]


class Zenith(Saved):
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
        nonfinite: NonFinite = "skip",
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        own = {
            "window": core.checked_window(window),
            "max_grad_norm": max_grad_norm,
            "nonfinite": nonfinite,
            "decay_in_norm": decay_in_norm,
        }
        of_sgd = {
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
        self._rates: list[float | Tensor] = []
        super().__init__(params, own, of_sgd)

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

    def _batch(self, group: dict[str, Any]) -> Batch:
        # A wrapper may have put in the groups of a torch.optim.SGD, which have no such option.
        group.setdefault("decay_in_norm", self.defaults["decay_in_norm"])
        params: list[Tensor] = []
        grads: list[Tensor] = []
        momentum_buffers: list[Tensor | None] = []
        has_sparse_grad = self._init_group(  # type: ignore[no-untyped-call]
            group, params, grads, momentum_buffers
        )
        if group["fused"] and has_lazy(grads):
            grads = [grad.resolve_neg() for grad in grads]
        return Batch(plain(group), params, grads, momentum_buffers, has_sparse_grad)

    def _update(self, batches: list[Batch], grad_norm: float | Tensor | None) -> None:
        grad_scale, found_inf = from_scaler(self)
        norms, raw_norms = self._measure(batches, grad_norm, grad_scale)
        if norms[0].dtype is torch.float64 is not self._dtype:  # the model has become float64
            self._dtype = torch.float64
        norm = norm_or_number(norms)
        raw_norm = norm if raw_norms is norms else norm_or_number(raw_norms)
        before, rates = self._present(norm), [batch.group["lr"] for batch in batches]
        state, ignored = observe(before, norm, raw_norm, rates, self._dtype, found_inf)
        self._put(state)
        scale, keep = state.scale, self._keep(state.skipped == before.skipped, found_inf)
        if not isinstance(norm, Tensor) or sparse_kernels_wait(batches):
            scale, keep = float(scale), bool(keep)
        if ignored is not True:
            # In place, since a compiled step loses an attribute that it sets anew.
            self._rates[:] = [rate * scale for rate in rates]
        if keep is False:
            return
        if self.max_grad_norm is not None:
            params = [param for batch in batches for param in batch.params]
            clip(params, self.max_grad_norm, norm_of(raw_norms))
        differentiable = self.defaults["differentiable"]
        with torch.enable_grad() if differentiable else nullcontext():
            for batch in batches:
                self._descend(batch, scale, keep if isinstance(keep, Tensor) else None, grad_scale)

    def _descend(
        self, batch: Batch, scale: float | Tensor, keep: Tensor | None, grad_scale: Tensor | None
    ) -> None:
        descend(batch, scale, keep, grad_scale)
        if batch.group["momentum"] != 0:
            for param, buffer in zip(batch.params, batch.momentum_buffers, strict=True):
                self.state[param]["momentum_buffer"] = buffer

    def _measure(
        self, batches: list[Batch], grad_norm: float | Tensor | None, grad_scale: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the norms whose norm is the schedule's, and those whose norm is the gradient's."""
        grads = [grad for batch in batches for grad in batch.grads]
        raw_norms = measured(grads, grad_norm, self._dtype, grad_scale)
        if grad_norm is not None or not any(batch.group["decay_in_norm"] for batch in batches):
            return raw_norms, raw_norms
        regularised = [g for batch in batches for g in regularised_grads(batch, grad_scale)]
        return measured(regularised, None, self._dtype, grad_scale), raw_norms

    def _keep(self, accepted: bool | Tensor, found_inf: Tensor | None) -> bool | Tensor:
        """Whether this step may change the parameters."""
        keep = accepted if self.nonfinite == "skip" else True
        return keep if found_inf is None else (found_inf == 0) & keep


def _number(value: float | Tensor) -> float:
    return value.item() if isinstance(value, Tensor) else float(value)
