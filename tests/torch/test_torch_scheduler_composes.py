"""zenith.torch.ZenithLR multiplies: `group["lr"]` is the user's own, whoever writes it."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from _reference import scales
from _stepping import NORMS, SCALES, scalar, sgd, take
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR

from zenith.torch import Zenith, ZenithLR


def test_the_scales_of_these_norms():
    assert scales(NORMS, 3) == pytest.approx(SCALES, rel=1e-12)


# --- other schedulers ---------------------------------------------------------------------------


def test_warm_up_before_it_in_a_sequential_lr_with_adamw():
    weight, twin = scalar(1.0), scalar(1.0)
    optimizer, by_hand = torch.optim.AdamW([weight], lr=1e-3), torch.optim.AdamW([twin], lr=1e-3)
    linear = schedulers.LinearLR(optimizer, 0.1, total_iters=5)
    zenith_lr = ZenithLR(optimizer, window=3)
    both = schedulers.SequentialLR(optimizer, [linear, zenith_lr], [5])
    warm_up = [0.1, 0.28, 0.46, 0.64, 0.82, 1.0, 1.0, 1.0]
    for norm, factor, scale in zip(NORMS, warm_up, SCALES, strict=True):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * factor, rel=1e-12)
        by_hand.param_groups[0]["lr"] = 1e-3 * factor * scale
        for optimizer_, p in ((optimizer, weight), (by_hand, twin)):
            p.grad = torch.full_like(p, norm)
            optimizer_.step()
        assert zenith_lr.get_last_lr() == pytest.approx([1e-3 * factor * scale], rel=1e-12)
        both.step()
    assert both.get_last_lr() == zenith_lr.get_last_lr()
    torch.testing.assert_close(weight, twin, rtol=1e-12, atol=0)


def test_an_older_sequential_lr_hands_over_by_step_0():
    optimizer, _ = sgd()
    zenith_lr = ZenithLR(optimizer, window=3)
    optimizer.param_groups[0]["lr"] = 0.01
    zenith_lr.step(0)  # a loop of the old fashion, whose rate is its own
    assert optimizer.param_groups[0]["lr"] == 0.01
    zenith_lr.last_epoch = -1  # a SequentialLR undoes the first step
    zenith_lr.step(0)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert zenith_lr.last_epoch == 0


BESIDE = {
    "lambda": lambda o, _: schedulers.LambdaLR(o, lambda t: 1 / (1 + t)),
    "lambda by numpy": lambda o, _: schedulers.LambdaLR(o, lambda t: np.cos(np.float64(t) / 8)),
    "cosine": lambda o, _: schedulers.CosineAnnealingLR(o, T_max=8),
    "exponential": lambda o, _: schedulers.ExponentialLR(o, 0.5),
    "one cycle": lambda o, _: schedulers.OneCycleLR(o, 0.4, total_steps=9, cycle_momentum=False),
    "cyclic": lambda o, _: schedulers.CyclicLR(o, 0.1, 0.4, 3, cycle_momentum=False),
    "swa": lambda o, _: SWALR(o, swa_lr=0.02, anneal_epochs=4),
    "warm-up and cosine": lambda o, _: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=3), schedulers.CosineAnnealingLR(o, 5)], [3]
    ),
}
AROUND = {  # these step it themselves
    "warm-up, then it": lambda o, z: schedulers.SequentialLR(
        o, [schedulers.ConstantLR(o, 0.1, total_iters=3), z or schedulers.ConstantLR(o, 1.0)], [3]
    ),
    "it, then cosine": lambda o, z: schedulers.SequentialLR(
        o, [z or schedulers.ConstantLR(o, 1.0), schedulers.CosineAnnealingLR(o, 5)], [3]
    ),
    "chained before": lambda o, z: schedulers.ChainedScheduler(
        [schedulers.ExponentialLR(o, 0.5), z or schedulers.ConstantLR(o, 1.0)]
    ),
    "chained after": lambda o, z: schedulers.ChainedScheduler(
        [z or schedulers.ConstantLR(o, 1.0), schedulers.ExponentialLR(o, 0.5)]
    ),
}


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("name", BESIDE | AROUND)
def test_another_scheduler_writes_what_it_would_without_it(name, tensor_lr):
    """The groups' rates are those of a twin without ZenithLR, and the steps' are scaled."""
    lrs = [torch.tensor(0.1, dtype=torch.float64) if tensor_lr else 0.1 for _ in range(2)]
    (optimizer, weight), (twin, twins_weight) = map(sgd, lrs)
    zenith_lr = ZenithLR(optimizer, window=3)
    make = (BESIDE | AROUND)[name]
    beside, plain = make(optimizer, zenith_lr), make(twin, None)
    for norm, scale in zip(NORMS, SCALES, strict=True):
        assert float(optimizer.param_groups[0]["lr"]) == float(twin.param_groups[0]["lr"])
        rate, plain_rate = take(optimizer, weight, norm), take(twin, twins_weight, norm)
        assert rate == pytest.approx(plain_rate * scale, rel=1e-9)
        assert float(zenith_lr.get_last_lr()[0]) == pytest.approx(plain_rate * scale, rel=1e-9)
        beside.step()
        plain.step()
        if name in BESIDE:
            zenith_lr.step()
    if tensor_lr:
        assert optimizer.param_groups[0]["lr"] is lrs[0]


def test_it_may_be_made_after_another():
    optimizer, weight = sgd()
    halving = schedulers.ExponentialLR(optimizer, 0.5)
    assert take(optimizer, weight, 8.0) == pytest.approx(0.1)
    halving.step()
    zenith_lr = ZenithLR(optimizer, window=1)
    assert [take(optimizer, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.05, 0.0125])
    halving.step()
    assert (optimizer.param_groups[0]["lr"], zenith_lr.get_lr()) == (0.025, [0.025])


def test_reduce_on_plateau_writes_what_it_would():
    optimizer, weight = sgd()
    zenith_lr = ZenithLR(optimizer, window=1)
    plateau = schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    rates = []
    for norm in (4.0, 2.0, 1.0):
        rates.append(take(optimizer, weight, norm))
        plateau.step(1.0)
    assert rates == pytest.approx([0.1, 0.1 * 2 / 4, 0.05 * 1 / 4], rel=1e-12)
    assert optimizer.param_groups[0]["lr"] == 0.025
    assert zenith_lr.get_last_lr() == [0.05 / 4]


def test_a_chained_scheduler_tells_the_rate_before_it_is_scaled():
    """It reads `group["lr"]` and asks no scheduler; the rate in force is ZenithLR's to tell."""
    optimizer, weight = sgd()
    half, zenith_lr = schedulers.ExponentialLR(optimizer, 0.5), ZenithLR(optimizer, window=1)
    chained = schedulers.ChainedScheduler([half, zenith_lr])
    for norm in (4.0, 1.0):
        take(optimizer, weight, norm)
        chained.step()
    assert zenith_lr.get_last_lr() == [0.05 / 4]
    assert chained.get_last_lr() == [optimizer.param_groups[0]["lr"]] == [0.025]


