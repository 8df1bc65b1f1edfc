"""Saving and loading by torch.distributed.checkpoint, in one process and between several."""

import copy
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from _checkpoint import (
    CUTS,
    SIZES,
    STEPS,
    WINDOW,
    assert_same,
    assert_same_run,
    bases,
    buffers_of,
    copy_parameters,
    cuts,
    momenta,
    run,
    scheduled,
    values_of,
)
from _distributed import Group, full, run_group, single_process_group
from _reference import ROUNDING
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import SGD

from zenith.torch import Zenith, ZenithLR

# --- torch.distributed.checkpoint, in one process -------------------------------------------------


WAYS = {
    "nested": {},
    "flattened": {"flatten_optimizer_state_dict": True},
    "full": {"full_state_dict": True},
    "full-cpu": {"full_state_dict": True, "cpu_offload": True},
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
MODELS = [("float32", cut) for cut in CUTS] + [("bfloat16", "after"), ("frozen", "after")]


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """Without one, `dcp.save` and `dcp.load` warn that they assume a single process."""
    with single_process_group(tmp_path):
        yield


def network(kind: str = "float32") -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1))
    if kind == "frozen":
        model[0].bias.requires_grad_(False)
    return model.to(torch.bfloat16 if kind == "bfloat16" else torch.float32)


def through_memory(model: nn.Module, optimizer: Any, fresh: Any, way: Any, _: Path) -> None:
    options = StateDictOptions(**way)
    document = get_optimizer_state_dict(model, optimizer, options=options)
    # torch shares the momentum buffers of a document with whatever loads it
    set_optimizer_state_dict(*fresh, copy.deepcopy(document), options=options)


def through_disk(model: nn.Module, optimizer: Any, fresh: Any, way: Any, folder: Path) -> None:
    options = StateDictOptions(**way)
    document = {"optimizer": get_optimizer_state_dict(model, optimizer, options=options)}
    dcp.save(document, checkpoint_id=folder / "checkpoint")
    loaded = {"optimizer": get_optimizer_state_dict(*fresh, options=options)}
    dcp.load(loaded, checkpoint_id=folder / "checkpoint")
    set_optimizer_state_dict(*fresh, loaded["optimizer"], options=options)


def through_both_state_dicts(
    model: nn.Module, optimizer: Any, fresh: Any, way: Any, folder: Path
) -> None:
    options = StateDictOptions(**way)
    names = ("model", "optimizer")
    saved = dict(zip(names, get_state_dict(model, optimizer, options=options), strict=True))
    dcp.save(saved, checkpoint_id=folder / "checkpoint")
    loaded = dict(zip(names, get_state_dict(*fresh, options=options), strict=True))
    dcp.load(loaded, checkpoint_id=folder / "checkpoint")
    set_state_dict(
        *fresh,
        model_state_dict=loaded["model"],
        optim_state_dict=loaded["optimizer"],
        options=options,
    )


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("through", [through_memory, through_disk, through_both_state_dicts])
@momenta
@ways
@pytest.mark.parametrize(("kind", "when"), MODELS)
def test_a_distributed_checkpoint_resumes_bit_exactly(
    kind: str, when: str, way: Any, momentum: float, through: Callable[..., None], tmp_path: Path
) -> None:
    cut = CUTS[when]

    def make() -> tuple[nn.Module, Zenith]:
        model = network(kind)
        return model, Zenith(model.parameters(), window=WINDOW, momentum=momentum)

    (_, whole), (model, first), fresh = make(), make(), make()
    run(whole, range(STEPS))
    run(first, range(cut))
    copy_parameters(first, fresh[1])
    before = copy.deepcopy(first)
    through(model, first, fresh, way, tmp_path)
    assert_same_run(first, before)
    assert_same_run(fresh[1], first)
    run(fresh[1], range(cut, STEPS))
    assert_same_run(fresh[1], whole)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("through", [through_memory, through_disk])
