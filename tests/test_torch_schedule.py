"""The rate of zenith.torch.Zenith: exact trajectories, the norm, non-finite gradients, clipping."""

import copy
import math

import numpy as np
import pytest
import torch
from _reference import scales
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

import zenith
from zenith.torch import Zenith

FORMS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
INF, NAN = math.inf, math.nan


def scalar(value=0.0, dtype=torch.float64):
    return torch.nn.Parameter(torch.tensor([value], dtype=dtype))


def drive(optimizer, param, norms, **kwargs):
    """Make one step for each norm and return the rates in force."""
    rates = []
    for norm in norms:
        param.grad = torch.full_like(param, norm)
        optimizer.step(**kwargs)
        rates.append(optimizer.get_last_lr()[0])
    return rates


def equal_states(left, right):
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(left, right, strict=True))


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


# --- the norm ---------------------------------------------------------------------------------


def test_one_norm_over_all_groups():
    a, b = scalar(), scalar()
    optimizer = Zenith([{"params": [a]}, {"params": [b], "lr": 0.0}], window=1)
    a.grad, b.grad = torch.tensor([3.0]).double(), torch.tensor([4.0]).double()
    optimizer.step()
    assert optimizer.zenith_state.mean.item() == 5.0


def test_norm_sums_repeated_indices_of_a_sparse_gradient():
    """Rows (1, 2) and (2, 2) on the same index make (3, 4)."""
    embedding = torch.nn.Embedding(10, 2, sparse=True)
    with torch.no_grad():
        embedding.weight.zero_()
    optimizer = Zenith(embedding.parameters(), window=1)
    embedding.weight.grad = torch.sparse_coo_tensor(
        torch.tensor([[7, 7]]),
        torch.tensor([[1.0, 2.0], [2.0, 2.0]]),
        (10, 2),
        check_invariants=True,
    )
    optimizer.step()
    assert optimizer.zenith_state.mean.item() == 5.0


def test_state_is_float32_for_low_precision_and_float64_as_soon_as_one_parameter_is():
    low = Zenith([torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))])
    assert low.zenith_state.norms.dtype == torch.float32
    low.add_param_group({"params": [torch.nn.Parameter(torch.ones(2, dtype=torch.float64))]})
    assert low.zenith_state.norms.dtype == torch.float64
    wide = Zenith([torch.nn.Parameter(torch.ones(2, dtype=torch.complex128))])
    assert {f.dtype for f in wide.zenith_state} == {torch.float64, torch.int64}


def test_float64_keeps_what_float32_would_lose():
    weight = scalar()
    optimizer = Zenith([weight], window=1)
    drive(optimizer, weight, [1.0 + 1e-12])
    assert optimizer.zenith_state.mean.item() == 1.0 + 1e-12


@pytest.mark.parametrize("known", [5.0, 5, torch.tensor(5.0), torch.tensor([5.0]).double()])
def test_grad_norm_is_recorded_as_given(known):
    weight = scalar(dtype=torch.float32)
    optimizer = Zenith([weight], window=1)
    weight.grad = torch.tensor([1.0])
    optimizer.step(grad_norm=known)
    assert optimizer.zenith_state.norms.tolist() == [5.0]


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (-1.0, "`grad_norm` must be >= 0, got -1.0"),
        ("1.0", "`grad_norm` must be a number or a tensor, got '1.0'"),
        (1j, "`grad_norm` must be a number or a tensor, got 1j"),
        (torch.ones(2), "`grad_norm` must be one number, got shape (2,)"),
    ],
)
def test_an_impossible_grad_norm_is_refused_and_changes_nothing(known, message):
    weight = scalar(1.0)
    optimizer = Zenith([weight], window=1)
    weight.grad = torch.ones_like(weight)
    before = optimizer.zenith_state
    with pytest.raises((TypeError, ValueError)) as raised:
        optimizer.step(grad_norm=known)
    assert str(raised.value) == message
    assert weight.item() == 1.0
    assert equal_states(before, optimizer.zenith_state)