# --- a hand -------------------------------------------------------------------------------------


def test_what_is_written_by_hand_is_multiplied():
    optimizer, weight = sgd()
    zenith_lr, group = ZenithLR(optimizer, window=1), optimizer.param_groups[0]
    assert take(optimizer, weight, 4.0) == pytest.approx(0.1)
    assert take(optimizer, weight, 1.0) == pytest.approx(0.1 / 4)
    group["lr"] *= 0.1
    assert take(optimizer, weight, 1.0) == pytest.approx(0.01 / 4)
    group["lr"] = 0  # frozen, and measured all the same
    assert take(optimizer, weight, 2.0) == 0
    assert (group["lr"], zenith_lr.get_last_lr(), zenith_lr.zenith_state.count) == (0, [0.0], 4)
    group["lr"] = np.float64(0.2)
    assert take(optimizer, weight, 2.0) == pytest.approx(0.2 / 2)
    assert type(group["lr"]) is np.float64


def test_a_finder_of_learning_rates_tries_its_own():
    optimizer, weight = sgd()
    zenith_lr = ZenithLR(optimizer, window=1)
    for lr in (1e-4, 1e-3, 1e-2):
        optimizer.param_groups[0]["lr"] = lr
        assert take(optimizer, weight, 4.0) == pytest.approx(lr)
        assert optimizer.param_groups[0]["lr"] == lr
    assert zenith_lr.zenith_state.scale == 1


