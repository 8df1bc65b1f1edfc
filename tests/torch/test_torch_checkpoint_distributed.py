"""Saving and loading by torch.distributed.checkpoint, in one process."""

import copy
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from _checkpoint import (
    CUTS,
    STEPS,
    WINDOW,
    assert_same,
    assert_same_run,
    bases,
    buffers_of,
    copy_parameters,
    cuts,
    momenta,
    network,
    run,
    scheduled,
    values_of,
    ways,
)
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.optim import SGD

from zenith.torch import Zenith, ZenithLR

MODELS = [("float32", cut) for cut in CUTS] + [("bfloat16", "after"), ("frozen", "after")]


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
