"""On several processes every rank has the scale of the single-process run on the global batch."""

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from _distributed import Collectives, Group, full, run_group
from _reference import ROUNDING
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW

from zenith.torch import Zenith, ZenithLR

WINDOW = 3
LOSS_WEIGHTS = (1.0, 2.0, 0.5, 0.2, 3.0, 0.1, 0.1, 1.0)  # they move the scale up and down
BATCH_SIZE = 4
BAD_STEP = 5


class Layout(NamedTuple):
    """A model as it lies on the ranks, and which rows of a global batch this rank takes."""

    model: nn.Module
    share: slice = slice(None)


class Run(NamedTuple):
    """What a training run leaves behind: lists and tensors that `torch.save` can write."""

    scales: list[float]
    weights: list[Tensor]
    skipped: int
    collectives: list[list[tuple[str, int]]]


# --- the models, and how they are spread -----------------------------------------------------


def uneven_network() -> nn.Module:
    """Its dimensions are 5, 3 and 1, so that no parameter divides by two."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1))


def one_row_network() -> nn.Module:
    """Of which rank 1 gets empty shards only."""
    torch.manual_seed(0)
    return nn.Linear(5, 1)


def even_network() -> nn.Module:
    """Tensor parallelism wants even dimensions; the last layer is left whole on every rank."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2)
    )


def whole(model: nn.Module) -> Layout:
    return Layout(model)


def ddp(model: nn.Module) -> Layout:
    share = slice(dist.get_rank(), None, dist.get_world_size())
    return Layout(DistributedDataParallel(model), share)


def fsdp(model: nn.Module) -> Layout:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    share = slice(dist.get_rank(), None, dist.get_world_size())
    return Layout(fully_shard(model, mesh=mesh), share)


def tensor_parallel(model: nn.Module) -> Layout:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    return Layout(parallelize_module(model, mesh, plan))