@ways
def test_a_parameter_that_never_had_a_gradient(
    way: Any, through: Callable[..., None], tmp_path: Path
) -> None:
    """Without momentum: with it, torch.optim.SGD's own checkpoint cannot be loaded (2.13)."""

    def make() -> tuple[nn.Module, Zenith]:
        model = network()
        return model, Zenith(model.parameters(), window=WINDOW)

    (idle, whole), (model, first), fresh = make(), make(), make()
    run(whole, range(STEPS), idle=[idle[1].bias])
    run(first, range(7), idle=[model[1].bias])
    copy_parameters(first, fresh[1])
    through(model, first, fresh, way, tmp_path)
    run(fresh[1], range(7, STEPS), idle=[fresh[0][1].bias])
    assert_same_run(fresh[1], whole)


@pytest.mark.parametrize("make", [SGD, partial(Zenith, window=WINDOW)], ids=["sgd", "zenith"])
def test_momentum_of_a_parameter_that_never_had_a_gradient_loads_leniently(make: Any) -> None:
    """torch asks for `strict=False`, of SGD as well: a fresh optimizer has a buffer, this none."""
    options = StateDictOptions(strict=False)
    whole_model, model, fresh_model = network(), network(), network()
    whole, first, fresh = (
        make(m.parameters(), lr=0.1, momentum=0.9) for m in (whole_model, model, fresh_model)
    )
    run(whole, range(STEPS), idle=[whole_model[1].bias])
    run(first, range(7), idle=[model[1].bias])
    copy_parameters(first, fresh)
    document = get_optimizer_state_dict(model, first, options=options)
    set_optimizer_state_dict(fresh_model, fresh, copy.deepcopy(document), options=options)
    run(fresh, range(7, STEPS), idle=[fresh_model[1].bias])
    assert_same(values_of(fresh), values_of(whole))
    assert_same(buffers_of(fresh), buffers_of(whole))


@pytest.mark.parametrize("through", [through_memory, through_disk])
@pytest.mark.usefixtures("process_group")
@ways
def test_several_groups_through_a_distributed_checkpoint(
    way: Any, through: Callable[..., None], tmp_path: Path
) -> None:
    def make() -> tuple[nn.Module, Zenith]:
        model = network()
        groups = [
            {"params": model[1].parameters(), "lr": 0.3, "weight_decay": 0.1},
            {"params": model[0].parameters(), "momentum": 0.9, "nesterov": True},
        ]
        return model, Zenith(groups, lr=0.05, window=WINDOW)

    (_, whole), (model, first), fresh = make(), make(), make()
    run(whole, range(STEPS))
    run(first, range(7))
    copy_parameters(first, fresh[1])
    through(model, first, fresh, way, tmp_path)
    run(fresh[1], range(7, STEPS))
    assert_same_run(fresh[1], whole)


@ways
@pytest.mark.parametrize("window", [WINDOW - 1, WINDOW + 1])
def test_another_window_in_memory_is_refused_by_naming_both(way: Any, window: int) -> None:
    options = StateDictOptions(**way)
    model, other_model = network(), network()
    optimizer = Zenith(model.parameters(), window=WINDOW, momentum=0.9)
    other = Zenith(other_model.parameters(), window=window, momentum=0.9)
    run(optimizer, range(7))
    run(other, range(7))
    document = get_optimizer_state_dict(other_model, other, options=options)
    before = copy.deepcopy(optimizer)
    with pytest.raises(ValueError, match=rf"`window`.*{WINDOW}, got {window}"):
        set_optimizer_state_dict(model, optimizer, document, options=options)
    assert_same_run(optimizer, before)


@pytest.mark.usefixtures("process_group")
@ways
@pytest.mark.parametrize("window", [WINDOW - 1, WINDOW + 1])
def test_another_window_on_disk_is_refused_by_naming_both(
    way: Any, window: int, tmp_path: Path
) -> None:
    """It is torch's own refusal: a tensor of another size."""
    options = StateDictOptions(**way)
    model, other_model = network(), network()
    optimizer = Zenith(model.parameters(), window=WINDOW)
    other = Zenith(other_model.parameters(), window=window)
    run(other, range(7))
    document = get_optimizer_state_dict(other_model, other, options=options)
    dcp.save({"optimizer": document}, checkpoint_id=tmp_path / "checkpoint")
    loaded = {"optimizer": get_optimizer_state_dict(model, optimizer, options=options)}
    with pytest.raises(CheckpointException) as caught:
        dcp.load(loaded, checkpoint_id=tmp_path / "checkpoint")
    assert re.search(rf"\[{window}\].*\[{WINDOW}\].*zenith_norms", str(caught.value), re.DOTALL)
    assert optimizer.zenith_state.count == 0


