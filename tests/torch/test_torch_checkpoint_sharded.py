"""Saving and loading by torch.distributed.checkpoint between one process and FSDP2 on several."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from _checkpoint import (
    SIZES,
    STEPS,
    WAYS,
    WINDOW,
    assert_same,
    buffers_of,
    copy_parameters,
    momenta,
    network,
)
from _distributed import Group, full, run_group, single_process_group
from _reference import ROUNDING
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from zenith.torch import Zenith

MOMENTA = (0.0, 0.9)
CUT = 7


def batches(steps: range) -> Iterator[tuple[Tensor, Tensor]]:
    for i in steps:
        generator = torch.Generator().manual_seed(i)
        x, y = torch.randn(4, 5, generator=generator), torch.randn(4, 1, generator=generator)
        yield x, y * SIZES[i % len(SIZES)]


def train(model: nn.Module, optimizer: Any, steps: range, rank: int = 0, of: int = 1) -> None:
    for x, y in batches(steps):
        optimizer.zero_grad()
        (model(x[rank::of]) - y[rank::of]).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()


def optimized(model: nn.Module, momentum: float) -> tuple[nn.Module, Zenith]:
    return model, Zenith(model.parameters(), lr=0.05, window=WINDOW, momentum=momentum)


def save(model: nn.Module, optimizer: Any, way: Any, folder: Path) -> None:
    parts = get_state_dict(model, optimizer, options=StateDictOptions(**way))
    dcp.save(dict(zip(("model", "optimizer"), parts, strict=True)), checkpoint_id=folder)


def load(model: nn.Module, optimizer: Any, way: Any, folder: Path) -> None:
    options = StateDictOptions(**way)
    parts = get_state_dict(model, optimizer, options=options)
    loaded = dict(zip(("model", "optimizer"), parts, strict=True))
    dcp.load(loaded, checkpoint_id=folder)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=loaded["model"],
        optim_state_dict=loaded["optimizer"],
        options=options,
    )


def contents(model: nn.Module, optimizer: Zenith) -> dict[str, Any]:
    buffers = [buffer.get("momentum_buffer") for buffer in buffers_of(optimizer)]
    return {
        "schedule": optimizer.zenith_state._asdict(),
        "parameters": [full(p) for p in model.parameters()],
        "buffers": [None if buffer is None else full(buffer) for buffer in buffers],
    }


def sharded_network() -> nn.Module:
    return fully_shard(network(), mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def save_from_two(way: Any, momentum: float, folder: Path) -> list[dict[str, Any]]:
    """Train, save and train on; return what was there when it was saved, and at the end."""
    model, optimizer = optimized(sharded_network(), momentum)
    train(model, optimizer, range(CUT), dist.get_rank(), 2)
    save(model, optimizer, way, folder)
    saved = contents(model, optimizer)
    train(model, optimizer, range(CUT, STEPS), dist.get_rank(), 2)
    return [saved, contents(model, optimizer)]


def load_on_two(way: Any, momentum: float, folder: Path) -> list[dict[str, Any]]:
    model, optimizer = optimized(sharded_network(), momentum)
    load(model, optimizer, way, folder)
    loaded = contents(model, optimizer)
    train(model, optimizer, range(CUT, STEPS), dist.get_rank(), 2)
    return [loaded, contents(model, optimizer)]


def load_on_three(momentum: float, folder: Path) -> list[dict[str, Any]]:
    """Every rank takes the whole batch: its mean is the same, and four rows are not for three."""
    model, optimizer = optimized(sharded_network(), momentum)
    load(model, optimizer, WAYS["nested"], folder)
    loaded = contents(model, optimizer)
    train(model, optimizer, range(CUT, STEPS))
    return [loaded, contents(model, optimizer)]


def broadcast_from_one(momentum: float) -> list[dict[str, Any]]:
    """Only rank 0 holds the optimizer's full checkpoint, from which both ranks load."""
    model, optimizer = optimized(sharded_network(), momentum)
    train(model, optimizer, range(CUT), dist.get_rank(), 2)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    document = get_optimizer_state_dict(model, optimizer, options=options)
    assert (document == {}) == (dist.get_rank() == 1)

    fresh_model, fresh = optimized(sharded_network(), momentum)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_optimizer_state_dict(fresh_model, fresh, document, options=options)
    copy_parameters(optimizer, fresh)
    return [contents(model, optimizer), contents(fresh_model, fresh)]


