"""zenith.torch._hooks.on_step: once for each step, however its class is built."""

import gc
import weakref

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from zenith.torch._hooks import on_step


class Inner(torch.optim.SGD):
    """An optimizer whose step is hooked at two levels, and may fail at either."""

    fail, swallow = "", False

    def step(self, closure=None):
        if self.fail == "before":
            raise RuntimeError(self.fail)
        try:
            loss = super().step(closure)
        except ZeroDivisionError:
            if not self.swallow:
                raise
            loss = None
        if self.fail == "after":
            raise RuntimeError(self.fail)
        return loss


@pytest.fixture
def optimizer():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    torch.optim.SGD([weight], lr=0.1)  # with it, torch runs the hooks of SGD.step as well
    return Inner([weight], lr=0.1)


def listen(optimizer, log):
    return on_step(
        optimizer,
        lambda *_: log.append("before"),
        lambda *_: log.append("after"),
        failed=lambda: log.append("failed"),
    )


def division(*_):
    raise ZeroDivisionError


def test_torch_itself_runs_them_twice(optimizer):
    log = []
    optimizer.register_step_post_hook(lambda *_: log.append("after"))
    optimizer.step()
    assert log == ["after", "after"]


def test_once_for_each_step(optimizer):
    log = []
    handle = listen(optimizer, log)
    for _ in range(3):
        optimizer.step()
    assert log == ["before", "after"] * 3
    handle.remove()
    handle.remove()
    optimizer.step()
    assert len(log) == 6
    assert "step" not in vars(optimizer)


class Outer(Inner):
    """And a third level."""

    def step(self, closure=None):
        return super().step(closure)


def test_once_where_three_classes_have_a_step(optimizer):
    log = []
    outer = Outer(optimizer.param_groups[0]["params"], lr=0.1)
    outer.register_step_post_hook(lambda *_: log.append("torch"))
    listen(outer, log)
    for _ in range(2):
        outer.step()
    assert log == ["before", "torch", "torch", "after", "torch"] * 2


@pytest.mark.parametrize("fail", ["before", "after"])
def test_a_step_that_raises_is_told_and_the_next_is_an_outermost_one(optimizer, fail):
    log = []
    listen(optimizer, log)
    optimizer.fail = fail
    try:
        optimizer.step()
    except RuntimeError:
        optimizer.fail = ""
        optimizer.step()  # while the exception, and with it the frames of that step, live
    assert log == ["before", "failed", "before", "after"]


def test_an_inner_failure_that_the_outer_step_mends(optimizer):
    log = []
    listen(optimizer, log)
    optimizer.swallow = True
    closure = division
    optimizer.step(closure)
    optimizer.step()
    assert log == ["before", "after"] * 2


def test_before_may_return_other_arguments(optimizer):
    log = []

    def before(optimizer, args, kwargs):
        return args, {"closure": lambda: log.append("closure")}

    on_step(optimizer, before)
    optimizer.step()
    assert log == ["closure"]


def test_two_on_one_optimizer_and_a_scheduler_between_them(optimizer):
    first, second = [], []
    one = listen(optimizer, first)
    scheduler = LambdaLR(optimizer, lambda _: 1.0)
    listen(optimizer, second)
    optimizer.step()
    scheduler.step()  # would warn if the optimizer's step had not been seen
    one.remove()
    optimizer.fail = "after"
    with pytest.raises(RuntimeError, match="after"):
        optimizer.step()
    assert second == ["before", "after", "before", "failed"]
    assert first[:2] == ["before", "after"]
    assert "before" not in first[2:]


def test_it_keeps_no_optimizer_alive(optimizer):
    other = Inner(optimizer.param_groups[0]["params"], lr=0.1)
    listen(other, [])
    other.step()
    gone = weakref.ref(other)
    gc.disable()
    try:
        del other
        assert gone() is None
    finally:
        gc.enable()
