"""Real process groups for the tests: scenarios that run on every rank, and what each returned.

A scenario is a name and a call that can be pickled (a function at the top of a test module, or a
`functools.partial` of one); it runs on every rank and returns what `torch.save` can write. A group
costs seconds to start, so that one group runs many scenarios; each is asked for by its own test.
"""

import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

TIMEOUT = 60  # seconds that a rank waits for another
LIFETIME = 240  # seconds after which a group is ended, whatever it does

_NO_TRAFFIC = ("wait_tensor", "_wrap_tensor_autograd")

Scenarios = dict[str, Callable[[], Any]]


class Group:
    """What the scenarios of one process group have returned."""

    def __init__(self, folder: Path, world_size: int, error: BaseException | None) -> None:
        self.folder, self.world_size, self.error = folder, world_size, error

    def results(self, name: str) -> list[Any]:
        """What a scenario has returned, one for each rank; it fails if one rank did not finish."""
        files = [self.folder / f"{name}.{rank}.pt" for rank in range(self.world_size)]
        if not all(file.exists() for file in files):
            pytest.fail(f"the process group ended before {name!r} did: {self.error}")
        results = [torch.load(file, weights_only=False) for file in files]
        for rank, result in enumerate(results):
            if isinstance(result, _Failure):
                pytest.fail(f"{name!r} failed on rank {rank}:\n{result.traceback}")
        return results


def run_group(folder: Path, world_size: int, scenarios: Scenarios) -> Group:
    """Run the scenarios, one after another, on `world_size` processes; never hang."""
    folder.mkdir(exist_ok=True)
    context = mp.spawn(_rank, (world_size, str(folder), scenarios), world_size, join=False)
    end, error = time.monotonic() + LIFETIME, None
    try:
        while not context.join(timeout=max(0.1, end - time.monotonic())):
            if time.monotonic() >= end:
                raise TimeoutError(f"a rank did not end within {LIFETIME} s")
    except Exception as failure:  # among them a rank's own, with its traceback
        error = failure
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
            process.join(10)
    return Group(folder, world_size, error)


@contextmanager
def single_process_group(folder: Path) -> Iterator[None]:
    """A process group of this process alone, which DDP and a device mesh ask for."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/one", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Collectives(TorchDispatchMode):
    """Records the name and the size of every collective that is begun inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(t, DTensor) for t in types):
            return NotImplemented  # let it do what it does to plain tensors, in here
        namespace, name = func._schema.name.split("::")
        if namespace in ("c10d", "_c10d_functional") and name not in _NO_TRAFFIC:
            tensors = torch.utils._pytree.tree_leaves((args, kwargs))
            sizes = [t.numel() for t in tensors if isinstance(t, torch.Tensor)]
            self.calls.append((name, sum(sizes)))
        return func(*args, **(kwargs or {}))


def full(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of all of a tensor, on every rank."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().clone()


class _Failure(NamedTuple):
    traceback: str


def _rank(rank: int, world_size: int, folder: str, scenarios: Scenarios) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    store = dist.FileStore(f"{folder}/store", world_size)
    patience = timedelta(seconds=TIMEOUT)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=patience)
    for name, scenario in scenarios.items():
        try:
            result = scenario()
        except Exception:
            result = _Failure(traceback.format_exc())
        torch.save(result, f"{folder}/{name}.{rank}.part")
        Path(f"{folder}/{name}.{rank}.part").rename(f"{folder}/{name}.{rank}.pt")
        # After a failure on every rank the group is still in step; after one on some it is not,
        # and this wait ends it.
        store.set(f"{name}.{rank}", "done")
        store.wait([f"{name}.{other}" for other in range(world_size)], patience)
    dist.destroy_process_group()