@pytest.mark.parametrize("end", ["del", "detach"])
def test_a_scheduler_that_is_gone_is_gone(end):
    optimizer, weight = sgd()
    zenith_lr = ZenithLR(optimizer, window=1)
    assert [take(optimizer, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.1, 0.025])
    if end == "detach":
        zenith_lr.detach()
        zenith_lr.detach()
    else:
        gone = weakref.ref(zenith_lr)
        del zenith_lr
        assert gone() is None
    optimizer.param_groups[0]["lr"] = 0.03
    assert take(optimizer, weight, 1.0) == pytest.approx(0.03)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    with pytest.raises(TypeError, match="grad_norm"):
        optimizer.step(grad_norm=1.0)
    swa = SWALR(optimizer, swa_lr=0.01, anneal_epochs=1)
    swa.step()
    assert take(optimizer, weight, 1.0) == pytest.approx(0.01)
    again = ZenithLR(optimizer, window=1)
    assert [take(optimizer, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.01, 0.0025])
    assert again.zenith_state.count == 2


def test_it_keeps_no_optimizer_alive():
    optimizer, weight = sgd()
    zenith_lr, gone = ZenithLR(optimizer, window=1), weakref.ref(optimizer)
    take(optimizer, weight, 1.0)
    gc.disable()
    try:
        del optimizer, zenith_lr
        assert gone() is None
    finally:
        gc.enable()


def test_a_second_one_on_the_same_optimizer_is_refused():
    optimizer, weight = sgd()
    first = ZenithLR(optimizer, window=1)
    with pytest.raises(ValueError, match=r"`optimizer` must not have a ZenithLR yet.*\.detach\(\)"):
        ZenithLR(optimizer, window=1)
    assert [take(optimizer, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.1, 0.025])
    first.detach()
    ZenithLR(optimizer, window=1)


class Wrapper(torch.optim.Optimizer):
    """The shape of Lookahead: its groups are those of the optimizer inside, which steps."""

    def __init__(self, inside):
        super().__init__(inside.param_groups, inside.defaults)
        self.inside = inside

    def step(self, closure=None):
        return self.inside.step(closure)


def test_a_wrapper_of_what_is_scaled_already_is_refused():
    inside, weight = sgd()
    first = ZenithLR(inside, window=1)
    outside = Wrapper(inside)
    with pytest.raises(ValueError, match=r"share its parameter groups with one that has.*detach"):
        ZenithLR(outside, window=1)
    assert [take(outside, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.1, 0.025])
    first.detach()
    second = ZenithLR(outside, window=1)
    assert [take(outside, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.1, 0.025])
    with pytest.raises(ValueError, match=r"share its parameter groups with one that has"):
        ZenithLR(inside, window=1)
    assert second.zenith_state.count == 2


@pytest.mark.parametrize("copied", [False, True])
def test_a_wrapper_of_a_zenith_is_refused_but_not_what_has_only_loaded_one(copied):
    inside, _ = sgd(kind=Zenith)
    inside = copy.deepcopy(inside) if copied else inside
    with pytest.raises(ValueError, match="must not share its parameter groups with a Zenith"):
        ZenithLR(Wrapper(inside), window=1)
    plain, weight = sgd()
    plain.load_state_dict(inside.state_dict())
    scheduler = ZenithLR(plain, window=1)
    assert [take(plain, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.1, 0.025])
    assert scheduler.zenith_state.count == 2
