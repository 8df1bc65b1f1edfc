"""What carries big runs: pipeline stages, mixed precision with CPU offload, no_sync, torchrun."""

import json
import math
import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from _distributed import Collectives, Group, full, run_group
from _reference import ROUNDING, scales
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

import zenith
from zenith.torch import Zenith, ZenithLR

WINDOW = 3
SIZES = (1.0, 2.0, 0.5, 0.2, 3.0, 0.1, 0.1, 1.0)  # of the targets: they move the scale


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2))


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return [(normal(8, 5), size * normal(8, 2)) for size in SIZES]


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


def run_of(model: nn.Module, found: list[float], **more: Any) -> dict[str, Any]:
    weights = {name: full(p) for name, p in model.named_parameters()}
    return {"scales": found, "weights": weights, **more}


# --- one process


def alone() -> dict[str, Any]:
    model = network()
    optimizer = Zenith(model.parameters(), lr=0.1, window=WINDOW, momentum=0.9)
    found = []
    for x, y in data():
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        optimizer.step()
        found.append(optimizer.zenith_state.scale.item())
    return run_of(model, found)


# --- scenarios, each on every rank


def norm_over_stages(stage: nn.Module) -> Tensor:
    """What docs/distributed.md tells a user to write."""
    square = get_total_norm([p.grad for p in stage.parameters()]) ** 2
    dist.all_reduce(square)  # in the group of the stages
    return square.sqrt()


def pipeline() -> dict[str, Any]:
    """Two stages that hold different parameters: the norm spans both."""
    rank, layers = dist.get_rank(), network()
    module = layers[:2] if rank == 0 else layers[2:]
    schedule = ScheduleGPipe(
        PipelineStage(module, rank, 2, torch.device("cpu")), n_microbatches=4, loss_fn=loss_of
    )
    optimizer = Zenith(module.parameters(), lr=0.1, window=WINDOW, momentum=0.9)
    found = []
    for x, y in data():
        optimizer.zero_grad()
        schedule.step(x) if rank == 0 else schedule.step(target=y)
        with Collectives() as seen:
            optimizer.step(grad_norm=norm_over_stages(module))
        found.append(optimizer.zenith_state.scale.item())
    return run_of(module, found, collectives=seen.calls)


def accumulated() -> dict[str, Any]:
    """DDP with four micro-batches to a step, of which only the last one is summed over ranks."""
    rank, model = dist.get_rank(), network()
    replica = DistributedDataParallel(model)
    optimizer = Zenith(replica.parameters(), lr=0.1, window=WINDOW, momentum=0.9)
    found = []
    for x, y in data():
        optimizer.zero_grad()
        rows = list(zip(x[rank::2].split(1), y[rank::2].split(1), strict=True))
        with replica.no_sync():
            for a, b in rows[:-1]:
                (loss_of(replica(a), b) / len(rows)).backward()
        a, b = rows[-1]
        (loss_of(replica(a), b) / len(rows)).backward()
        with Collectives() as seen:
            optimizer.step()
        found.append(optimizer.zenith_state.scale.item())
    count = int(optimizer.zenith_state.count)
    return run_of(model, found, collectives=seen.calls, count=count)


