"""Saving and loading a scheduler."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from _checkpoint import (
    BASES,
    STEPS,
    WINDOW,
    assert_same,
    assert_same_run,
    bases,
    copy_parameters,
    cuts,
    parameters,
    run,
    saved_and_loaded,
    scheduled,
)
from torch.optim import SGD

from zenith.torch import ZenithLR


@cuts
@bases
def test_a_scheduler_resumes_bit_exactly(base: Callable[..., Any], cut: int) -> None:
    whole, first, second = scheduled(base), scheduled(base), scheduled(base)
    run(whole[0], range(STEPS))
    run(first[0], range(cut))
    document = [part.state_dict() for part in first]
    loaded = saved_and_loaded(document)
    assert_same(loaded, document)
    copy_parameters(first[0], second[0])
    for part, saved in zip(second, loaded, strict=True):
        part.load_state_dict(saved)
    assert_same(second[1].zenith_state, first[1].zenith_state)
    run(second[0], range(cut, STEPS))
    assert_same_run(second[0], whole[0])
    assert_same(second[1].state_dict(), whole[1].state_dict())
    assert_same(second[1].get_last_lr(), whole[1].get_last_lr())
    assert whole[1].zenith_state.scale < 0.9


@bases
def test_a_schedulers_count_of_skipped_norms_is_saved(base: Callable[..., Any]) -> None:
    (optimizer, scheduler), (_, second) = scheduled(base), scheduled(base)
    run(optimizer, range(7), bad=5)
    second.load_state_dict(saved_and_loaded(scheduler.state_dict()))
    assert_same(second.zenith_state, scheduler.zenith_state)
    assert (second.zenith_state.count, second.zenith_state.skipped) == (6, 1)


def test_a_scheduler_refuses_another_window_by_naming_both() -> None:
    optimizer, scheduler = scheduled(BASES["sgd"])
    run(optimizer, range(7))
    before = copy.deepcopy(scheduler.state_dict())
    other = ZenithLR(SGD(parameters(), lr=0.3), window=WINDOW + 1).state_dict()
    with pytest.raises(ValueError, match=rf"`window`.*{WINDOW}, got {WINDOW + 1}"):
        scheduler.load_state_dict(other)
    assert_same(scheduler.state_dict(), before)


def test_a_scheduler_refuses_a_corrupted_state() -> None:
    optimizer, scheduler = scheduled(BASES["sgd"])
    run(optimizer, range(7))
    before = copy.deepcopy(scheduler.state_dict())
    corrupted = copy.deepcopy(before)
    corrupted["zenith_state"]["norms"][1] = torch.nan
    with pytest.raises(ValueError, match="`norms`"):
        scheduler.load_state_dict(corrupted)
    assert_same(scheduler.state_dict(), before)


@bases
def test_later_steps_leave_a_schedulers_state_dict_as_it_was(base: Callable[..., Any]) -> None:
    optimizer, scheduler = scheduled(base)
    run(optimizer, range(7))
    document = scheduler.state_dict()
    before = copy.deepcopy(document)
    twin = scheduled(base)[1]
    twin.load_state_dict(document)
    run(optimizer, range(7, STEPS))
    assert_same(document, before)
    assert_same(twin.zenith_state._asdict(), before["zenith_state"])
