"""The rate of Zenith in torch: by hand, against Algorithm 1, under torch's own schedules."""

import math

import pytest
import torch
from _reference import scales
from _schedule import FORMS, drive, scalar
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from zenith.torch import Zenith

# --- the rate ---------------------------------------------------------------------------------


def test_a_run_worked_out_by_hand():
    """window 2: means 4, 3, 2 under the zenith 4, so scales 1, 1, 3/4, 2/4, and then up again."""
    weight = scalar(10.0)
    optimizer = Zenith([weight], lr=0.5, window=2)
    assert optimizer.get_last_lr() == [0.5]
    assert drive(optimizer, weight, [3.0, 5.0, 1.0, 3.0, 9.0]) == [0.5, 0.5, 0.375, 0.25, 0.5]
    # 10 - 0.5*3 - 0.5*5 - 0.375*1 - 0.25*3 - 0.5*9
    assert weight.item() == 0.375
    state = optimizer.zenith_state
    assert state.norms.tolist() == [9.0, 3.0]
    assert [x.item() for x in state[1:]] == [5, 6.0, 6.0, 1.0, 0]


def test_momentum_is_torchs_own_and_the_rate_applies_after_it():
    """buf = 0.5 * buf + g; w -= lr * scale * buf, with window 1 and norms 4, 2: scales 1, 1/2."""
    weight = scalar(0.0)
    optimizer = Zenith([weight], lr=1.0, window=1, momentum=0.5)
    drive(optimizer, weight, [4.0, 2.0])
    assert optimizer.state[weight]["momentum_buffer"].item() == 0.5 * 4 + 2
    assert weight.item() == -1.0 * 4 - 0.5 * 4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_trajectory_against_algorithm_1(form, momentum):
    """Several tensors and groups under one norm, against a float64 loop written out here."""
    generator = torch.Generator().manual_seed(0)
    shapes, lrs, window, steps = [(3, 4), (5,), (2, 2)], [0.1, 0.1, 0.03], 5, 25
    params = [
        torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes
    ]
    expected = [p.detach().clone() for p in params]
    buffers = [torch.zeros_like(p) for p in expected]
    groups = [{"params": params[:2], "lr": 0.1}, {"params": params[2:], "lr": 0.03}]
    optimizer = Zenith(groups, window=window, momentum=momentum, **FORMS[form])
    norms = []
    for step in range(steps):
        grads = [
            torch.randn(s, generator=generator, dtype=torch.float64) / (1 + step) for s in shapes
        ]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in grads)))
        scale = scales(norms, window)[-1]
        for param, grad, value, buffer, lr in zip(
            params, grads, expected, buffers, lrs, strict=True
        ):
            param.grad = grad
            buffer.mul_(momentum).add_(grad)
            value.sub_(lr * scale * buffer)
        optimizer.step()
        assert optimizer.get_last_lr() == pytest.approx([0.1 * scale, 0.03 * scale], rel=1e-12)
        for param, value in zip(params, expected, strict=True):
            torch.testing.assert_close(param.detach(), value, rtol=1e-12, atol=1e-14)
    assert scale < 0.5


@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=40),
    st.integers(1, 8),
)
@settings(deadline=None)
def test_any_list_of_norms(norms, window):
    weight = scalar(dtype=torch.float32)
    rates = drive(Zenith([weight], lr=1.0, window=window), weight, norms)
    # float32 squares lose norms below 1e-22, and lose digits below 1e-18
    tiny = [norm for norm in norms if 0 < norm < 1e-15]
    if not tiny:
        assert rates == pytest.approx(scales(norms, window), rel=1e-6)
    assert all(0 <= rate <= 1 for rate in rates)


def test_lr_is_read_and_never_written():
    weight = scalar()
    optimizer = Zenith([weight], lr=0.5, window=1)
    assert drive(optimizer, weight, [4.0, 1.0]) == [0.5, 0.125]
    assert optimizer.param_groups[0]["lr"] == 0.5
    optimizer.param_groups[0]["lr"] = 2.0
    assert drive(optimizer, weight, [2.0]) == [1.0]
    tensor = torch.tensor(0.5)
    optimizer.param_groups[0]["lr"] = tensor
    assert drive(optimizer, weight, [2.0]) == [0.25]
    assert tensor.item() == 0.5


