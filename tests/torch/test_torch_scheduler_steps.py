"""zenith.torch.ZenithLR in steps of every kind: nested, failing, wrapped, compiled, on a device."""

import math

import numpy as np
import pytest
import torch
from _stepping import NORMS, SCALES, scalar, sgd, take
from torch._subclasses.fake_tensor import FakeTensorMode

from zenith.torch import ZenithLR, _norm


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


class Repeating(torch.optim.SGD):
    """Calls its closure so many times, and steps by the last gradient."""

    @torch.no_grad()
    def step(self, closure, times):
        for _ in range(times):
            closure()
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad, alpha=group["lr"])


def test_a_closure_that_is_called_again_is_measured_the_first_time():
    """The norms are 4 and 1; the steps are made by gradients of 8 and 2, at 0.1 and 0.1 / 4."""
    optimizer, weight = sgd(kind=Repeating)
    zenith_lr = ZenithLR(optimizer, window=1)
    at = []
    for gradients in ([4.0, 8.0], [1.0, 2.0]):
        left = list(gradients)

        def closure(left=left):
            assert optimizer.param_groups[0]["lr"] == 0.1
            weight.grad = torch.full_like(weight, left.pop(0))

        optimizer.step(closure, 2)
        at.append(weight.item())
    assert at == pytest.approx([-0.8, -0.8 - 0.05], rel=1e-12)
    assert zenith_lr.zenith_state.count == 2


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


@pytest.mark.parametrize("first", [False, True])
def test_a_post_hook_finds_the_users_own_rate(first):
    """Whether it was registered before or after: it may save the optimizer."""
    optimizer, weight = sgd()
    saved = []

    def save(optimizer, args, kwargs):
        saved.append(optimizer.state_dict()["param_groups"][0]["lr"])

    if first:
        optimizer.register_step_post_hook(save)
    zenith_lr = ZenithLR(optimizer, window=1)
    if not first:
        optimizer.register_step_post_hook(save)
    assert [take(optimizer, weight, norm) for norm in (4.0, 2.0)] == pytest.approx([0.1, 0.05])
    assert saved == [0.1, 0.1]
    assert zenith_lr.get_last_lr() == [0.05]


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
