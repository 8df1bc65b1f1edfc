"""The schedule in plain Python: by hand, against Algorithm 1 as printed, and at its edges."""

import math
import random
import runpy
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _core import LARGEST, REJECTED, finite, last, reproducible, windows
from _golden import CASES, assert_golden
from _golden import norms as golden_norms
from hypothesis import given
from hypothesis import strategies as st

from zenith import ZenithState, init, update

moderate = st.just(0.0) | st.floats(1e-100, 1e100)


finite_lists = st.lists(finite, max_size=40)


def follow(state: ZenithState, norms: Iterable[float]) -> Iterator[ZenithState]:
    """The state after each of `norms`."""
    for norm in norms:
        state = update(state, norm)
        yield state


def algorithm_1(norms: Iterable[float], window: int) -> Iterator[tuple[float, float, float]]:
    """Algorithm 1 (appendix A of the paper), line by line, with eta_0 = 1; means are exact.

    Yields (mu, Z, eta) at the end of each iteration; mu is 0 before there is one.
    """
    eta_0 = 1.0
    queue: deque[float] = deque()
    zenith, eta, mu = 0.0, eta_0, 0.0
    for g in norms:
        queue.append(g)
        if len(queue) > window:
            queue.popleft()
        if len(queue) == window:
            mu = statistics.mean(queue)  # in fractions, rounded once
            zenith = max(zenith, mu)
            if zenith > 0:  # noqa: SIM108 (as it is printed)
                eta = eta_0 * (mu / zenith)
            else:
                eta = eta_0
        yield mu, zenith, eta


def assert_close(actual: float, expected: float) -> None:
    # Below 1e-308 a double has fewer than 52 bits: there, up to two of the last one.
    assert math.isclose(actual, expected, rel_tol=1e-12, abs_tol=1e-323), (actual, expected)


# --- the golden vectors


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_golden_vectors(case: dict[str, Any]) -> None:
    assert_golden(case, follow(init(case["window"]), golden_norms(case)), tolerance=1e-15)


def test_the_golden_vectors_are_what_their_script_makes() -> None:
    folder = Path(__file__).parents[1] / "golden"
    found: dict[str, Any] = runpy.run_path(str(folder / "make.py"))
    assert found["document"]() == (folder / "vectors.json").read_text()


# --- steps worked out by hand


def test_window_1_by_hand() -> None:
    assert list(follow(init(1), [4.0, 2.0, 8.0, 6.0])) == [
        ZenithState([4.0], count=1, mean=4.0, zenith=4.0, scale=1.0, skipped=0),
        ZenithState([2.0], count=2, mean=2.0, zenith=4.0, scale=0.5, skipped=0),
        ZenithState([8.0], count=3, mean=8.0, zenith=8.0, scale=1.0, skipped=0),
        ZenithState([6.0], count=4, mean=6.0, zenith=8.0, scale=0.75, skipped=0),
    ]


def test_window_2_by_hand() -> None:
    assert list(follow(init(2), [3.0, 5.0, 1.0, 9.0])) == [
        ZenithState([3.0, 0.0], count=1, mean=0.0, zenith=0.0, scale=1.0, skipped=0),
        ZenithState([3.0, 5.0], count=2, mean=4.0, zenith=4.0, scale=1.0, skipped=0),
        ZenithState([1.0, 5.0], count=3, mean=3.0, zenith=4.0, scale=0.75, skipped=0),
        ZenithState([1.0, 9.0], count=4, mean=5.0, zenith=5.0, scale=1.0, skipped=0),
    ]


def test_window_3_by_hand_goes_round_the_ring_twice_in_buffer_order() -> None:
    assert list(follow(init(3), [6.0, 3.0, 0.0, 3.0, 9.0, 3.0, 0.0])) == [
        ZenithState([6.0, 0.0, 0.0], count=1, mean=0.0, zenith=0.0, scale=1.0, skipped=0),
        ZenithState([6.0, 3.0, 0.0], count=2, mean=0.0, zenith=0.0, scale=1.0, skipped=0),
        ZenithState([6.0, 3.0, 0.0], count=3, mean=3.0, zenith=3.0, scale=1.0, skipped=0),
        ZenithState([3.0, 3.0, 0.0], count=4, mean=2.0, zenith=3.0, scale=2 / 3, skipped=0),
        ZenithState([3.0, 9.0, 0.0], count=5, mean=4.0, zenith=4.0, scale=1.0, skipped=0),
        ZenithState([3.0, 9.0, 3.0], count=6, mean=5.0, zenith=5.0, scale=1.0, skipped=0),
        ZenithState([0.0, 9.0, 3.0], count=7, mean=4.0, zenith=5.0, scale=0.8, skipped=0),
    ]


