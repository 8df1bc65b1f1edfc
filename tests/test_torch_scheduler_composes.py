"""zenith.torch.ZenithLR multiplies: `group["lr"]` is the user's own, whoever writes it."""

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from _reference import scales
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR

from zenith.torch import ZenithLR, _norm

NORMS = [4.0, 6.0, 5.0, 2.0, 1.0, 3.0, 0.5, 0.25]
SCALES = [1, 1, 1, 13 / 15, 8 / 15, 2 / 5, 3 / 10, 1 / 4]  # means 5, 13/3, 8/3, 2, 3/2, 5/4


def scalar(value=0.0):
    return torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))


def sgd(lr=0.1, kind=torch.optim.SGD):
    weight = scalar()
    return kind([weight], lr=lr), weight


def take(optimizer, weight, norm, **keywords):
    """Make a step of SGD, and return the rate that it was made at: how far it went."""
    before = weight.item()
    weight.grad = torch.full_like(weight, norm)
    optimizer.step(**keywords)
    return (before - weight.item()) / norm


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
@pytest.mark.parametrize("name", BESIDE)
def test_another_scheduler_writes_what_it_would_without_it(name, tensor_lr):
    """The groups' rates are those of a twin without ZenithLR, and the steps' are scaled."""
    lrs = [torch.tensor(0.1, dtype=torch.float64) if tensor_lr else 0.1 for _ in range(2)]
    (optimizer, weight), (twin, twins_weight) = map(sgd, lrs)
    zenith_lr = ZenithLR(optimizer, window=3)
    beside, plain = BESIDE[name](optimizer, zenith_lr), BESIDE[name](twin, None)
    for norm, scale in zip(NORMS, SCALES, strict=True):
        assert float(optimizer.param_groups[0]["lr"]) == float(twin.param_groups[0]["lr"])
        rate, plain_rate = take(optimizer, weight, norm), take(twin, twins_weight, norm)
        assert rate == pytest.approx(plain_rate * scale, rel=1e-9)
        assert float(zenith_lr.get_last_lr()[0]) == pytest.approx(plain_rate * scale, rel=1e-9)
        beside.step()
        plain.step()
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


# --- what a step may be ---------------------------------------------------------------------------


class Clipping(torch.optim.SGD):
    """Clips, and steps by `super().step()`: torch runs the hooks of both."""

    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1.0)
        return super().step(closure)


class Failing(torch.optim.SGD):
    fail = False

    def step(self, closure=None):
        if self.fail:
            raise RuntimeError("out of memory")
        return super().step(closure)


def test_a_step_that_calls_super_is_measured_once_and_before_it_clips():
    plain = torch.optim.SGD([scalar()], lr=0.1)  # with it, `SGD.step` runs hooks
    optimizer, weight = sgd(kind=Clipping)
    zenith_lr = ZenithLR(optimizer, window=1)
    rates = [take(optimizer, weight, norm) * norm for norm in (8.0, 4.0, 2.0)]
    assert rates == pytest.approx([0.1, 0.05, 0.025], abs=1e-6)  # of gradients clipped to 1
    assert zenith_lr.zenith_state.count == 3
    assert zenith_lr.zenith_metrics()["grad_norm"] == 2.0
    assert optimizer.param_groups[0]["lr"] == plain.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("bypassed", [False, True])
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_a_step_that_raises_leaves_the_rate_and_the_next_is_scaled_once(tensor_lr, bypassed):
    torch.optim.SGD([scalar()], lr=0.1)
    lr = torch.tensor(0.1, dtype=torch.float64) if tensor_lr else 0.1
    optimizer, weight = sgd(lr, Failing)
    captured = optimizer.step  # as AcceleratedOptimizer does, with a scaler
    zenith_lr = ZenithLR(optimizer, window=1)
    take(optimizer, weight, 4.0)
    if bypassed:
        optimizer.step = captured
    optimizer.fail = True
    with pytest.raises(RuntimeError, match="out of memory"):
        take(optimizer, weight, 2.0)
    if not bypassed:
        assert optimizer.param_groups[0]["lr"] == 0.1
    optimizer.fail = False
    assert take(optimizer, weight, 2.0) == pytest.approx(0.05)
    assert take(optimizer, weight, 1.0) == pytest.approx(0.025)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert zenith_lr.zenith_state.count == 4


def test_a_closure_finds_the_rate_of_its_user_and_may_write_it():
    optimizer, weight = sgd()
    zenith_lr, seen = ZenithLR(optimizer, window=1), []
    norms = iter([4.0, 1.0, 1.0, 2.0])

    def closure():
        seen.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.full_like(weight, next(norms))
        if len(seen) == 3:
            optimizer.param_groups[0]["lr"] = 0.2

    for _ in range(4):
        optimizer.step(closure)
    assert seen == [0.1, 0.1, 0.1, 0.2]
    assert weight.item() == pytest.approx(-(0.1 * 4 + 0.1 / 4 + 0.2 / 4 + 0.2 / 2 * 2), rel=1e-12)

    def failing():
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        optimizer.step(failing)
    assert optimizer.param_groups[0]["lr"] == 0.2
    assert zenith_lr.zenith_state.count == 4


