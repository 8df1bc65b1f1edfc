"""What the schedule measures: one norm over all groups, with weight decay, clipped or given."""

import copy
import math

import pytest
import torch
from _schedule import drive, equal_states, scalar, scaled_run

from zenith.torch import Zenith

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


def test_a_known_norm_is_not_rounded_below_the_dtype_of_the_state():
    weight = scalar(dtype=torch.float64)
    optimizer = Zenith([weight], window=1)
    weight.grad = torch.ones_like(weight)
    optimizer.step(grad_norm=0.1)
    assert optimizer.zenith_state.norms.tolist() == [0.1]


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
        norm = optimizer._measure([optimizer._batch(optimizer.param_groups[0])], None, None)[0][0]
    else:
        optimizer.step()
        norm = optimizer.zenith_state.mean
    assert norm.item() == pytest.approx(math.sqrt(24), rel=1e-6)


@pytest.mark.parametrize(("dtype", "decay"), [(torch.bfloat16, 2**-9), (torch.float64, 2**-40)])
def test_decay_in_norm_is_not_rounded_to_the_dtype_of_the_gradient_or_below(dtype, decay):
    """1 + decay * 1, which neither bfloat16 nor float32 holds."""
    weight = torch.nn.Parameter(torch.ones(1, dtype=dtype))
    optimizer = Zenith([weight], window=1, weight_decay=decay, decay_in_norm=True)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert optimizer.zenith_state.norms.tolist() == [1 + decay]


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
