"""The step under torch.compile: one graph without a break, and the same numbers."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from _device import negative, parameters, run, set_gradients

from zenith.torch import Zenith


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "foreach": True},
        {"max_grad_norm": 1.0},
        {"fused": True, "momentum": 0.9},
        {"lr": torch.tensor(0.1), "momentum": 0.9},
    ],
    ids=["plain", "foreach", "clipped", "fused", "tensor lr"],
)
def test_one_graph_without_a_break_and_no_recompilation_as_the_rate_moves(
    compiler, backend, options
):
    eager, compiled = parameters(), parameters()
    options = {"lr": 0.1, "window": 3} | options
    expected = run(Zenith(eager, **copy.deepcopy(options)), eager, 12)
    optimizer = Zenith(compiled, **options)
    set_gradients(compiled, 0)
    step = torch.compile(optimizer.step, fullgraph=True, backend=backend)
    rates, graphs = [], []
    for i in range(12):
        set_gradients(compiled, i, 1 / (1 + i))
        step()
        rates.append(optimizer.get_last_lr()[0])
        graphs.append(compiler["unique_graphs"])
    assert rates == pytest.approx(expected, rel=1e-5)
    assert len(set(rates)) > 8
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    # the first momentum step, which makes the buffers, is a graph of its own, as for SGD
    assert graphs[2:] == [graphs[1]] * 10
    assert graphs[-1] <= 2


def test_compiled_step_in_float64_keeps_every_write(compiler):
    """AOTAutograd drops in-place writes to a 0-dim float64 CPU tensor; ours are rebound."""
    params = parameters(dtype=torch.float64)
    twins = parameters(dtype=torch.float64)
    optimizer, eager = Zenith(params, window=2), Zenith(twins, window=2)
    set_gradients(params, 0)
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    for i in range(6):
        for own in (params, twins):
            set_gradients(own, i)
        step()
        eager.step()
    for ours, theirs in zip(optimizer.zenith_state, eager.zenith_state, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_compiled_step_skips_a_non_finite_gradient(compiler):
    params = parameters()
    optimizer = Zenith(params, window=2, momentum=0.9)
    set_gradients(params, 0)
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    for i in range(3):
        set_gradients(params, i)
        step()
    before = copy.deepcopy(params)
    buffers = [optimizer.state[p]["momentum_buffer"].clone() for p in params]
    set_gradients(params, 3)
    params[1].grad[0] = math.nan
    step()
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))
    assert all(
        torch.equal(b, optimizer.state[p]["momentum_buffer"])
        for b, p in zip(buffers, params, strict=True)
    )
    assert optimizer.zenith_state.skipped == 1
    assert optimizer.zenith_state.count == 3


def test_compiled_step_that_is_told_the_norm_by_numbers(compiler):
    """The means of 4, 2 and 1 by a window of 2 are 3 and 1.5; a negative norm is refused."""
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    optimizer = Zenith([weight], lr=0.5, window=2)
    step = torch.compile(optimizer.step, backend="aot_eager")
    for norm in (4.0, 2.0, 1.0):
        step(grad_norm=norm)
    assert optimizer.get_last_lr() == [0.25]
    with negative():
        step(grad_norm=-1.0)
    assert (weight.item(), optimizer.zenith_state.count) == (1 - 0.5 - 0.5 - 0.25, 3)


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "dampening"])
def test_compiled_step_with_a_numpy_scalar(compiler, name):
    eager, compiled = parameters(), parameters()
    make = partial(Zenith, lr=0.1, momentum=0.5, window=2)
    optimizer, plain = make(compiled), make(eager)
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    for i in range(5):
        number = 0.1 * 0.9**i if name == "lr" else 0.25
        optimizer.param_groups[0][name] = np.float64(number)
        plain.param_groups[0][name] = number
        for own in (eager, compiled):
            set_gradients(own, i)
        step()
        plain.step()
    assert optimizer.get_last_lr() == pytest.approx(plain.get_last_lr(), rel=1e-5)
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert compiler["unique_graphs"] == 2  # a new rate compiles nothing anew


def test_compiled_step_keeps_the_sign_of_zero_where_it_is_skipped(compiler):
    weight = torch.nn.Parameter(torch.full((3,), -0.0))
    optimizer = Zenith([weight], window=2)
    step = torch.compile(optimizer.step, fullgraph=True, backend="inductor")
    weight.grad = torch.full((3,), math.nan)
    step()
    assert torch.signbit(weight).all()
    assert optimizer.zenith_state.skipped == 1


def test_eager_and_compiled_steps_may_alternate(compiler):
    params, twins = parameters(), parameters()
    optimizer, eager = Zenith(params, window=3), Zenith(twins, window=3)
    set_gradients(params, 0)
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    rates = []
    for i in range(12):
        for own in (params, twins):
            set_gradients(own, i, 1 / (1 + i))
        (step if i % 4 < 2 else optimizer.step)()
        eager.step()
        rates.append((optimizer.get_last_lr()[0], eager.get_last_lr()[0]))
    assert [a for a, _ in rates] == pytest.approx([b for _, b in rates], rel=1e-6)