def test_zero_norms_scale_by_1_while_zenith_is_0_and_by_0_once_the_mean_has_fallen_to_0() -> None:
    assert list(follow(init(2), [0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 1.0])) == [
        ZenithState([0.0, 0.0], count=1, mean=0.0, zenith=0.0, scale=1.0, skipped=0),
        ZenithState([0.0, 0.0], count=2, mean=0.0, zenith=0.0, scale=1.0, skipped=0),
        ZenithState([0.0, 0.0], count=3, mean=0.0, zenith=0.0, scale=1.0, skipped=0),
        ZenithState([0.0, 4.0], count=4, mean=2.0, zenith=2.0, scale=1.0, skipped=0),
        ZenithState([0.0, 4.0], count=5, mean=2.0, zenith=2.0, scale=1.0, skipped=0),
        ZenithState([0.0, 0.0], count=6, mean=0.0, zenith=2.0, scale=0.0, skipped=0),
        ZenithState([1.0, 0.0], count=7, mean=0.5, zenith=2.0, scale=0.25, skipped=0),
    ]


def test_a_state_built_by_hand_and_one_update() -> None:
    before = ZenithState(
        [1.0, 2.0, 3.0, 6.0], count=6, mean=3.0, zenith=8.0, scale=0.375, skipped=5
    )
    assert update(before, 11.0) == ZenithState(
        [1.0, 2.0, 11.0, 6.0], count=7, mean=5.0, zenith=8.0, scale=0.625, skipped=5
    )


def test_the_norm_of_a_step_counts_in_the_scale_of_that_step() -> None:
    scales = [state.scale for state in follow(init(2), [8.0, 8.0, 0.0, 0.0])]
    assert scales == [1.0, 1.0, 0.5, 0.0]  # one step late it would be 1, 1, 1, 0.5


