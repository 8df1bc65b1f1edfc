"""The core's one transition on torch tensors, and the adapter's way of keeping its state."""

import json
import math
import random
from collections.abc import Iterable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import zenith
from zenith import ZenithState, core
from zenith.torch import Zenith, _state

# The same examples in every run, and none that fails for being slow on a busy machine.
reproducible = settings(deadline=None, derandomize=True, database=None, max_examples=60)

DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
REJECTED = [math.nan, math.inf, -math.inf, -1.0]

windows = st.integers(1, 9)
# Exactly representable in float32, and their mean too is a normal number there.
singles = st.sampled_from([0.0, 2.0**-100, 1.0, 2.0**100]) | st.floats(
    2.0**-100, 2.0**100, width=32
)
doubles = st.sampled_from([0.0, 1e-290, 1.0, 1e8, 1e308]) | st.floats(1e-290, 1e308)


def empty(window: int, dtype: torch.dtype) -> ZenithState:
    return on_torch(zenith.init(window), dtype)


def on_torch(state: ZenithState, dtype: torch.dtype) -> ZenithState:
    floats = {n: torch.tensor(getattr(state, n), dtype=dtype) for n in ("mean", "zenith", "scale")}
    return ZenithState(
        norms=torch.tensor(state.norms, dtype=dtype),
        count=torch.tensor(state.count),
        skipped=torch.tensor(state.skipped),
        **floats,
    )


def follow(state: ZenithState, norms: Iterable[float]) -> Iterator[ZenithState]:
    """The states on torch tensors after each of `norms`."""
    for norm in norms:
        state = core.update(state, torch.tensor(norm, dtype=state.norms.dtype), torch)
        yield state


def last(state: ZenithState, norms: Iterable[float]) -> ZenithState:
    for norm in norms:
        state = core.update(state, torch.tensor(norm, dtype=state.norms.dtype), torch)
    return state


def last_in_python(window: int, norms: Iterable[float]) -> ZenithState:
    state = zenith.init(window)
    for norm in norms:
        state = zenith.update(state, norm)
    return state


def assert_same_course(norms: list[float], window: int, dtype: torch.dtype) -> None:
    """Float64 and float32 tensors against plain Python's doubles, every field at every step."""
    plain = zenith.init(window)
    tolerance = TOLERANCE[dtype]
    for norm, state in zip(norms, follow(empty(window, dtype), norms), strict=True):
        plain = zenith.update(plain, norm)
        assert state.norms.tolist() == plain.norms
        assert (state.count.item(), state.skipped.item()) == (plain.count, plain.skipped)
        for name in ("mean", "zenith"):
            actual, expected = getattr(state, name).item(), getattr(plain, name)
            assert math.isclose(actual, expected, rel_tol=tolerance), (name, actual, expected)
        # A scale below 1e-38 has fewer bits in float32, and none below 1e-45.
        assert math.isclose(state.scale.item(), plain.scale, rel_tol=tolerance, abs_tol=3e-45)
        assert 0.0 <= state.scale.item() <= 1.0


# --- the transition on tensors


@reproducible
@given(st.lists(doubles | st.sampled_from(REJECTED), max_size=30), windows)
def test_float64_tensors_follow_plain_python(norms: list[float], window: int) -> None:
    assert_same_course(norms, window, torch.float64)


