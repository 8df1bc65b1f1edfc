"""Where the schedule's state lives in torch, and the call that advances it there.

On the CPU the state is kept as plain Python numbers between two steps, because an operation on a
tensor costs microseconds there, and reading one costs nothing. On an accelerator, and inside
`torch.compile`, it is kept as tensors, because reading one would make the host wait for the device.
Both are advanced by the same `zenith.core.update`, and both are the same tensors in a checkpoint:
the plain numbers are rounded to the state's dtype at every step.
"""

from array import array
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from zenith import core
from zenith.core import ZenithState
from zenith.torch._norm import as_norm, partial_norms

__all__ = [
    "advance",
    "dtype_for",
    "from_scaler",
    "measured",
    "observe",
    "restored",
    "snapshot",
    "tensors",
]


def dtype_for(parameters: Iterable[Tensor]) -> torch.dtype:
    """The dtype of the state: float64 as soon as one parameter is, and never less than float32."""
    dtype: torch.dtype = getattr(torch, core.dtype_for(str(p.dtype)[6:] for p in parameters))
    return dtype


class _TorchOn:
    """The library `torch`, making its new tensors on one device."""

    where = staticmethod(torch.where)
    maximum = staticmethod(torch.maximum)
    sum = staticmethod(torch.sum)

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def arange(self, end: int, dtype: torch.dtype) -> Tensor:
        return torch.arange(end, dtype=dtype, device=self.device)


def from_scaler(optimizer: Optimizer) -> tuple[Tensor | None, Tensor | None]:
    """Return what a `GradScaler` has handed to a fused step, each a 0-dim tensor or None.

    Returns:
        `grad_scale`, the factor that is on the gradients, and `found_inf`, above 0 where the step
        is to be dropped.
    """
    return getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)


def measured(
    grads: list[Tensor],
    grad_norm: float | Tensor | None,
    dtype: torch.dtype,
    grad_scale: Tensor | None,
) -> list[Tensor]:
    """Return norms whose norm is that of the gradient, without a `GradScaler`'s factor.

    Args:
        grads: the gradients; at least one.
        grad_norm: their norm, where the caller knows it.
        dtype: of the state.
        grad_scale: the factor, where there is one.
    """
    if grad_norm is None:
        norms = partial_norms(grads)
    else:
        norms = [as_norm(grad_norm, dtype, grads[0].device)]
    return norms if grad_scale is None else [norm / grad_scale.to(norm.device) for norm in norms]


def observe(
    state: ZenithState,
    norm: float | Tensor,
    raw_norm: float | Tensor,
    rates: Iterable[float | Tensor],
    dtype: torch.dtype,
    found_inf: Tensor | None,
) -> tuple[ZenithState, bool | Tensor]:
    """Return the state after a step with this norm, and whether the step leaves it as it was.

    Args:
        state: the state before.
        norm: what the schedule is given.
        raw_norm: the norm of the gradient alone.
        rates: of the optimizer's groups.
        dtype: of the state.
        found_inf: above 0 where a `GradScaler` drops the step.
    """
    ignored = _is_ignored(raw_norm, rates, found_inf)
    return advance(state, norm, ignored, dtype), ignored


def advance(
    state: ZenithState, norm: float | Tensor, ignored: bool | Tensor, dtype: torch.dtype
) -> ZenithState:
    """Return the state after a step with this norm: in plain numbers if the norm is, or tensors."""
    if ignored is True:
        return state
    if not isinstance(norm, Tensor):
        return _advanced_on_host(state, norm, dtype)
    before = tensors(state, dtype, norm.device)
    after = core.update(before, norm.to(dtype), _TorchOn(norm.device))
    return _select(ignored, before, after) if isinstance(ignored, Tensor) else after


def tensors(
    state: ZenithState, dtype: torch.dtype, device: torch.device | None = None
) -> ZenithState:
    """Return the state as tensors; what is such a tensor already is taken as it is."""
    count, skipped = (torch.as_tensor(n, device=device) for n in (state.count, state.skipped))
    floats = (state.norms, state.mean, state.zenith, state.scale)
    norms, mean, zenith, scale = (torch.as_tensor(x, dtype=dtype, device=device) for x in floats)
    return ZenithState(norms, count, mean, zenith, scale, skipped)


def snapshot(state: ZenithState, dtype: torch.dtype) -> ZenithState:
    """Return a copy of the state as tensors, on the device where it lives."""
    return ZenithState(*(field.detach().clone() for field in tensors(state, dtype)))


def restored(state: ZenithState, window: int, dtype: torch.dtype) -> ZenithState:
    """Return a checked copy of a state of any framework, in plain numbers that `dtype` can hold."""
    return core.checked(state, window, torch.finfo(dtype).max)


def _is_ignored(
    grad_norm: float | Tensor, rates: Iterable[float | Tensor], found_inf: Tensor | None
) -> bool | Tensor:
    """Return whether a step leaves the schedule as it is: a bool where that is known on the host.

    So does a step that a `GradScaler` drops (`found_inf`), and the phantom step, of gradient 0 and
    every rate 0, by which a checkpoint makes an optimizer fill its state.
    """
    dropped = False if found_inf is None else found_inf > 0
    if not isinstance(grad_norm, Tensor):
        return bool(dropped) or (grad_norm == 0 and bool(_all_zero(rates)))
    idle = _all_zero(rates)
    return dropped if idle is False else (grad_norm == 0) & idle | dropped


def _all_zero(rates: Iterable[float | Tensor]) -> Any:
    zero: bool | Tensor = True
    for rate in rates:
        zero = (rate == 0) & zero
    return zero


def _advanced_on_host(state: ZenithState, norm: float, dtype: torch.dtype) -> ZenithState:
    if isinstance(state.norms, Tensor):
        state = ZenithState(*(field.tolist() for field in tensors(state, dtype)))
    state = core.update(state, *_rounded(dtype, norm))
    mean, zenith, scale = _rounded(dtype, state.mean, state.zenith, state.scale)
    return ZenithState(state.norms, state.count, mean, zenith, scale, state.skipped)


def _rounded(dtype: torch.dtype, *numbers: float) -> Iterable[float]:
    return array("f", numbers) if dtype is torch.float32 else numbers


def _select(condition: Tensor, chosen: ZenithState, other: ZenithState) -> ZenithState:
    return ZenithState(*(torch.where(condition, a, b) for a, b in zip(chosen, other, strict=True)))
