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

from zenith import core
from zenith.core import ZenithState

__all__ = ["advance", "dtype_for", "restored", "snapshot", "tensors"]


def dtype_for(parameters: Iterable[Tensor]) -> torch.dtype:
    """The dtype of the state: float64 as soon as one parameter is, and never less than float32."""
    wide = {torch.float64, torch.complex128}
    return torch.float64 if any(p.dtype in wide for p in parameters) else torch.float32


class _TorchOn:
    """The library `torch`, making its new tensors on one device."""

    where = staticmethod(torch.where)
    maximum = staticmethod(torch.maximum)
    sum = staticmethod(torch.sum)

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def arange(self, end: int) -> Tensor:
        return torch.arange(end, device=self.device)


def advance(
    state: ZenithState,
    norm: float | Tensor,
    *,
    dtype: torch.dtype,
    rates: Iterable[float | Tensor],
    found_inf: Tensor | None,
) -> ZenithState:
    """Return the state after a step whose gradient has the given norm, a number or a tensor.

    The state is unchanged by a step that a `GradScaler` drops (`found_inf`), and by the phantom
    step, of norm 0 and all `rates` 0, by which a checkpoint makes an optimizer fill its state.
    """
    if not isinstance(norm, Tensor):
        dropped = found_inf is not None and found_inf.item() > 0
        phantom = norm == 0 and _all_zero(rates)
        return state if dropped or phantom else _advanced_on_host(state, norm, dtype)

    before = tensors(state, dtype, norm.device)
    after = core.update(before, norm.to(dtype), _TorchOn(norm.device))
    if found_inf is not None:
        after = _select(found_inf > 0, before, after)
    if (idle := _all_zero(rates)) is not False:
        after = _select((norm == 0) & idle, before, after)
    return after


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


def restored(state: ZenithState, window: int) -> ZenithState:
    """Return a checked copy of a state of any framework, in plain numbers.

    Raises:
        ValueError: if the state is of another window, or holds an impossible value.
    """
    state = core.from_dict(core.to_dict(ZenithState(*state)))
    if len(state.norms) != window:
        raise ValueError(
            f"`window` of the state must be that of this schedule, {window}, got {len(state.norms)}"
        )
    return state


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
