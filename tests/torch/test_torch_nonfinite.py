"""Gradients that are not finite, and GradScaler."""

import copy

import pytest
import torch
from _schedule import FORMS, INF, NAN, drive, equal_states, scalar, scaled_run

from zenith.torch import Zenith

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
