"""One run on several devices: under torchrun each process takes its part of every batch."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # imported later, by DDP, it would hold the process group for ever
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from experiments.errors import UserError

__all__ = ["agreed", "alone", "joined", "leads", "mean", "part", "replicated"]

T = TypeVar("T")


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that torchrun has started, if it has; yield the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    yield f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    # Once no model holds the group, gloo's threads end here; later, they would abort the process.
    gc.collect()
    dist.destroy_process_group()


def _size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def alone() -> bool:
    """Whether no other process takes part in the run."""
    return _size() == 1


def leads() -> bool:
    """Whether this is the process that writes."""
    return alone() or dist.get_rank() == 0


def agreed(found: Callable[[], T]) -> T:
    """Return what the leading process finds, which alone looks; what it cannot mend ends all."""
    if alone():
        return found()
    objects: list[Any] = [None, None]
    if leads():
        try:
            objects[0] = found()
        except UserError as error:
            objects[1] = error
    dist.broadcast_object_list(objects)
    if objects[1]:
        raise objects[1] if leads() else SystemExit(2)  # one complaint is enough
    value: T = objects[0]
    return value


def part(batch: Any) -> Any:
    """Return the part of a batch that is this process': of a tensor, or of a list of examples."""
    size = _size()
    if len(batch) % size:
        raise UserError(f"`--batch-size` must be a multiple of {size} processes, got {len(batch)}")
    if size == 1:
        return batch
    own, rank = len(batch) // size, dist.get_rank()
    return batch[own * rank : own * (rank + 1)]


def mean(loss: Tensor) -> Tensor:
    """Return the mean of the processes' losses, each of as many examples."""
    if not alone():
        loss = loss.detach().clone()
        dist.all_reduce(loss)
        loss /= _size()
    return loss


def replicated(model: nn.Module, device: torch.device) -> nn.Module:
    """Return what to call in place of the model, so that its gradients are those of all.

    Raises:
        UserError: if it has batch norm, whose statistics processes share on GPUs alone.
    """
    if alone():
        return model
    if device.type == "cpu" and any(isinstance(each, _BatchNorm) for each in model.modules()):
        raise UserError("torchrun: batch norm is shared among GPUs alone; use `--device cuda`")
    shared = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return DistributedDataParallel(shared, [device] if device.type == "cuda" else None)