def test_the_step_that_fills_the_window_is_the_first_with_a_mean() -> None:
    states = list(follow(init(5), [2.0] * 5))
    assert [state.mean for state in states] == [0.0, 0.0, 0.0, 0.0, 2.0]
    assert [state.zenith for state in states] == [0.0, 0.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize("window", [1, 3, 7, 10, 49, 500])
@pytest.mark.parametrize("norm", [0.1, 1 / 3, 5e-324, 1e-300, LARGEST])
def test_scale_is_exactly_1_where_the_mean_is_at_its_zenith(window: int, norm: float) -> None:
    state = last(init(window), [norm] * 2 * window)
    assert state.mean == pytest.approx(norm, rel=1e-12, abs=0)
    assert state.mean == state.zenith
    assert state.scale == 1.0


# Made by `algorithm_1(GOLDEN_NORMS, window=8)`, whose means are exact and rounded once, and printed
# with repr(). The norms are round(3 * 0.93**t * random.Random(0).lognormvariate(0, 0.5), 4), with a
# 0 put in the place of the 20th and a spike in the place of the 30th. One row for each norm.
GOLDEN = [
    (2.7365, 0.0, 0.0, 1.0),
    (2.8357, 0.0, 0.0, 1.0),
    (3.6799, 0.0, 0.0, 1.0),
    (2.2996, 0.0, 0.0, 1.0),
    (4.5498, 0.0, 0.0, 1.0),
    (0.9699, 0.0, 0.0, 1.0),
    (2.2226, 0.0, 0.0, 1.0),
    (0.9879, 2.5352375, 2.5352375, 1.0),
    (1.6347, 2.3975125, 2.5352375, 0.9456757009944827),
    (1.3504, 2.21185, 2.5352375, 0.8724429170837052),
    (1.2542, 1.9086375, 2.5352375, 0.7528436684925969),
    (0.4708, 1.6800375, 2.5352375, 0.6626746014919707),
    (1.3101, 1.275075, 2.5352375, 0.5029410459572328),
    (1.5979, 1.353575, 2.5352375, 0.5339046144591976),
    (2.515, 1.390125, 2.5352375, 0.5483214097298577),
    (1.5328, 1.4582375, 2.5352375, 0.5751877289603046),
    (0.2952, 1.2908, 2.5352375, 0.5091436206667028),
    (0.4734, 1.181175, 2.5352375, 0.46590309586379974),
    (1.3014, 1.187075, 2.5352375, 0.46823029400598565),
    (0.0, 1.128225, 2.5352375, 0.4450174786385891),
    (0.7777, 1.061675, 2.5352375, 0.41876747247545837),
    (0.3095, 0.900625, 2.5352375, 0.3552428520010453),
    (0.899, 0.6986249999999999, 2.5352375, 0.2755658986584097),
    (1.0164, 0.6340749999999999, 2.5352375, 0.2501047732214437),
    (0.6019, 0.6724125, 2.5352375, 0.2652266306411135),
    (0.5591, 0.683125, 2.5352375, 0.26945207303063323),
    (0.4982, 0.5827249999999999, 2.5352375, 0.22985026057716484),
    (0.3047, 0.6208125, 2.5352375, 0.24487350790606402),
    (0.5212, 0.58875, 2.5352375, 0.23222676376473603),
    (25.0, 3.6750625, 3.6750625, 1.0),
    (0.3601, 3.6077, 3.6750625, 0.9816703797554462),
    (0.4033, 3.5310625, 3.6750625, 0.9608169929082838),
    (0.6719, 3.5398125, 3.6750625, 0.9631979047975374),
    (0.685, 3.55555, 3.6750625, 0.967480144895495),
    (0.2246, 3.52135, 3.6750625, 0.9581741807112124),
    (0.3112, 3.5221625, 3.6750625, 0.958395265386643),
    (0.2657, 3.490225, 3.6750625, 0.9497049369908676),
    (0.4207, 0.41781250000000003, 3.6750625, 0.11368854271185865),
    (0.0837, 0.3832625, 3.6750625, 0.10428734205200592),
    (0.1161, 0.3473625, 3.6750625, 0.09451880070066836),
]


def test_golden_run() -> None:
    states = follow(init(8), [row[0] for row in GOLDEN])
    for state, (_, mean, highest, scale) in zip(states, GOLDEN, strict=True):
        assert_close(state.mean, mean)
        assert_close(state.zenith, highest)
        assert_close(state.scale, scale)


# --- any list of norms, against Algorithm 1 as it is printed


@reproducible
@given(finite_lists, windows)
def test_follows_algorithm_1(norms: list[float], window: int) -> None:
    states = follow(init(window), norms)
    reference = algorithm_1(norms, window)
    for state, (mean, highest, scale) in zip(states, reference, strict=True):
        assert_close(state.mean, mean)
        assert_close(state.zenith, highest)
        assert_close(state.scale, scale)


@reproducible
@given(finite_lists, windows)
def test_the_ring_holds_the_last_norms_in_buffer_order(norms: list[float], window: int) -> None:
    ring = [0.0] * window
    for t, norm in enumerate(norms):
        ring[t % window] = norm
    state = last(init(window), norms)
    assert state.norms == ring
    assert (state.count, state.skipped) == (len(norms), 0)


@reproducible
@given(finite_lists, windows, st.floats(0.0, LARGEST))
def test_lr_is_a_hard_cap(norms: list[float], window: int, lr: float) -> None:
    for state in follow(init(window), norms):
        assert 0.0 <= state.scale <= 1.0
        assert 0.0 <= lr * state.scale <= lr


@reproducible
@given(finite_lists, windows)
def test_zenith_never_falls_and_the_mean_never_passes_it(norms: list[float], window: int) -> None:
    before = init(window)
    for state in follow(before, norms):
        assert before.zenith <= state.zenith < math.inf
        assert 0.0 <= state.mean <= state.zenith
        before = state


@reproducible
@given(st.lists(moderate, max_size=40), windows, st.integers(-300, 300))
def test_norms_times_a_power_of_two_change_no_bit_of_scale(
    norms: list[float], window: int, exponent: int
) -> None:
    factor = 2.0**exponent
    scaled = follow(init(window), [norm * factor for norm in norms])
    for state, other in zip(follow(init(window), norms), scaled, strict=True):
        assert state.scale == other.scale
        assert (state.mean * factor, state.zenith * factor) == (other.mean, other.zenith)


@reproducible
@given(st.lists(moderate, max_size=40), windows, st.floats(1e-50, 1e50))
def test_norms_times_any_factor_leave_scale_as_it_is(
    norms: list[float], window: int, factor: float
) -> None:
    scaled = follow(init(window), [norm * factor for norm in norms])
    for state, other in zip(follow(init(window), norms), scaled, strict=True):
        assert_close(other.scale, state.scale)


@reproducible
@given(finite_lists, windows, finite | st.sampled_from(REJECTED))
def test_update_is_pure(norms: list[float], window: int, norm: float) -> None:
    state = last(init(window), norms)
    before = repr(state)  # repr tells every float apart, -0.0 from 0.0 too
    first, second = update(state, norm), update(state, norm)
    assert repr(state) == before
    assert repr(first) == repr(second)


@pytest.mark.parametrize("norm", [1.0, math.nan])
def test_the_result_shares_no_ring_with_the_argument(norm: float) -> None:
    state = last(init(2), [3.0, 5.0])
    after = update(state, norm)
    after.norms[1] = 7.0
    assert state.norms == [3.0, 5.0]


# --- rejected norms


@reproducible
@given(finite_lists, windows, st.sampled_from(REJECTED))
def test_a_rejected_norm_changes_skipped_and_no_other_bit(
    norms: list[float], window: int, rejected: float
) -> None:
    state = last(init(window), norms)
    assert repr(update(state, rejected)) == repr(state._replace(skipped=1))


@pytest.mark.parametrize("rejected", REJECTED)
def test_a_rejected_norm_leaves_a_mean_that_was_rounded_elsewhere(rejected: float) -> None:
    # A state from a float32 run: its mean is the ring's only to 24 bits, and stays so.
    state = ZenithState([0.1, 0.2], count=2, mean=0.15000000596, zenith=0.3, scale=0.5, skipped=0)
    assert update(state, rejected) == state._replace(skipped=1)


@reproducible
@given(st.lists(finite | st.sampled_from(REJECTED), max_size=40), windows)
def test_the_trajectory_is_that_of_the_accepted_norms(norms: list[float], window: int) -> None:
    accepted = [norm for norm in norms if 0 <= norm < math.inf]
    state = last(init(window), norms)
    assert state.skipped == len(norms) - len(accepted)
    assert repr(state._replace(skipped=0)) == repr(last(init(window), accepted))


@pytest.mark.parametrize("rejected", REJECTED)
def test_rejected_norms_do_not_fill_the_window(rejected: float) -> None:
    state = last(init(2), [4.0, rejected, rejected])
    assert state == ZenithState([4.0, 0.0], count=1, mean=0.0, zenith=0.0, scale=1.0, skipped=2)
    assert update(state, 2.0).mean == 3.0


# --- no drift, no overflow


@pytest.mark.parametrize("spike", [1e8, 1e16, 1e300])
@pytest.mark.parametrize("window", [1, 2, 3, 7, 500])
def test_a_spike_is_gone_from_the_mean_when_it_has_left_the_window(
    window: int, spike: float
) -> None:
    state = last(init(window), [spike] + [1.0] * (window - 1))
    assert_close(state.mean, statistics.mean([spike] + [1.0] * (window - 1)))
    for after in follow(state, [1.0] * 2 * window):
        assert_close(after.mean, 1.0)
        assert_close(after.scale, 1.0 / state.mean)


def test_the_mean_does_not_drift_in_a_long_run() -> None:
    # 200,000 norms over 16 orders of magnitude, around the ring 20,000 times. A running sum that
    # adds the new norm and takes off the old one is wrong by 1e-8 after the first spike already.
    draw = random.Random(0)
    state = init(10)
    worst = 0.0
    for _ in range(200_000):
        state = update(state, 10.0 ** draw.uniform(-8.0, 8.0))
        if state.count >= 10:
            exact = math.fsum(state.norms) / 10
            worst = max(worst, abs(state.mean - exact) / exact)
    assert state.count == 200_000
    assert worst <= 1e-12


@reproducible
@given(finite_lists, st.lists(finite, min_size=1, max_size=9))
def test_the_mean_knows_nothing_but_the_ring(history: list[float], ring: list[float]) -> None:
    # So it is right after any number of updates, ten million included. The history is cut so that
    # the ring starts at slot 0 in both runs: the mean is then the same to the last bit.
    window = len(ring)
    history = history[: len(history) // window * window]
    assert last(init(window), history + ring).mean == last(init(window), ring).mean


@pytest.mark.parametrize("window", [1, 2, 3, 7, 10, 500])
def test_the_mean_of_the_largest_norms_is_finite(window: int) -> None:
    state = last(init(window), [LARGEST] * window)
    assert_close(state.mean, LARGEST)
    assert state.mean == state.zenith <= LARGEST
    assert state.scale == 1.0
