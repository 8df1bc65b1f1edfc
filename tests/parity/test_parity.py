"""One algorithm everywhere: the same runs in every framework, and in numpy."""

import functools
import json
import math
from itertools import cycle, islice

import numpy as np
import pytest
from _parity import (
    BAD_STEPS,
    FRAMEWORKS,
    PROBLEMS,
    RATES,
    STEPS,
    WINDOW,
    Leg,
    Run,
    in_framework,
    reference,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import zenith


@functools.cache
def wanted(name: str, schedule: str, momentum: float, rate_in_momentum: bool) -> Run:
    return reference(PROBLEMS[name], RATES[schedule], momentum, rate_in_momentum)


# --- a run in one framework

# float64: 600 steps of rounding in 1e-16. float32: the rounding of one step, 6e-8, of weights of
# about 1, which adds up over the steps as a random walk does, for the runs contract.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4}


def assert_equal(ours: Run, theirs: Run, tolerance: float) -> None:
    for name, a, b in zip(Run._fields, ours, theirs, strict=True):
        size = np.abs(b).reshape(STEPS, -1).max(1)  # of the largest entry of each step
        error = np.abs(a - b).reshape(STEPS, -1).max(1) / size
        assert error.max() <= tolerance, f"{name}: {error.max():.1e} at step {error.argmax()}"


PAIRS = [(f, name) for f in FRAMEWORKS for name in PROBLEMS]
# Of a framework without parameter groups a frozen layer stands for them.
PAIRS = [(f, name) for f, name in PAIRS if name != "groups" or FRAMEWORKS[f].groups]


EVERY = [(name, schedule, "float64") for name in PROBLEMS for schedule in RATES]
EVERY += [("mlp", schedule, "float32") for schedule in RATES]
EVERY += [(name, "cosine", "float32") for name in PROBLEMS if name != "mlp"]
EVERY = [(f, *case) for f in FRAMEWORKS for case in EVERY if (f, case[0]) in PAIRS]


@pytest.mark.parametrize(("framework", "name", "schedule", "dtype"), EVERY)
def test_rates_and_weights_are_those_of_the_reference(framework, name, schedule, dtype):
    theirs = wanted(name, schedule, 0.0, False)
    assert (theirs.scales[: WINDOW - 1] == 1).all()
    assert theirs.scales.min() < 0.8
    for t in BAD_STEPS:
        assert (theirs.weights[t] == theirs.weights[t - 1]).all()
    ours = in_framework(framework).run(name, schedule, 0.0, dtype)
    assert_equal(ours, theirs, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("framework", "name"), PAIRS)
def test_with_momentum_keras_has_a_form_of_its_own(framework, name, dtype):
    in_float32 = float(np.float32(0.9))  # to which Keras rounds the momentum, but not the buffer
    of_torch = wanted(name, "cosine", 0.9, False)
    of_keras = wanted(name, "cosine", in_float32, True)
    assert np.abs(of_torch.weights - of_keras.weights).max() > 1e-3
    theirs = of_keras if FRAMEWORKS[framework].rate_in_momentum else of_torch
    ours = in_framework(framework).run(name, "cosine", 0.9, dtype)
    assert_equal(ours, theirs, TOLERANCES[dtype])


# --- a run that moves


ORDERS = [(*islice(FRAMEWORKS, i, None), *islice(FRAMEWORKS, i)) for i in range(len(FRAMEWORKS))]


@pytest.mark.parametrize(
    ("order", "dtype", "tolerance"),
    [*((order, "float64", 1e-9) for order in ORDERS), (ORDERS[0], "float32", 1e-4)],
)
def test_a_run_goes_from_framework_to_framework_and_back(order, dtype, tolerance):
    theirs = wanted("mlp", "cosine", 0.0, False)
    leg, scales = Leg(range(0)), []
    for framework in (*order, order[0]):  # 70 steps each: a window and 20 more, the ring in between
        leg.steps = range(leg.steps.stop, leg.steps.stop + 70)
        run = in_framework(framework).run("mlp", "cosine", 0.0, dtype, leg)
        scales.extend(run.scales)
        leg.weights = split(run.weights[-1])
        leg.document = json.loads(json.dumps(leg.document))
    np.testing.assert_allclose(scales, theirs.scales[: len(scales)], rtol=tolerance)
    np.testing.assert_allclose(run.weights[-1], theirs.weights[len(scales) - 1], tolerance)


def split(weights: np.ndarray) -> list[np.ndarray]:
    shapes = [weight.shape for weight in PROBLEMS["mlp"].weights]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = zip(np.split(weights, ends), shapes, strict=True)
    return [part.reshape(shape) for part, shape in parts]


# In float32 the mean and the zenith are sums, which may be rounded at each of their terms.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2 * WINDOW * 2**-24)]
)
def test_the_state_alone_moves_in_mid_window_and_the_rates_go_on(dtype, tolerance):
    norms = [1 + math.sin(t / 9) ** 2 for t in range(150)]
    state, rates = zenith.init(WINDOW), []
    for norm in norms:
        state = zenith.update(state, norm)
        rates.append(state.scale)
    document, found, frameworks = zenith.to_dict(zenith.init(WINDOW)), [], cycle(FRAMEWORKS)
    for start in range(0, 150, 30):
        state = zenith.from_dict(json.loads(json.dumps(document)))
        observe = in_framework(next(frameworks)).keeper(state, dtype)
        for norm in norms[start : start + 30]:
            document = observe(norm)
            found.append(document["scale"])
    assert min(rates) < 0.95
    np.testing.assert_allclose(found, rates, rtol=tolerance)


# --- the schedule alone


# Normal numbers of float32, and so are the means of six: XLA takes smaller ones for 0.
NORMS = (
    st.just(0.0) | st.floats(2.0**-100, 2.0**20, width=32) | st.sampled_from([math.nan, math.inf])
)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 2e-6)])
@settings(deadline=None, derandomize=True, database=None, max_examples=25)
@given(norms=st.lists(NORMS, min_size=1, max_size=40), window=st.integers(1, 6))
def test_any_norms_give_every_adapter_the_state_of_the_core(
    framework, dtype, tolerance, norms, window
):
    state = zenith.init(window)
    observe = in_framework(framework).keeper(state, dtype)
    for norm in norms:
        state, found = zenith.update(state, norm), observe(norm)
        for field, expected in zenith.to_dict(state).items():
            np.testing.assert_allclose(found[field], expected, tolerance, err_msg=field)