def test_get_last_lr_is_of_the_last_step_whatever_was_set_since():
    weight = scalar()
    optimizer = Zenith([weight], lr=0.5, window=1)
    drive(optimizer, weight, [4.0, 1.0])
    optimizer.param_groups[0]["lr"] = 8.0
    assert optimizer.get_last_lr() == [0.125]
    optimizer.add_param_group({"params": [scalar()], "lr": 4.0})
    assert optimizer.get_last_lr() == [0.125, 1.0]


def test_state_of_the_schedule_is_all_that_it_adds():
    """`window` + 5 numbers: 4 * window + 28 bytes in float32."""
    params = [torch.nn.Parameter(torch.randn(1000)) for _ in range(3)]
    optimizer = Zenith(params, window=500)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert sum(f.numel() * f.element_size() for f in optimizer.zenith_state) == 4 * 500 + 28
    assert not any(optimizer.state.values())


# --- steps that record nothing ----------------------------------------------------------------


def test_a_step_with_no_gradient_at_all_records_nothing():
    weight = scalar(1.0)
    optimizer = Zenith([weight], momentum=0.9, window=2)
    assert optimizer.step() is None
    assert optimizer.step(grad_norm=3.0) is None
    assert optimizer.zenith_state.count == 0
    assert weight.item() == 1.0


@pytest.mark.parametrize("lr", [0.0, torch.tensor(0.0)])
def test_a_norm_of_0_at_lr_0_records_nothing_and_a_real_norm_at_lr_0_counts(lr):
    a, b = scalar(1.0), scalar(1.0)
    optimizer = Zenith([{"params": [a], "lr": lr}, {"params": [b], "lr": 0.0}], window=2)
    a.grad, b.grad = torch.zeros_like(a), torch.zeros_like(b)
    optimizer.step()
    assert optimizer.zenith_state.count == 0
    a.grad = torch.full_like(a, 2.0)
    optimizer.step()
    assert optimizer.zenith_state.norms.tolist() == [2.0, 0.0]
    assert optimizer.zenith_state.count == 1
    optimizer.param_groups[1]["lr"] = 0.1
    a.grad = torch.zeros_like(a)
    optimizer.step()
    assert optimizer.zenith_state.count == 2  # a norm of 0 at a rate that is not 0 is a norm


# --- schedules on top -------------------------------------------------------------------------


def composed(make, steps=12, metric=None):
    """The rate in force with a torch scheduler on top, and what that scheduler sets by itself."""
    norms = [1 / (1 + step) for step in range(steps)]
    weight, twin = scalar(), scalar()
    ours, alone = Zenith([weight], lr=0.1, window=3, momentum=0.5), torch.optim.SGD([twin], lr=0.1)
    alone.param_groups[0]["momentum"] = 0.5
    alone.defaults["momentum"] = 0.5
    on_ours, on_alone = make(ours), make(alone)
    rates, bases = [], []
    for norm in norms:
        weight.grad, twin.grad = torch.full_like(weight, norm), torch.zeros_like(twin)
        bases.append(alone.param_groups[0]["lr"])
        ours.step()
        alone.step()
        rates.append(ours.get_last_lr()[0])
        for scheduler in (on_ours, on_alone):
            scheduler.step(*([1.0] if metric else []))
    return rates, bases, scales(norms, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: LambdaLR(o, lambda step: 0.9**step),
        lambda o: SequentialLR(
            o, [LinearLR(o, 0.1, total_iters=4), CosineAnnealingLR(o, T_max=8)], milestones=[4]
        ),
        lambda o: OneCycleLR(o, max_lr=0.2, total_steps=20),
    ],
    ids=["LambdaLR", "LinearLR+CosineAnnealingLR", "OneCycleLR"],
)
def test_torch_schedulers_compose(make):
    rates, bases, expected = composed(make)
    assert rates == pytest.approx([b * s for b, s in zip(bases, expected, strict=True)], rel=1e-12)
    assert len(set(bases)) > 5


def test_reduce_lr_on_plateau_composes():
    rates, bases, expected = composed(
        lambda o: ReduceLROnPlateau(o, factor=0.5, patience=2), metric=True
    )
    assert rates == pytest.approx([b * s for b, s in zip(bases, expected, strict=True)], rel=1e-12)
    assert bases[-1] == pytest.approx(0.1 * 0.5**3)