@reproducible
@given(st.lists(singles | st.sampled_from(REJECTED), max_size=30), windows)
def test_float32_tensors_follow_plain_python(norms: list[float], window: int) -> None:
    assert_same_course(norms, window, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_update_of_a_state_built_by_hand(dtype: torch.dtype) -> None:
    before = ZenithState(
        [1.0, 2.0, 3.0, 6.0], count=6, mean=3.0, zenith=8.0, scale=0.375, skipped=5
    )
    after = core.update(on_torch(before, dtype), torch.tensor(11.0, dtype=dtype), torch)
    expected = ZenithState(
        [1.0, 2.0, 11.0, 6.0], count=7, mean=5.0, zenith=8.0, scale=0.625, skipped=5
    )
    for actual, wanted in zip(after, on_torch(expected, dtype), strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [2.0, 0.0, math.nan, math.inf, -1.0])
def test_no_dtype_or_shape_changes(dtype: torch.dtype, norm: float) -> None:
    first = empty(3, dtype)
    for state in follow(first, [norm] * 7):
        for before, after in zip(first, state, strict=True):
            assert isinstance(after, Tensor)
            assert (after.dtype, after.shape) == (before.dtype, before.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_argument_is_not_changed_and_shares_no_memory_with_the_result(
    dtype: torch.dtype,
) -> None:
    state = last(empty(2, dtype), [3.0, 5.0])
    before = zenith.to_dict(state)
    for norm in (1.0, math.nan):
        after = core.update(state, torch.tensor(norm, dtype=dtype), torch)
        for field in after:
            field.fill_(7)
        assert zenith.to_dict(state) == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rejected", REJECTED)
def test_a_rejected_norm_changes_skipped_and_no_other_bit(
    dtype: torch.dtype, rejected: float
) -> None:
    for norms in ([], [0.1], [0.1, 0.7], [0.1, 0.7, 0.3], [0.0, 0.0]):
        state = last(empty(2, dtype), norms)
        after = core.update(state, torch.tensor(rejected, dtype=dtype), torch)
        assert zenith.to_dict(after) == zenith.to_dict(state) | {"skipped": 1}


@pytest.mark.parametrize("dtype", DTYPES)
def test_metrics_are_tensors(dtype: torch.dtype) -> None:
    norms = [3.0, 5.0, 1.0, math.nan]
    shown = zenith.metrics(last(empty(2, dtype), norms))
    assert all(isinstance(value, Tensor) and value.ndim == 0 for value in shown.values())
    assert {name: value.item() for name, value in shown.items()} == {
        "grad_norm": 1.0,
        "mean": 3.0,
        "zenith": 4.0,
        "scale": 0.75,
        "count": 3,
        "skipped": 1,
    }


# --- no drift, no overflow


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 2, 3, 7, 500])
def test_a_spike_is_gone_from_the_mean_when_it_has_left_the_window(
    dtype: torch.dtype, window: int
) -> None:
    state = last(empty(window, dtype), [1e8] + [1.0] * window)
    assert state.mean.item() == pytest.approx(1.0, rel=TOLERANCE[dtype])
    state = last(state, [1.0] * 5)
    assert state.mean.item() == pytest.approx(1.0, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mean_does_not_drift_around_the_ten_millionth_update(dtype: torch.dtype) -> None:
    # 30,000 updates over 16 orders of magnitude, from a state whose counter stands just below ten
    # million. With the next test this shows the contract for any number of updates: the counter
    # loses no step there, and nothing but the counter remembers how many there were.
    draw = random.Random(0)
    start = 10_000_000 - 15_000
    state = on_torch(zenith.init(5)._replace(count=start), dtype)
    means, rings = [], []
    for _ in range(30_000):
        norm = torch.tensor(10.0 ** draw.uniform(-8.0, 8.0), dtype=dtype)
        state = core.update(state, norm, torch)
        means.append(state.mean)
        rings.append(state.norms)
    assert state.count.item() == 10_015_000
    exact = torch.stack(rings).double().mean(dim=1)
    drift = (torch.stack(means).double() - exact).abs() / exact
    assert drift.max().item() <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rounds", [1, 2, 1_428_571, 2**31, 2**40])
def test_the_mean_knows_nothing_but_the_ring(dtype: torch.dtype, rounds: int) -> None:
    ring = [0.1, 1e8, 3.0, 0.7, 1e-8, 5.0, 11.0]
    fresh = last(empty(7, dtype), ring)
    old = empty(7, dtype)._replace(count=torch.tensor(7 * rounds), norms=torch.full((7,), 1e30))
    old = last(old._replace(norms=old.norms.to(dtype)), ring)
    assert old.count.item() == 7 * (rounds + 1)
    assert torch.equal(old.norms, fresh.norms)
    assert old.mean.item() == fresh.mean.item()


@pytest.mark.parametrize("dtype", DTYPES)
def test_200_000_steps_of_the_adapter_on_the_host_do_not_drift(dtype: torch.dtype) -> None:
    # As an optimizer on the CPU goes through them: plain numbers, rounded to the state's dtype.
    draw = random.Random(1)
    state = _state.tensors(zenith.init(4), dtype)
    worst = 0.0
    for _ in range(100):
        norms = torch.tensor([10.0 ** draw.uniform(-8.0, 8.0) for _ in range(2_000)], dtype=dtype)
        for norm in norms.tolist():
            state = _state.advance(state, norm, False, dtype)
            if state.count >= 4:
                exact = math.fsum(state.norms) / 4
                worst = max(worst, abs(state.mean - exact) / exact)
    assert state.count == 200_000
    assert worst <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 3, 10, 500])