def test_grad_norm_beside_a_closure_is_the_norm_that_the_closure_leaves():
    """w = 8 - 1 * 1 * 4, and 4 - 1 * (2 / 4) * 2: the norms are those handed in, 4 and 2."""
    weight = scalar(8.0)
    optimizer = Zenith([weight], lr=1.0, window=1)
    norm = torch.tensor(0.0)

    def closure():
        weight.grad = torch.full_like(weight, norm.fill_(4.0 if weight.item() == 8 else 2.0).item())
        return 0.5

    assert optimizer.step(closure, grad_norm=norm) == 0.5
    assert weight.item() == 4.0
    optimizer.step(closure=closure, grad_norm=norm)
    assert weight.item() == 3.0
    assert optimizer.zenith_state.norms.tolist() == [2.0]


def test_the_callers_gradients_are_left_alone():
    params = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2))]
    optimizer = Zenith(params, momentum=0.9, weight_decay=0.1, maximize=True, decay_in_norm=True)
    grads = [torch.randn(3, 2), torch.randn(2)]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    copies = [grad.clone() for grad in grads]
    optimizer.step()
    assert all(p.grad is g for p, g in zip(params, grads, strict=True))
    assert all(torch.equal(g, c) for g, c in zip(grads, copies, strict=True))


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