# --- asking for a checkpoint changes nothing ------------------------------------------------------


ZENITHS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1},
    "decay-in-norm": {"weight_decay": 0.1, "decay_in_norm": True},
    "max-grad-norm": {"max_grad_norm": 1.0},
    "tensor-lr": {"lr": torch.tensor(0.1), "foreach": False},
    "fused": {"fused": True},
    "propagate": {"nonfinite": "propagate", "foreach": True},
}


@cuts
@pytest.mark.parametrize("keywords", ZENITHS.values(), ids=ZENITHS.keys())
def test_asking_for_a_checkpoint_changes_nothing(keywords: Any, cut: int) -> None:
    """torch makes a step of its own for it: of zero gradients, while every rate is 0."""
    model, quiet_model = network(), network()
    optimizer, quiet = (
        Zenith(m.parameters(), **{"window": WINDOW, **keywords}) for m in (model, quiet_model)
    )
    get_optimizer_state_dict(model, optimizer)
    for i in range(STEPS):
        run(optimizer, range(i, i + 1))
        run(quiet, range(i, i + 1))
        if i >= cut:
            get_optimizer_state_dict(model, optimizer)
        assert_same(optimizer.zenith_state, quiet.zenith_state)
        assert optimizer.get_last_lr() == quiet.get_last_lr()
        assert_same(model.state_dict(), quiet_model.state_dict())
    assert quiet.zenith_state.count == STEPS


@bases
def test_asking_for_a_checkpoint_changes_no_scheduler(base: Callable[..., Any]) -> None:
    model, quiet_model = network(), network()
    (optimizer, scheduler), (quiet, quiet_scheduler) = (
        scheduled(base, m.parameters()) for m in (model, quiet_model)
    )
    for i in range(STEPS):
        before = scheduler.zenith_state
        get_optimizer_state_dict(model, optimizer)
        assert_same(scheduler.zenith_state, before)
        run(optimizer, range(i, i + 1))
        run(quiet, range(i, i + 1))
        assert_same(scheduler.zenith_state, quiet_scheduler.zenith_state)
        assert_same(scheduler.get_last_lr(), quiet_scheduler.get_last_lr())
        if optimizer.__class__ is SGD:  # the phantom step counts in AdamW's own bias correction
            assert_same(model.state_dict(), quiet_model.state_dict())


@pytest.mark.usefixtures("process_group")
@cuts
@ways
@bases
def test_a_scheduler_resumes_from_a_distributed_checkpoint(
    base: Callable[..., Any], way: Any, cut: int, tmp_path: Path
) -> None:
    options = StateDictOptions(**way)

    def make() -> tuple[nn.Module, Any, ZenithLR]:
        model = network()
        return model, *scheduled(base, model.parameters())

    whole, first, second = make(), make(), make()
    run(whole[1], range(STEPS))
    run(first[1], range(cut))

    def document(model: nn.Module, optimizer: Any, scheduler: ZenithLR) -> dict[str, Any]:
        parts = get_state_dict(model, optimizer, options=options)
        return {"model": parts[0], "optimizer": parts[1], "scheduler": scheduler.state_dict()}

    dcp.save(document(*first), checkpoint_id=tmp_path / "checkpoint")
    loaded = document(*second)
    dcp.load(loaded, checkpoint_id=tmp_path / "checkpoint")
    set_state_dict(
        *second[:2],
        model_state_dict=loaded["model"],
        optim_state_dict=loaded["optimizer"],
        options=options,
    )
    second[2].load_state_dict(loaded["scheduler"])
    assert_same(second[2].zenith_state, first[2].zenith_state)
    run(second[1], range(cut, STEPS))
    assert_same(second[2].zenith_state, whole[2].zenith_state)
    assert_same(second[0].state_dict(), whole[0].state_dict())


# --- torch.distributed.checkpoint, between one process and FSDP2 on two ---------------------------


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
