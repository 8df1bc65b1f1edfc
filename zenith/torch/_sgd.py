"""The step of torch.optim.SGD at a rate that the schedule scales, on the host or on the device."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from zenith.torch._norm import decayed, on_host

__all__ = ["Batch", "clip", "descend", "has_lazy", "regularised_grads", "sparse_kernels_wait"]

Tensors: TypeAlias = list[Tensor] | tuple[Tensor, ...]  # what the foreach functions take

_LOW_PRECISION = (torch.float16, torch.bfloat16)


class Batch(NamedTuple):
    """What of one parameter group takes part in a step."""

    group: dict[str, Any]
    params: list[Tensor]
    grads: list[Tensor]
    momentum_buffers: list[Tensor | None]  # None before a first step; empty without momentum
    has_sparse_grad: bool


def descend(
    batch: Batch, scale: float | Tensor, keep: Tensor | None, grad_scale: Tensor | None = None
) -> None:
    """Make SGD's step at the rate `group["lr"] * scale` and fill in the momentum buffers.

    Args:
        batch: what to update.
        scale: the factor on the rate; as a 0-dim tensor it is never read.
        keep: 0-dim bool tensor, never read: where False, parameters and buffers stay as they are,
            whatever the gradients hold. None makes the step unconditionally.
        grad_scale: the factor that a `GradScaler` has put on the gradients of a fused step.
    """
    if not isinstance(scale, Tensor):
        _sgd(batch, batch.group["lr"] * scale, grad_scale)
        return
    # torch.compile breaks its graph at torch's fused kernel, and fuses the other form by itself.
    fused = batch.group["fused"] and not torch.compiler.is_compiling()
    step = _fused_on_device if fused else _on_device
    buffers = batch.momentum_buffers
    for indices in _by_device(batch.params):
        part = batch._replace(
            params=[batch.params[i] for i in indices],
            grads=[batch.grads[i] for i in indices],
            momentum_buffers=[buffers[i] for i in indices] if buffers else [],
        )
        device = part.params[0].device
        step(part, scale.to(device), None if keep is None else keep.to(device), grad_scale)
        for i, buffer in zip(indices, part.momentum_buffers, strict=False):
            buffers[i] = buffer


def clip(params: list[Tensor], max_norm: float, norm: Tensor) -> None:
    """torch.nn.utils.clip_grad_norm_ by a norm that is known, and no pass where nothing is cut."""
    if on_host(norm) and max_norm / (norm + 1e-6) >= 1:
        return
    # The foreach form refuses DTensors of several meshes, a mixture of DTensor and Tensor, and what
    # is conjugated (as a complex one may be) or negated lazily.
    grads = [p.grad for p in params if p.grad is not None]
    one_by_one = any(hasattr(g, "device_mesh") or g.is_complex() for g in grads) or has_lazy(grads)
    foreach = False if one_by_one else None
    torch.nn.utils.clip_grads_with_norm_(params, max_norm, norm, foreach=foreach)


def has_lazy(grads: Tensors) -> bool:
    """Whether real ones are negated lazily, which a kernel that may write them refuses."""
    return not torch.compiler.is_compiling() and any(map(Tensor.is_neg, grads))


def regularised_grads(batch: Batch, grad_scale: Tensor | None) -> list[Tensor]:
    """The gradients of the regularised loss, with a GradScaler's factor where they have one."""
    decay = batch.group["weight_decay"]
    if not batch.group["decay_in_norm"] or decay == 0:
        return batch.grads
    if grad_scale is not None:
        decay = decay * grad_scale
    pairs = zip(batch.grads, batch.params, strict=True)
    return [decayed(g, p, decay, batch.group["maximize"]) for g, p in pairs]


def sparse_kernels_wait(batches: list[Batch]) -> bool:
    """Whether a gradient is sparse, whose kernels read the rate anyway."""
    sparse = any(batch.has_sparse_grad for batch in batches)
    return sparse and not torch.compiler.is_compiling()