# --- non-finite gradients ---------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("when", [0, 1, 4])  # the very first step, while filling, when full
def test_skip_leaves_everything_bit_for_bit_and_counts(form, bad, when):
    params = [torch.nn.Parameter(torch.randn(3)), torch.nn.Parameter(torch.randn(2, 2))]
    optimizer = Zenith(params, window=3, momentum=0.9, dampening=0.5, **FORMS[form])
    for _ in range(when):
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer.step()
    before = copy.deepcopy((params, [dict(optimizer.state[p]) for p in params]))
    state = optimizer.zenith_state
    params[0].grad = torch.tensor([1.0, bad, 1.0])
    params[1].grad = torch.ones(2, 2)
    optimizer.step()
    after = (params, [dict(optimizer.state[p]) for p in params])
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    for a, b in zip(before[1], after[1], strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert equal_states(state._replace(skipped=state.skipped + 1), optimizer.zenith_state)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_propagate_guards_the_schedule_and_lets_sgd_do_what_it_would(bad):
    weight, twin = scalar(1.0), scalar(1.0)
    optimizer = Zenith([weight], lr=0.1, window=1, nonfinite="propagate", momentum=0.9)
    sgd = torch.optim.SGD([twin], lr=0.1, momentum=0.9)
    drive(optimizer, weight, [4.0])
    twin.grad = torch.full_like(twin, 4.0)
    sgd.step()
    state = optimizer.zenith_state
    drive(optimizer, weight, [bad])
    twin.grad = torch.full_like(twin, bad)
    sgd.step()
    torch.testing.assert_close(weight, twin, rtol=0, atol=0, equal_nan=True)
    assert equal_states(state._replace(skipped=state.skipped + 1), optimizer.zenith_state)


def test_a_skipped_norm_given_by_the_caller():
    weight = scalar(1.0)
    optimizer = Zenith([weight], window=1)
    weight.grad = torch.ones_like(weight)
    optimizer.step(grad_norm=NAN)
    assert weight.item() == 1.0
    assert optimizer.zenith_state.skipped == 1


# --- GradScaler -------------------------------------------------------------------------------


def scaled_run(norms, *, bad_steps=(), unscale=False, window=2, **kwargs):
    """Train one weight under a CPU GradScaler whose factor is 2**10 at first."""
    weight = scalar(1.0, torch.float32)
    optimizer = Zenith([weight], lr=0.125, window=window, **kwargs)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    states = []
    for step, norm in enumerate(norms):
        optimizer.zero_grad()
        factor = INF if step in bad_steps else norm
        scaler.scale((weight * factor).sum()).backward()
        if unscale:
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_([weight], 1.0)
            scaler.step(optimizer, grad_norm=norm)
        else:
            scaler.step(optimizer)
        scaler.update()
        states.append(optimizer.zenith_state)
    return weight, states


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_grad_scaler_the_norm_is_that_of_the_unscaled_gradient(fused, momentum):
    norms = [4.0, 4.0, 2.0, 2.0, 1.0, 1.0]
    weight, states = scaled_run(norms, fused=fused, momentum=momentum)
    plain = scalar(1.0, torch.float32)
    optimizer = Zenith([plain], lr=0.125, window=2, momentum=momentum)
    drive(optimizer, plain, norms)
    assert equal_states(states[-1], optimizer.zenith_state)
    assert torch.equal(weight, plain)
    assert states[-1].scale.item() == 0.25


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("bad", [0, 1, 3])
@pytest.mark.parametrize("nonfinite", ["skip", "propagate"])
def test_grad_scaler_an_infinite_step_changes_no_field_at_all(fused, momentum, bad, nonfinite):
    norms = [4.0, 4.0, 2.0, 2.0, 1.0]
    options = {"momentum": momentum, "nonfinite": nonfinite}
    weight, states = scaled_run(norms, bad_steps=[bad], fused=fused, **options)
    if bad:
        assert equal_states(states[bad - 1], states[bad])
    assert states[-1].skipped == 0
    plain = scalar(1.0, torch.float32)
    optimizer = Zenith([plain], lr=0.125, window=2, **options)
    drive(optimizer, plain, norms[:bad] + norms[bad + 1 :])
    assert torch.equal(weight, plain)
    assert equal_states(states[-1], optimizer.zenith_state)


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler_with_unscale_clipping_and_the_known_norm(fused):
    _, states = scaled_run([4.0, 4.0, 2.0, 2.0], unscale=True, fused=fused)
    assert states[-1].norms.tolist() == [2.0, 2.0]
    assert states[-1].scale.item() == 0.5


def test_grad_scaler_clipping_by_max_grad_norm_is_of_the_unscaled_gradient():
    """A gradient of 4 is clipped to 1 at each of two steps of lr 1/8, scaled or not."""
    weight, states = scaled_run([4.0, 4.0], fused=True, max_grad_norm=1.0)
    assert weight.item() == pytest.approx(1 - 2 / 8, rel=1e-5)
    assert states[-1].mean.item() == 4.0


# --- weight decay and clipping ----------------------------------------------------------------


def test_coupled_weight_decay_is_not_in_the_norm_unless_asked_for():
    for asked, expected in [(False, 3.0), (True, 3.0 + 0.5 * 2.0)]:
        weight = scalar(2.0)
        optimizer = Zenith([weight], window=1, weight_decay=0.5, decay_in_norm=asked, lr=0.1)
        drive(optimizer, weight, [3.0])
        assert optimizer.zenith_state.mean.item() == expected
        assert weight.item() == pytest.approx(2.0 - 0.1 * (3.0 + 0.5 * 2.0))


def test_decay_in_norm_with_maximize_is_of_the_gradient_that_descends():
    """||-g + weight_decay * p|| = |-3 + 0.5 * 2|."""
    weight = scalar(2.0)
    optimizer = Zenith([weight], window=1, weight_decay=0.5, decay_in_norm=True, maximize=True)
    drive(optimizer, weight, [3.0])
    assert optimizer.zenith_state.mean.item() == 2.0


def test_decay_in_norm_of_one_group_alone():
    """(3, 4 + 0.5 * 16): the norm of the regularised gradient of the second group only."""
    a, b = scalar(10.0), scalar(16.0)
    optimizer = Zenith(
        [{"params": [a]}, {"params": [b], "decay_in_norm": True}], window=1, weight_decay=0.5
    )
    a.grad, b.grad = torch.full_like(a, 5.0), torch.full_like(b, 4.0)
    optimizer.step()
    assert optimizer.zenith_state.mean.item() == 13.0


@pytest.mark.parametrize("kind", ["bfloat16", "sparse"])
def test_decay_in_norm_of_low_precision_and_sparse_gradients(kind):
    """(3 + 0.5 * 2, 0.5 * 2 * sqrt(8)): 16 + 8 = 24."""
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    weight = torch.nn.Parameter(torch.full((9,), 2.0, dtype=dtype))
    optimizer = Zenith([weight], window=1, weight_decay=0.5, decay_in_norm=True)
    gradient = torch.zeros(9, dtype=dtype)
    gradient[0] = 3.0
    weight.grad = gradient.to_sparse() if kind == "sparse" else gradient
    if kind == "sparse":  # torch.optim.SGD itself refuses weight decay of a sparse gradient
        norm = optimizer._measure([optimizer._batch(optimizer.param_groups[0])], None)[0][0]
    else:
        optimizer.step()
        norm = optimizer.zenith_state.mean
    assert norm.item() == pytest.approx(math.sqrt(24), rel=1e-6)


def test_decay_in_norm_under_a_fused_grad_scaler():
    weight, states = scaled_run(
        [3.0], window=1, fused=True, weight_decay=0.5, decay_in_norm=True, max_grad_norm=100.0
    )
    assert states[0].mean.item() == 3.5
    assert weight.item() == 1 - 0.125 * 3.5


@pytest.mark.parametrize("norm", [0.5, 2.0, 100.0])
@pytest.mark.parametrize("grad_norm", [None, "given"])
def test_max_grad_norm_clips_exactly_as_torch_does(norm, grad_norm):
    ours = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2))]
    theirs = copy.deepcopy(ours)
    for param, twin in zip(ours, theirs, strict=True):
        param.grad = torch.randn(param.shape) * norm
        twin.grad = param.grad.clone()
    optimizer = Zenith(ours, lr=0.1, window=1, max_grad_norm=1.0)
    sgd = torch.optim.SGD(theirs, lr=0.1)
    known = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    sgd.step()
    optimizer.step(grad_norm=None if grad_norm is None else known)
    for param, twin in zip(ours, theirs, strict=True):
        assert torch.equal(param.grad, twin.grad)
        assert torch.equal(param, twin)
    # measured before clipping
    assert optimizer.zenith_state.mean.item() == pytest.approx(known.item(), rel=1e-6)