def fsdp(precision: str, offload: bool) -> dict[str, Any]:
    """FSDP2; what the optimizer saw is recorded by gathering the whole gradient at every step."""
    rank, mesh = dist.get_rank(), init_device_mesh("cpu", (2,))
    policy: dict[str, Any] = {}
    if precision == "bfloat16":
        policy["mp_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    if offload:
        policy["offload_policy"] = CPUOffloadPolicy(pin_memory=False)
    model = network()
    for layer in (model[0], model[2], model[4]):
        fully_shard(layer, mesh=mesh, **policy)
    fully_shard(model, mesh=mesh, **policy)
    optimizer = Zenith(model.parameters(), lr=0.1, window=WINDOW, momentum=0.9)
    found, norms = [], []
    for x, y in data():
        optimizer.zero_grad()
        loss_of(model(x[rank::2]), y[rank::2]).backward()
        gradients = [full(p.grad).double() for p in model.parameters()]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        with Collectives() as seen:
            optimizer.step()
        found.append(optimizer.zenith_state.scale.item())
    return run_of(model, found, norms=norms, collectives=seen.calls)


def zero_redundancy(told: str) -> dict[str, Any]:
    """Two weights, of which each rank steps one; every rank has both gradients, as with DDP."""
    with warnings.catch_warnings():  # torch scripts what it has deprecated itself
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.distributed.optim import ZeroRedundancyOptimizer
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    if told == "ZenithLR":
        optimizer: Any = ZeroRedundancyOptimizer(weights, torch.optim.SGD, lr=0.1)
        keeper: Any = ZenithLR(optimizer, window=1)
    else:
        optimizer = ZeroRedundancyOptimizer(weights, Zenith, lr=0.1, window=1)
        keeper = optimizer.optim
    rates = []
    for first, second in ((4.0, 1.0), (2.0, 1.0)):
        weights[0].grad, weights[1].grad = torch.tensor([first]), torch.tensor([second])
        norm = get_total_norm([weight.grad for weight in weights])
        optimizer.step(**({"grad_norm": norm} if told == "grad_norm" else {}))
        rates += keeper.get_last_lr()
    return {"rates": rates, "weights": [weight.item() for weight in weights]}


FSDP = [(precision, offload) for precision in ("float32", "bfloat16") for offload in (False, True)]
TOLD = ("nothing", "grad_norm", "ZenithLR")
SCENARIOS = {
    "pipeline": pipeline,
    "accumulated": accumulated,
    **{f"fsdp-{p}-{o}": partial(fsdp, p, o) for p, o in FSDP},
    **{f"zero-{told}": partial(zero_redundancy, told) for told in TOLD},
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Group:
    return run_group(tmp_path_factory.mktemp("two"), 2, SCENARIOS)


def assert_like_one_process(runs: list[dict[str, Any]]) -> None:
    expected = alone()
    assert min(expected["scales"]) < 0.9
    assert runs[0]["scales"] == runs[1]["scales"], "ranks must agree to the last bit"
    assert runs[0]["scales"] == pytest.approx(expected["scales"], rel=0, abs=ROUNDING)
    for run in runs:
        for name, weight in run["weights"].items():
            torch.testing.assert_close(
                weight, expected["weights"][name], rtol=ROUNDING, atol=ROUNDING
            )


def test_pipeline_stages_hand_the_norm_over_all_of_them(two: Group) -> None:
    runs = two.results("pipeline")
    names = [set(run["weights"]) for run in runs]
    assert not names[0] & names[1]
    assert_like_one_process(runs)
    assert [run["collectives"] for run in runs] == [[("allreduce_", 1)]] * 2


def test_no_sync_gives_one_norm_for_each_update(two: Group) -> None:
    runs = two.results("accumulated")
    assert_like_one_process(runs)
    assert [run["count"] for run in runs] == [len(SIZES)] * 2
    assert [run["collectives"] for run in runs] == [[], []]


@pytest.mark.parametrize(("precision", "offload"), FSDP)
def test_fsdp_in_mixed_precision_and_with_cpu_offload(
    two: Group, precision: str, offload: bool
) -> None:
    runs = two.results(f"fsdp-{precision}-{offload}")
    for run in runs:
        assert run["scales"] == pytest.approx(scales(run["norms"], WINDOW), rel=ROUNDING)
        assert run["collectives"] == [("all_reduce", 1)]
    if precision == "float32":
        assert_like_one_process(runs)
    else:  # the gradients themselves are rounded to bfloat16, one part in 256
        expected = alone()["scales"]
        assert runs[0]["scales"] == pytest.approx(expected, abs=0.02)
        assert runs[0]["scales"] != pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("told", TOLD)
def test_zero_redundancy_optimizer_is_right_where_it_is_told_the_norm(
    two: Group, told: str
) -> None:
    """Norms sqrt(17) and sqrt(5) of the whole, 4 and 2 of rank 0's part, 1 and 1 of rank 1's."""
    whole = 0.1 * math.sqrt(5 / 17)
    assert whole == pytest.approx(0.0542, abs=5e-5)
    expected = (0.05, 0.1) if told == "nothing" else (whole, whole)
    for run, rate in zip(two.results(f"zero-{told}"), expected, strict=True):
        assert run["rates"] == pytest.approx([0.1, rate], rel=1e-6)
        weights = [-0.1 * 4 - expected[0] * 2, -0.1 * 1 - expected[1] * 1]
        assert run["weights"] == pytest.approx(weights, rel=1e-6)


# --- a rank that is killed


ELASTIC = Path(__file__).with_name("_torch_elastic.py")


def torchrun(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run the script on two ranks; return what each rank has written at the end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # torch 2.13: workers that are started anew otherwise find, in the store that they share with
    # torchrun, the address of a rank that is no more; and then often fail or hang.
    fresh_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **fresh_store}
    source = str(Path(zenith.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([source, environment.get("PYTHONPATH", "")])
    result = subprocess.run(
        [*command, "--max-restarts=1", str(ELASTIC), str(folder), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_a_killed_rank_resumes_from_the_last_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = torchrun(tmp_path / "whole")
    killed = torchrun(tmp_path / "killed", "--kill-rank-1-at-step", "7")
    assert [run["restarts"] for run in (*whole, *killed)] == [0, 0, 1, 1]
    assert [run["resumed at"] for run in (*whole, *killed)] == [0, 0, 6, 6]
    assert min(killed[0]["scales"]) < 0.9
    for ours, theirs in zip(killed, whole, strict=True):
        for name in ("scales", "state", "weights"):
            assert ours[name] == theirs[name]
    assert killed[0]["state"] == killed[1]["state"]