SHARDED_WAYS = {name: WAYS[name] for name in ("nested", "flattened", "full")}
SHARDED = [(name, momentum) for name in SHARDED_WAYS for momentum in MOMENTA]
sharded = pytest.mark.parametrize(("way", "momentum"), SHARDED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def saved_alone(folder: Path) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """What one process has saved for two ranks to load, and what it had at the end."""
    results = {}
    with single_process_group(folder):
        for way, momentum in SHARDED:
            model, optimizer = optimized(network(), momentum)
            train(model, optimizer, range(CUT))
            save(model, optimizer, WAYS[way], folder / f"one-{way}-{momentum}")
            saved = contents(model, optimizer)
            train(model, optimizer, range(CUT, STEPS))
            results[way, momentum] = [saved, contents(model, optimizer)]
    return results


@pytest.fixture(scope="module")
def two(folder: Path, saved_alone: Any) -> Group:
    scenarios: dict[str, Callable[[], Any]] = {}
    for way, momentum in SHARDED:
        of_two, of_one = (folder / f"{n}-{way}-{momentum}" for n in ("two", "one"))
        scenarios[f"save-{way}-{momentum}"] = partial(save_from_two, WAYS[way], momentum, of_two)
        scenarios[f"again-{way}-{momentum}"] = partial(load_on_two, WAYS[way], momentum, of_two)
        scenarios[f"load-{way}-{momentum}"] = partial(load_on_two, WAYS[way], momentum, of_one)
    for momentum in MOMENTA:
        scenarios[f"broadcast-{momentum}"] = partial(broadcast_from_one, momentum)
    return run_group(folder, 2, scenarios)


def assert_close(left: dict[str, Any], right: dict[str, Any]) -> None:
    torch.testing.assert_close(left, right, rtol=ROUNDING, atol=ROUNDING)


@sharded
def test_two_ranks_resume_their_own_checkpoint(two: Group, way: str, momentum: float) -> None:
    saved = two.results(f"save-{way}-{momentum}")
    again = two.results(f"again-{way}-{momentum}")
    assert_same(again, saved)
    assert_same(saved[0], saved[1])


@sharded
@pytest.mark.usefixtures("process_group")
def test_one_process_resumes_what_two_ranks_saved(
    two: Group, folder: Path, way: str, momentum: float
) -> None:
    model, optimizer = optimized(network(), momentum)
    saved, end = two.results(f"save-{way}-{momentum}")[0]
    load(model, optimizer, WAYS[way], folder / f"two-{way}-{momentum}")
    assert_same(contents(model, optimizer), saved)
    train(model, optimizer, range(CUT, STEPS))
    assert_close(contents(model, optimizer), end)
    assert end["schedule"]["scale"] < 0.9


def test_three_ranks_resume_what_two_have_saved(two: Group, folder: Path) -> None:
    runs = {str(m): partial(load_on_three, m, folder / f"two-nested-{m}") for m in MOMENTA}
    for momentum in MOMENTA:
        two.results(f"again-nested-{momentum}")  # fails here if there is nothing to load
    three = run_group(folder / "three", 3, runs)
    for momentum in MOMENTA:
        saved, end = two.results(f"save-nested-{momentum}")[0]
        for loaded, end_of_three in three.results(str(momentum)):
            assert_same(loaded, saved)
            assert_close(end_of_three, end)


@sharded
def test_two_ranks_resume_what_one_process_saved(
    two: Group, saved_alone: Any, way: str, momentum: float
) -> None:
    saved, end = saved_alone[way, momentum]
    for loaded, end_of_two in two.results(f"load-{way}-{momentum}"):
        assert_same(loaded, saved)
        assert_close(end_of_two, end)


@momenta
def test_rank_0_broadcasts_a_full_checkpoint(two: Group, momentum: float) -> None:
    for saved, loaded in two.results(f"broadcast-{momentum}"):
        assert_same(loaded, saved)
        assert saved["schedule"]["count"] == CUT
