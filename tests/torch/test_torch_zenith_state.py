"""The state of the schedule as a user reads, sets and carries it."""

import copy
import math

import numpy as np
import pytest
import torch
from _reference import scales
from _schedule import NAN, drive, equal_states, scalar
from torch.optim.lr_scheduler import (
    LambdaLR,
)

import zenith
from zenith.torch import Zenith


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