def test_the_mean_of_the_largest_norms_is_finite(dtype: torch.dtype, window: int) -> None:
    largest = 0.999 * torch.finfo(dtype).max  # the rounding of a sum may go past the very largest
    state = last(empty(window, dtype), [largest] * window)
    assert state.mean.item() == pytest.approx(largest, rel=TOLERANCE[dtype])
    assert state.scale.item() == 1.0


# --- between plain numbers and tensors


@reproducible
@given(st.lists(singles | st.sampled_from(REJECTED), max_size=30), windows)
def test_the_document_is_the_same_from_tensors_and_from_numbers(
    norms: list[float], window: int
) -> None:
    state = last(empty(window, torch.float32), norms)
    numbers = ZenithState(state.norms.tolist(), *(value.item() for value in state[1:]))
    document = zenith.to_dict(state)
    assert document == zenith.to_dict(numbers)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert zenith.from_dict(document) == numbers


@reproducible
@given(st.lists(doubles, max_size=20), st.lists(doubles, max_size=20), windows)
def test_a_run_goes_from_plain_numbers_to_torch_and_back(
    norms: list[float], more: list[float], window: int
) -> None:
    plain = last_in_python(window, norms)
    tensors = on_torch(plain, torch.float64)
    assert zenith.from_dict(zenith.to_dict(tensors)) == plain
    there = last(tensors, more)
    back = zenith.from_dict(zenith.to_dict(there))
    expected = last_in_python(window, norms + more)
    assert (back.norms, back.count) == (expected.norms, expected.count)
    assert back.mean == pytest.approx(expected.mean, rel=1e-12)
    assert back.zenith == pytest.approx(expected.zenith, rel=1e-12)
    assert back.scale == pytest.approx(expected.scale, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_optimizer_takes_over_a_state_of_plain_numbers_and_hands_it_back(
    dtype: torch.dtype,
) -> None:
    weight = torch.nn.Parameter(torch.ones(1, dtype=dtype))
    optimizer = Zenith([weight], lr=0.5, window=3)
    plain = last_in_python(3, [6.0, 3.0, 0.0, 3.0, 9.0])
    optimizer.zenith_state = plain
    assert zenith.from_dict(zenith.to_dict(optimizer.zenith_state)) == plain._replace(
        mean=4.0, zenith=4.0, scale=1.0
    )
    for norm, scale in [(3.0, 1.0), (0.0, 0.8)]:
        weight.grad = torch.full_like(weight, norm)
        optimizer.step()
        assert optimizer.get_last_lr() == pytest.approx([0.5 * scale], rel=TOLERANCE[dtype])
    back = zenith.from_dict(zenith.to_dict(optimizer.zenith_state))
    assert back.norms == [0.0, 9.0, 3.0]
    assert (back.count, back.mean, back.zenith, back.skipped) == (7, 4.0, 5.0, 0)
    assert back.scale == pytest.approx(0.8, rel=TOLERANCE[dtype])


# --- the adapter's two ways of advancing the state agree


@reproducible
@given(st.lists(singles | st.sampled_from([math.nan, math.inf]), max_size=30), windows)
def test_on_the_host_and_on_the_device_the_schedule_is_the_same(
    norms: list[float], window: int
) -> None:
    host = device = empty(window, torch.float32)
    for norm in norms:
        host = _state.advance(host, norm, False, torch.float32)
        tensor = torch.tensor(norm)
        device = _state.advance(device, tensor, False, torch.float32)
    assert isinstance(host.scale, float) or not norms
    assert isinstance(device.scale, Tensor)
    host = _state.tensors(host, torch.float32)
    assert torch.equal(host.norms, device.norms)
    assert (host.count, host.skipped) == (device.count, device.skipped)
    for name in ("mean", "zenith", "scale"):
        torch.testing.assert_close(
            getattr(host, name), getattr(device, name), rtol=1e-6, atol=3e-45
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_numbers_kept_on_the_host_are_those_that_a_checkpoint_can_hold(
    dtype: torch.dtype,
) -> None:
    state = _state.tensors(zenith.init(3), dtype)
    for norm in [0.1, 0.7, 0.2, 0.4, 1 / 3]:
        state = _state.advance(state, norm, False, dtype)
        assert zenith.to_dict(state) == zenith.to_dict(_state.tensors(state, dtype))


def test_plain_numbers_stay_plain_where_the_norm_is_a_tensor() -> None:
    norm = torch.tensor(3.0, requires_grad=True)
    state = zenith.update(zenith.update(zenith.init(2), norm.detach()), torch.tensor(5.0))
    assert state.norms == [3.0, 5.0]
    assert all(type(norm) is float for norm in state.norms)
    assert zenith.from_dict(zenith.to_dict(state)) == state
