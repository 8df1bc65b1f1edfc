"""The norm of a gradient over all of its tensors together, in at least float32."""

import math
from collections import defaultdict
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["as_norm", "decayed", "norm_of", "norm_or_number", "on_host", "partial_norms"]

_LOW_PRECISION = (torch.float16, torch.bfloat16)
_SIMPLE = {(torch.float32, torch.strided), (torch.float64, torch.strided)}
# One norm or dot product over a long float32 vector keeps few partial sums, how few being the
# processor's and the library's choice: 20 million equal entries come out wrong by up to 1.2e-2.
# So a large vector is taken in rows, and their norms are a vector again. Smaller ones are left
# whole, which is faster: eight partial sums of 65,536 equal entries are wrong by at most 8e-5.
_LARGE = 65_536
_ROW = 4_096
_ROWS = 128  # in low precision, at a time: torch makes a float32 copy of them


def partial_norms(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return norms whose own norm is that of all `gradients` together, as if they were one vector.

    Args:
        gradients: one or more tensors: dense or sparse (repeated indices are summed), real or
            complex, of any precision, plain or `DTensor`.

    Returns:
        Plain 0-dim tensors on the first gradient's device, in at least float32. Where gradients
        are sharded they are the same on every rank, at the cost of one all-reduce of a scalar for
        each kind of sharding.
    """
    if set(map(type, gradients)) == {Tensor}:
        return _norms(gradients)
    kinds: defaultdict[Any, list[Tensor]] = defaultdict(list)
    for gradient in gradients:
        kinds[_sharding(gradient)].append(gradient)
    norms = _norms(kinds.pop(None, []))
    return norms + [_sharded_norm(members, *kind) for kind, members in kinds.items()]


def norm_of(norms: list[Tensor]) -> Tensor:
    """Return the norm of 0-dim tensors, as a 0-dim tensor on their device."""
    if len(norms) == 1:
        return norms[0]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm


def norm_or_number(norms: list[Tensor]) -> float | Tensor:
    """Return the norm of 0-dim tensors as a number where it can be read without waiting."""
    if not on_host(norms[0]):
        return norm_of(norms)
    norm = math.hypot(*map(Tensor.item, norms))
    # Several squares that overflow in their dtype count as infinite here as they do on a device.
    overflows = len(norms) > 1 and norm * norm > torch.finfo(norms[0].dtype).max
    return math.inf if overflows else norm


def as_norm(grad_norm: float | Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the norm that a caller gave as `grad_norm=`, as a plain 0-dim tensor.

    Raises:
        TypeError: if it is neither a number nor a tensor.
        ValueError: if it is not one number, or is negative and can be read without waiting.
    """
    if not isinstance(grad_norm, Real | Tensor):
        raise TypeError(f"`grad_norm` must be a number or a tensor, got {grad_norm!r}")
    if not isinstance(grad_norm, Tensor):
        if grad_norm < 0:
            raise ValueError(f"`grad_norm` must be >= 0, got {float(grad_norm)!r}")
    elif hasattr(grad_norm, "full_tensor"):
        grad_norm = grad_norm.full_tensor()
    norm = torch.as_tensor(grad_norm, dtype=dtype, device=device).detach()
    if norm.numel() != 1:
        raise ValueError(f"`grad_norm` must be one number, got shape {tuple(norm.shape)}")
    if on_host(norm) and norm.item() < 0:
        raise ValueError(f"`grad_norm` must be >= 0, got {norm.item()!r}")
    return norm.reshape(())


def on_host(tensor: Tensor) -> bool:
    """Whether the value of `tensor` can be read without waiting for a device."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def decayed(
    gradient: Tensor, parameter: Tensor, weight_decay: float | Tensor, maximize: bool
) -> Tensor:
    """Return the gradient of the regularised objective: what weight decay makes of `gradient`."""
    if gradient.is_sparse:
        gradient = gradient.to_dense()
    if gradient.dtype in _LOW_PRECISION:
        gradient, parameter = gradient.float(), parameter.float()
    return (-gradient if maximize else gradient) + weight_decay * parameter


def _norms(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Norms of parts of `gradients`, in at least float32 and on the first one's device."""
    kinds = {(g.dtype, g.layout, g.device) for g in gradients}
    if len(kinds) == 1 and kinds.pop()[:2] in _SIMPLE:
        return _simple_norms(gradients)
    gradients = [_dense_and_real(g) for g in gradients]
    norms = _simple_norms([g for g in gradients if g.dtype not in _LOW_PRECISION])
    norms += _simple_norms([g for g in gradients if g.dtype in _LOW_PRECISION], torch.float32)
    wide = any(norm.dtype is torch.float64 for norm in norms)
    dtype = torch.float64 if wide else torch.float32
    return [norm.to(gradients[0].device, dtype) for norm in norms]


def _simple_norms(gradients: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Norms of parts of dense and real `gradients`, taken in `dtype` where that is wider."""
    if not gradients:
        return []
    large = [g.numel() >= _LARGE and g.is_cpu for g in gradients]
    if not any(large):
        return list(torch._foreach_norm(list(gradients), 2, dtype=dtype))
    pairs = zip(gradients, large, strict=True)
    parts = [part for g, long in pairs for part in (_parts(g, dtype) if long else (g,))]
    return _simple_norms(parts, dtype)


def _parts(gradient: Tensor, dtype: torch.dtype | None) -> list[Tensor]:
    """Vectors whose norm is that of a large gradient: the norms of its rows, and what is left."""
    vector = _flat(gradient)
    rest = vector.numel() % _ROW
    left, vector = ([vector[-rest:]], vector[:-rest]) if rest else ([], vector)
    rows = vector.view(-1, _ROW)
    chunks = [rows] if dtype is None else torch.split(rows, _ROWS)
    return left + [torch.linalg.vector_norm(chunk, dim=1, dtype=dtype) for chunk in chunks]


def _flat(gradient: Tensor) -> Tensor:
    """The elements as one vector: a view of what is dense in any order, and else a copy."""
    if not gradient.is_contiguous():
        by_stride = sorted(range(gradient.dim()), key=gradient.stride, reverse=True)
        gradient = gradient.permute(by_stride)
    return gradient.reshape(-1)


def _dense_and_real(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    return torch.view_as_real(gradient.resolve_conj()) if gradient.is_complex() else gradient


def _sharding(gradient: Tensor) -> Any:
    """The mesh of a `DTensor`, and along which of its dimensions every rank has the whole."""
    if not hasattr(gradient, "device_mesh"):
        return None
    placements: Any = gradient.placements  # type: ignore[attr-defined]
    return gradient.device_mesh, tuple(p.is_replicate() or p.is_partial() for p in placements)


def _sharded_norm(gradients: Sequence[Any], mesh: Any, whole: Sequence[bool]) -> Tensor:
    """The norm of `DTensor`s of one sharding: each rank's share squared, summed over the shards."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    shares = [_summed(gradient).to_local() for gradient in gradients]
    square = norm_of(_norms(shares)).square()
    sum_over_shards = [Replicate() if all_of_it else Partial() for all_of_it in whole]
    return DTensor.from_local(square, mesh, sum_over_shards).full_tensor().sqrt()


def _summed(gradient: Any) -> Any:
    """A `DTensor` whose `Partial` placements, not summed yet over their ranks, are resolved."""
    from torch.distributed.tensor import Replicate

    if not any(p.is_partial() for p in gradient.placements):
        return gradient
    return gradient.redistribute(
        placements=[Replicate() if p.is_partial() else p for p in gradient.placements]
    )