def sequence_parallel(model: nn.Module) -> Layout:
    """The gradient of the LayerNorm is `Partial`: not summed yet over the ranks."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    rows = Shard(0)
    plan = {
        "0": ColwiseParallel(),
        "2": RowwiseParallel(output_layouts=rows),
        "3": SequenceParallel(sequence_dim=0),
        "4": ColwiseParallel(input_layouts=rows, output_layouts=Replicate()),
    }
    return Layout(parallelize_module(model, mesh, plan))


def fsdp_and_tensor_parallel(model: nn.Module) -> Layout:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    parallelize_module(model, mesh["tensor"], plan)
    fully_shard(model, mesh=mesh["data"])
    return Layout(model, slice(mesh["data"].get_local_rank(), None, 2))


# --- the optimizers ---------------------------------------------------------------------------


def zenith(model: nn.Module, **keywords: Any) -> tuple[Zenith, Zenith]:
    optimizer = Zenith(model.parameters(), lr=0.1, window=WINDOW, **keywords)
    return optimizer, optimizer


def scheduled(optimizer_class: type, model: nn.Module, **keywords: Any) -> Any:
    optimizer = optimizer_class(model.parameters(), **keywords)
    return optimizer, ZenithLR(optimizer, window=WINDOW)


class Case(NamedTuple):
    make: Callable[[nn.Module], Any]  # -> the optimizer and the keeper of the zenith_state
    clip: float | None = None  # clip_grad_norm_ before the step, which is told the norm
    spoil: str | None = None  # how the gradient of BAD_STEP becomes NaN or infinite


CASES = {
    "plain": Case(zenith),
    "momentum": Case(partial(zenith, momentum=0.9, weight_decay=0.01)),
    "nesterov": Case(partial(zenith, momentum=0.9, nesterov=True, foreach=False)),
    "decay-in-norm": Case(partial(zenith, weight_decay=0.1, decay_in_norm=True)),
    "max-grad-norm": Case(partial(zenith, max_grad_norm=0.1)),
    "grad-norm": Case(zenith, clip=0.1),
    "nan-data": Case(partial(zenith, momentum=0.9), spoil="data"),
    "inf-shard": Case(partial(zenith, momentum=0.9), spoil="shard"),
    "lr-sgd": Case(partial(scheduled, SGD, lr=0.1, momentum=0.9)),
    "lr-adamw": Case(partial(scheduled, AdamW, lr=0.01)),
    "lr-grad-norm": Case(partial(scheduled, SGD, lr=0.1), clip=0.1),
}
SHARDED_CASES = {**CASES, "foreach": Case(partial(zenith, momentum=0.9, foreach=True))}
TENSOR_PARALLEL_CASES = [
    name for name in CASES if name not in ("grad-norm", "lr-grad-norm")
]  # clip_grad_norm_ itself refuses a mixture of Tensor and DTensor

LAYOUTS = {
    "ddp": (uneven_network, ddp, list(SHARDED_CASES)),
    "fsdp": (uneven_network, fsdp, list(SHARDED_CASES)),
    "fsdp-empty-shard": (one_row_network, fsdp, ["plain", "momentum", "max-grad-norm"]),
    "tp": (even_network, tensor_parallel, TENSOR_PARALLEL_CASES),
    "sp": (even_network, sequence_parallel, list(CASES)),
}
TWO_RANKS = [(layout, case) for layout, (_, _, cases) in LAYOUTS.items() for case in cases]
LAYOUTS["fsdp-tp"] = (even_network, fsdp_and_tensor_parallel, TENSOR_PARALLEL_CASES)
FOUR_RANKS = list(product(["fsdp-tp"], TENSOR_PARALLEL_CASES))


# --- one training run, the same in one process and on every rank ---------------------------------


def global_batches(model: nn.Module, spoil: str | None) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    width = [p.shape[0] for p in model.parameters()][-1]
    batches = [
        (
            torch.randn(BATCH_SIZE, 5, generator=generator),
            torch.randn(BATCH_SIZE, width, generator=generator),
        )
        for _ in LOSS_WEIGHTS
    ]
    if spoil == "data":
        batches[BAD_STEP][0][1] = math.nan  # a row of rank 1 only
    return batches


def spoil_shard(model: nn.Module) -> None:
    """Put one infinite entry into the gradient where the last rank keeps its share of it."""
    last = not dist.is_initialized() or dist.get_rank() == dist.get_world_size() - 1
    gradient = next(model.parameters()).grad
    if not isinstance(gradient, DTensor):
        gradient[-1, -1] = math.inf
    elif last:
        gradient.to_local()[-1, -1] = math.inf


def train(network: Callable[[], nn.Module], spread: Callable[..., Layout], case: Case) -> Run:
    batches = global_batches(network(), case.spoil)
    model, share = spread(network())
    optimizer, keeper = case.make(model)
    scales, collectives = [], []
    for i, ((x, y), weight) in enumerate(zip(batches, LOSS_WEIGHTS, strict=True)):
        optimizer.zero_grad()
        (weight * (model(x[share]) - y[share]).square().mean()).backward()
        if case.spoil == "shard" and i == BAD_STEP:
            spoil_shard(model)
        keywords = {}
        if case.clip is not None:
            keywords["grad_norm"] = nn.utils.clip_grad_norm_(model.parameters(), case.clip)
        with Collectives() as seen:
            optimizer.step(**keywords)
        collectives.append(seen.calls)
        scales.append(keeper.zenith_state.scale.item())
    weights = [full(p) for p in model.parameters()]
    return Run(scales, weights, keeper.zenith_state.skipped.item(), collectives)


def scenarios(pairs: list[tuple[str, str]]) -> dict[str, Callable[[], Run]]:
    return {
        f"{layout}-{case}": partial(train, *LAYOUTS[layout][:2], SHARDED_CASES[case])
        for layout, case in pairs
    }


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Group:
    return run_group(tmp_path_factory.mktemp("two"), 2, scenarios(TWO_RANKS))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Group:
    return run_group(tmp_path_factory.mktemp("four"), 4, scenarios(FOUR_RANKS))


# --- the tests ----------------------------------------------------------------------------------


def assert_like_single_process(group: Group, layout: str, case: str) -> None:
    alone = train(LAYOUTS[layout][0], whole, SHARDED_CASES[case])
    assert min(alone.scales) < 0.9, "the run must pass the filling of the window and move the scale"
    assert alone.scales[: WINDOW - 1] == [1.0] * (WINDOW - 1)
    runs = group.results(f"{layout}-{case}")
    assert all(run.scales == runs[0].scales for run in runs), "ranks must agree to the last bit"
    for run in runs:
        assert run.scales == pytest.approx(alone.scales, rel=0, abs=ROUNDING)
        assert run.skipped == alone.skipped == (SHARDED_CASES[case].spoil is not None)
        torch.testing.assert_close(run.weights, alone.weights, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize(("layout", "case"), TWO_RANKS)
def test_two_ranks_have_the_single_process_scale(two: Group, layout: str, case: str) -> None:
    assert_like_single_process(two, layout, case)


@pytest.mark.parametrize(("layout", "case"), FOUR_RANKS)
def test_four_ranks_have_the_single_process_scale(four: Group, layout: str, case: str) -> None:
    assert_like_single_process(four, layout, case)


@pytest.mark.parametrize("case", ["nan-data", "inf-shard"])
@pytest.mark.parametrize("layout", ["ddp", "fsdp", "tp"])
def test_all_ranks_skip_a_non_finite_step_together(two: Group, layout: str, case: str) -> None:
    for run in two.results(f"{layout}-{case}"):
        assert run.scales[BAD_STEP] == run.scales[BAD_STEP - 1]
        assert run.skipped == 1
        assert all(weight.isfinite().all() for weight in run.weights)


@pytest.mark.parametrize("case", ["plain", "lr-sgd"])
@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("ddp", []),  # every rank has the whole gradient
        ("fsdp", [("all_reduce", 1)]),
        ("fsdp-empty-shard", [("all_reduce", 1)]),
        ("tp", [("all_reduce", 1)]),  # columns and rows together; the replicated ones cost none
    ],
)
def test_a_step_adds_one_scalar_all_reduce_for_each_kind_of_sharding(
    two: Group, layout: str, case: str, expected: list[tuple[str, int]]
) -> None:
    if layout == "fsdp-empty-shard":
        case = "plain"
    for run in two.results(f"{layout}-{case}"):
        assert run.collectives == [expected] * len(LOSS_WEIGHTS)


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_a_norm_that_is_given_costs_no_norm_of_its_own(two: Group, layout: str) -> None:
    for run in two.results(f"{layout}-grad-norm"):
        assert run.collectives == [[]] * len(LOSS_WEIGHTS)