def test_max_grad_norm_with_decay_in_norm_clips_by_the_raw_norm():
    weight = scalar(2.0)
    optimizer = Zenith(
        [weight], lr=1.0, window=1, weight_decay=0.5, decay_in_norm=True, max_grad_norm=1.5
    )
    drive(optimizer, weight, [3.0])
    assert weight.grad.item() == pytest.approx(1.5, rel=1e-6)
    assert optimizer.zenith_state.mean.item() == 4.0
    assert weight.item() == pytest.approx(2.0 - (1.5 + 1.0), rel=1e-5)


def test_the_trap_of_clipping_first_and_its_remedy():
    """Norms 8, 8, 2, 2 clipped to 1 are all 1: ZENITH would never lower the rate."""
    for told, expected in [(False, [1.0] * 4), (True, [1.0, 1.0, 0.625, 0.25])]:
        weight = scalar()
        optimizer = Zenith([weight], lr=1.0, window=2)
        rates = []
        for norm in [8.0, 8.0, 2.0, 2.0]:
            weight.grad = torch.full_like(weight, norm)
            known = torch.nn.utils.clip_grad_norm_([weight], 1.0)
            optimizer.step(grad_norm=known if told else None)
            rates.append(optimizer.get_last_lr()[0])
        assert rates == pytest.approx(expected, rel=1e-5)


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


# --- the state, from outside ------------------------------------------------------------------


def test_zenith_state_is_a_snapshot():
    weight = scalar()
    optimizer = Zenith([weight], window=2)
    drive(optimizer, weight, [1.0])
    before = optimizer.zenith_state
    copied = [field.clone() for field in before]
    before.norms.fill_(7.0)
    assert optimizer.zenith_state.norms.tolist() == [1.0, 0.0]
    drive(optimizer, weight, [2.0, 3.0])
    assert [x.tolist() for x in before[1:]] == [x.tolist() for x in copied[1:]]


def test_a_run_is_carried_over_through_the_document():
    """Half of a run in plain Python, the other half in torch: the rates of the whole."""
    norms = [5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.0]
    state = zenith.init(window=3)
    for norm in norms[:4]:
        state = zenith.update(state, norm)
    weight = scalar()
    optimizer = Zenith([weight], lr=1.0, window=3)
    optimizer.zenith_state = zenith.from_dict(zenith.to_dict(state))
    rates = drive(optimizer, weight, norms[4:])
    assert rates == pytest.approx(scales(norms, 3)[4:], rel=1e-12)
    back = zenith.from_dict(zenith.to_dict(optimizer.zenith_state))
    assert back.count == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norms": (1.0, 2.0)}, "`window` of the state must be that of this schedule, 3, got 2"),
        ({"scale": 1.5}, "`scale` must be at most 1, got 1.5"),
        ({"norms": (1.0, NAN, 1.0)}, "`norms` must be finite and >= 0, got nan"),
        ({"count": -1}, "`count` must be an integer >= 0, got -1"),
    ],
)
def test_an_impossible_state_is_refused_and_the_old_one_stays(change, message):
    optimizer = Zenith([scalar()], window=3)
    before = optimizer.zenith_state
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is compared below
        optimizer.zenith_state = zenith.init(window=3)._replace(**change)
    assert str(raised.value) == message
    assert equal_states(before, optimizer.zenith_state)