def test_a_step_that_writes_the_rate_itself_is_obeyed():
    class Halving(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            self.param_groups[0]["lr"] = 0.05

    optimizer, weight = sgd(kind=Halving)
    zenith_lr = ZenithLR(optimizer, window=1)
    assert [take(optimizer, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.1, 0.0125])
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert zenith_lr.get_last_lr() == [0.0125]


def test_an_argument_of_step_that_is_no_closure_is_handed_on():
    class Fused(torch.optim.SGD):
        def step(self, grads=None):
            self.given = grads
            return super().step()

    optimizer, weight = sgd(kind=Fused)
    zenith_lr = ZenithLR(optimizer, window=1)
    weight.grad = torch.full_like(weight, 2.0)
    optimizer.step([weight])
    assert optimizer.given == [weight]
    assert zenith_lr.zenith_state.count == 1


class Lookahead(torch.optim.Optimizer):
    """A wrapper that shares the groups, and whose own step runs no hooks."""

    def __init__(self, inner):
        self.inner, self.param_groups, self.defaults = inner, inner.param_groups, inner.defaults
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = {}, {}

    def step(self, closure=None):
        return self.inner.step(closure)


class Prepared(torch.optim.Optimizer):
    """A wrapper without hook dictionaries, such as `accelerator.prepare(...)` makes."""

    def __init__(self, inner):
        self.inner = inner

    @property
    def param_groups(self):
        return self.inner.param_groups

    def step(self, closure=None):
        return self.inner.step(closure)


@pytest.mark.parametrize("wrapper", [Lookahead, Prepared])
def test_a_wrapper_whose_step_runs_no_hooks_is_refused(wrapper):
    optimizer, weight = sgd()
    name = wrapper.__name__
    with pytest.raises(TypeError, match=f"a {name} is not: make ZenithLR on the optimizer inside"):
        ZenithLR(wrapper(optimizer), window=1)
    wrapped, zenith_lr = wrapper(optimizer), ZenithLR(optimizer, window=1)
    assert [take(wrapped, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.1, 0.025])
    assert zenith_lr.zenith_state.count == 2


@pytest.mark.parametrize("tensor_lr", [False, True])
def test_a_compiled_step(tensor_lr):
    torch._dynamo.reset()
    optimizer, weight = sgd(torch.tensor(0.1, dtype=torch.float64) if tensor_lr else 0.1)
    zenith_lr = ZenithLR(optimizer, window=3)
    optimizer.step = torch.compile(optimizer.step, backend="eager")
    for norm, scale in zip(NORMS, SCALES, strict=True):
        assert take(optimizer, weight, norm) == pytest.approx(0.1 * scale, rel=1e-6)
        assert optimizer.param_groups[0]["lr"] == 0.1
    assert zenith_lr.zenith_state.count == len(NORMS)
    assert math.isclose(zenith_lr.get_last_lr()[0], 0.025, rel_tol=1e-6)


def test_a_numpy_rate_where_norms_are_on_a_device(monkeypatch):
    monkeypatch.setattr(_norm, "on_host", lambda tensor: False)
    optimizer, weight = sgd(np.float64(0.1))
    zenith_lr = ZenithLR(optimizer, window=1)
    assert [take(optimizer, weight, norm) for norm in (4.0, 1.0)] == pytest.approx([0.1, 0.025])
    assert isinstance(zenith_lr.zenith_metrics()["scale"], torch.Tensor)
    assert type(optimizer.param_groups[0]["lr"]) is np.float64


def test_nothing_on_a_device_is_read_where_lr_is_a_tensor_there():
    """Fake tensors raise on any read that depends on data. SGD itself would read its rate."""

    class Unread(torch.optim.SGD):
        def step(self, closure=None):
            return closure() if closure else None

    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.randn(3, device="cuda"))
        lr = torch.tensor(0.1, device="cuda")
        optimizer = Unread([weight], lr=0.1)
        optimizer.param_groups[0]["lr"] = lr
        zenith_lr = ZenithLR(optimizer, window=2)
        optimizer.found_inf = torch.zeros((), device="cuda")
        weight.grad = torch.randn_like(weight)
        for closure in (None, lambda: None, lambda: None):
            optimizer.step(closure)
        assert optimizer.param_groups[0]["lr"] is lr
        numbers = zenith_lr.zenith_metrics()
        assert {number.device.type for number in numbers.values()} == {"cuda"}
        assert zenith_lr.get_last_lr()[0].device.type == "cuda"