def _sgd(
    batch: Batch,
    rate: Any,
    grad_scale: Tensor | None,
    found_inf: Tensor | None = None,
) -> None:
    group = batch.group
    sgd(
        batch.params,
        batch.grads,
        batch.momentum_buffers,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=rate,
        dampening=group["dampening"],
        nesterov=group["nesterov"],
        maximize=group["maximize"],
        has_sparse_grad=batch.has_sparse_grad,
        foreach=group["foreach"],
        fused=group["fused"],
        grad_scale=grad_scale,
        found_inf=found_inf,
    )


def _fused_on_device(
    batch: Batch, scale: Tensor, keep: Tensor | None, grad_scale: Tensor | None
) -> None:
    fresh = [i for i, buffer in enumerate(batch.momentum_buffers) if buffer is None]
    found_inf = None if keep is None else (~keep).float()
    rate = (batch.group["lr"] * scale).float()  # the only dtype that the fused kernel reads
    _sgd(batch, rate, grad_scale, found_inf)
    if keep is None or batch.group["momentum"] == 0:
        return
    for i in fresh:  # the kernel leaves them uninitialised where the first step is dropped
        buffer = cast(Tensor, batch.momentum_buffers[i])
        buffer.copy_(torch.where(keep, buffer, 0))


def _on_device(batch: Batch, scale: Tensor, keep: Tensor | None, grad_scale: Tensor | None) -> None:
    """The foreach and for-loop forms, whose rate torch.optim.sgd would read back to the host.

    There the rate is a number of the host that scales the direction inside a kernel. Here `scale`
    multiplies the direction first and `lr` remains that number: the same products in the same
    order, so the step is SGD's to the last bit while `scale` is 1.
    """
    group = batch.group
    params, grads = _elements(batch.params), _elements(batch.grads)
    if grad_scale is not None:
        grads = torch._foreach_div(grads, grad_scale)
    if group["maximize"]:
        grads = torch._foreach_neg(grads)
    if group["weight_decay"] != 0:
        grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
    directions = _momentum(batch, grads, keep) if group["momentum"] != 0 else grads

    lr = group["lr"]
    rate, alpha = (lr.squeeze() * scale, -1.0) if isinstance(lr, Tensor) else (scale, -lr)
    steps: Tensors = torch._foreach_mul([_widened(d) for d in directions], rate)
    if keep is not None:
        zero = torch.zeros((), device=scale.device)  # a plain 0 would be made anew for each
        steps = [torch.where(keep, step, zero) for step in steps]
    torch._foreach_add_(params, steps, alpha=alpha)


def _momentum(batch: Batch, grads: Tensors, keep: Tensor | None) -> Tensors:
    """Advance the momentum buffers and return the directions of the step."""
    fresh = [buffer is None for buffer in batch.momentum_buffers]
    for i, is_fresh in enumerate(fresh):
        if is_fresh:
            batch.momentum_buffers[i] = torch.zeros_like(batch.grads[i])
    buffers = _elements(batch.momentum_buffers)

    momentum = batch.group["momentum"]
    directions: Tensors = torch._foreach_mul(buffers, momentum)
    torch._foreach_add_(directions, grads, alpha=1 - batch.group["dampening"])
    directions = [g if new else d for g, d, new in zip(grads, directions, fresh, strict=True)]
    kept = directions
    if keep is not None:
        kept = [torch.where(keep, d, b) for d, b in zip(directions, buffers, strict=True)]
    torch._foreach_copy_(buffers, kept)
    if batch.group["nesterov"]:
        directions = torch._foreach_add(grads, directions, alpha=momentum)
    return directions


def _by_device(tensors: Tensors) -> list[list[int]]:
    indices = defaultdict(list)
    for i, tensor in enumerate(tensors):
        indices[tensor.device].append(i)
    return list(indices.values())


def _elements(tensors: Sequence[Any]) -> Tensors:
    """Each rank's own part of a DTensor, and of a complex tensor its real and imaginary parts.

    What SGD does to an element depends on no other, and a step of 0 leaves each sign as it is.
    """
    local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
    return [torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in local]


def _widened(tensor: Tensor) -> Tensor:
    """In float16 or bfloat16 the scale itself would be rounded, to 11 or 8 bits."""
    return tensor.float() if tensor.dtype in _LOW_PRECISION else tensor