@pytest.mark.parametrize("change", ["pop", "reverse", "clear", "remove the first"])
def test_the_schedule_survives_what_is_done_to_param_groups(change):
    a, b = scalar(), scalar()
    optimizer = Zenith([{"params": [a]}, {"params": [b]}], lr=1.0, window=1)
    b.grad = torch.full_like(b, 4.0)
    optimizer.step()
    groups = optimizer.param_groups
    if change == "pop":
        groups.insert(0, groups.pop())
    elif change == "reverse":
        groups.reverse()
    elif change == "remove the first":
        groups.pop(0)
    else:
        groups.clear()
        optimizer.add_param_group({"params": [b]})
    b.grad = torch.full_like(b, 1.0)
    optimizer.step()
    assert optimizer.get_last_lr() == [0.25] * len(groups)
    assert optimizer.zenith_state.count == 2
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"].reverse()
    optimizer.load_state_dict(saved)
    assert optimizer.zenith_state.count == 2


def test_an_optimizer_of_the_groups_of_another_has_a_schedule_of_its_own():
    weight = scalar()
    first = Zenith([weight], window=2)
    drive(first, weight, [4.0, 2.0])
    second = Zenith(first.param_groups, window=5)
    assert first.zenith_state.count == 2
    drive(first, weight, [1.0])
    assert (first.zenith_state.count, second.zenith_state.count) == (3, 0)


def test_a_state_that_float32_cannot_hold_is_refused():
    state = zenith.update(zenith.update(zenith.init(2), 1e39), 2e39)
    optimizer = Zenith([scalar(dtype=torch.float32)], window=2)
    with pytest.raises(ValueError, match=r"must be at most 3.403e\+38, got 2e\+39"):
        optimizer.zenith_state = state
    assert optimizer.zenith_state.count == 0
    with pytest.raises(TypeError, match="must be a ZenithState, got dict"):
        optimizer.zenith_state = zenith.to_dict(state)


def test_a_model_that_becomes_float64_later_takes_the_state_along():
    weight = scalar(dtype=torch.float32)
    optimizer = Zenith([weight], window=1)
    weight.data = weight.data.double()
    drive(optimizer, weight, [1e60, 5e59])
    assert optimizer.get_last_lr() == [0.05]
    assert optimizer.zenith_state.norms.dtype == torch.float64


def test_a_group_without_parameters_is_no_harm():
    weight = scalar()
    optimizer = Zenith([{"params": []}], window=1, lr=1.0)
    optimizer.add_param_group({"params": [weight]})
    assert drive(optimizer, weight, [4.0, 1.0]) == [1.0, 0.25]


def test_two_optimizers_never_share_a_ring():
    a, b = scalar(), scalar()
    first, second = Zenith([a], window=2), Zenith([b], window=2)
    second.zenith_state = first.zenith_state
    drive(first, a, [1.0, 2.0])
    assert second.zenith_state.norms.tolist() == [0.0, 0.0]


NUMPY = {"lr": np.float64(0.5), "momentum": np.float32(0.5), "weight_decay": np.float64(0.25)}


@pytest.mark.parametrize("given", [*NUMPY, "all", "constructor", "int64"])
def test_a_numpy_scalar_is_a_number(given):
    """Steps of buf = 4 + w0 / 4, then buf / 2 + 2 + w1 / 4, at lr and at lr / 2: norms 4 and 2."""
    weight, lr, momentum, decay = scalar(2.0), 0.5, 0.5, 0.25
    in_constructor = NUMPY if given == "constructor" else {}
    options = {"lr": lr, "momentum": momentum, "weight_decay": decay, **in_constructor}
    optimizer = Zenith([weight], window=1, **options)
    for name in NUMPY if given == "all" else {given} & NUMPY.keys():
        optimizer.param_groups[0][name] = NUMPY[name]
    if given == "int64":
        optimizer.param_groups[0]["lr"], lr = np.int64(1), 1.0
    assert drive(optimizer, weight, [4.0, 2.0]) == [lr, lr / 2]
    first = 4 + 0.25 * 2.0
    after_first = 2 - lr * first
    second = 0.5 * first + 2 + 0.25 * after_first
    assert weight.item() == after_first - lr / 2 * second
    assert type(optimizer.get_last_lr()[0]) is float


@pytest.mark.parametrize("where", ["constructor", "group", "added group"])
def test_a_numpy_array_of_no_dimension_is_a_number(where):
    weight, lr = scalar(2.0), np.array(0.5)
    optimizer = Zenith([weight], lr=lr if where == "constructor" else 0.1, window=1)
    if where == "group":
        optimizer.param_groups[0]["lr"] = lr
    elif where == "added group":
        optimizer.param_groups.clear()
        optimizer.add_param_group({"params": [weight], "lr": lr})
    assert drive(optimizer, weight, [4.0, 2.0]) == [0.5, 0.25]
    assert weight.item() == 2.0 - 0.5 * 4.0 - 0.25 * 2.0


@pytest.mark.parametrize("kind", [float, np.float64, np.array])
def test_a_schedule_that_ends_just_below_0_steps_on(kind):
    """As a cosine may, by its rounding; a rate is refused in the constructor alone."""
    weight = scalar(2.0)
    optimizer = Zenith([weight], lr=0.5, window=1)
    optimizer.param_groups[0]["lr"] = kind(-(2.0**-60))
    assert drive(optimizer, weight, [4.0]) == [-(2.0**-60)]
    assert weight.item() == 2.0
    optimizer.param_groups[0]["lr"] = np.array([0.5])
    with pytest.raises(TypeError, match=r"`lr` must be a number, got array\(\[0\.5\]\)"):
        optimizer.step()


def test_lambda_lr_of_numpys_cosine():
    """The rates are cos(step / 10) * scale, with scales 1, 3/4, 2/4 of norms 4, 3, 2."""
    weight = scalar()
    optimizer = Zenith([weight], lr=1.0, window=1)
    scheduler = LambdaLR(optimizer, lambda step: np.cos(step / 10))
    rates = []
    for norm in (4.0, 3.0, 2.0):
        rates += drive(optimizer, weight, [norm])
        scheduler.step()
    assert rates == pytest.approx([1.0, 0.75 * math.cos(0.1), 0.5 * math.cos(0.2)], rel=1e-15)


def test_zenith_metrics_are_those_of_the_last_step():
    weight = scalar()
    optimizer = Zenith([{"params": [weight]}, {"params": [scalar()], "lr": 7.0}], lr=0.5, window=2)
    names = ["lr", "grad_norm", "mean", "zenith", "scale", "count", "skipped"]
    assert list(optimizer.zenith_metrics()) == names
    assert list(optimizer.zenith_metrics().values()) == [0.5, 0.0, 0.0, 0.0, 1.0, 0, 0]
    drive(optimizer, weight, [4.0, 2.0, 1.0, NAN])
    optimizer.param_groups[0]["lr"] = 9.0  # what is set since is not what the step was made at
    assert list(optimizer.zenith_metrics().values()) == [0.25, 1.0, 1.5, 3.0, 0.5, 3, 1]
    optimizer.param_groups.clear()
    assert optimizer.zenith_metrics()["lr"] == 0.25


def test_metrics_are_tensors_of_the_last_step():
    weight = scalar()
    optimizer = Zenith([weight], window=2)
    drive(optimizer, weight, [4.0, 2.0, 1.0])
    values = zenith.metrics(optimizer.zenith_state)
    assert all(isinstance(value, torch.Tensor) for value in values.values())
    assert {name: value.item() for name, value in values.items()} == {
        "grad_norm": 1.0,
        "mean": 1.5,
        "zenith": 3.0,
        "scale": 0.5,
        "count": 3,
        "skipped": 0,
    }
