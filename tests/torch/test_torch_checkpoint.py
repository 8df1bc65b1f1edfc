"""Saving and loading an optimizer: in memory, by torch.save, to and from SGD."""

import copy
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from _checkpoint import (
    STEPS,
    WINDOW,
    assert_same,
    assert_same_run,
    buffers_of,
    copy_parameters,
    cuts,
    momenta,
    parameters,
    run,
    saved_and_loaded,
    values_of,
)
from torch import Tensor
from torch.optim import SGD

from zenith.torch import Zenith

FIELDS = ("norms", "count", "mean", "zenith", "scale", "skipped")


# --- torch.save and torch.load --------------------------------------------------------------------


FORMS = {
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
DTYPES = {
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float64: torch.float64,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}
FORMS_AND_DTYPES = [
    pytest.param(form, dtype, id=f"{name}-{str(dtype).removeprefix('torch.')}")
    for name, form in FORMS.items()
    for dtype in DTYPES
    if not (name == "fused" and dtype.is_complex)
]


@cuts
@momenta
@pytest.mark.parametrize(("form", "dtype"), FORMS_AND_DTYPES)
def test_a_resumed_run_is_the_uninterrupted_one(
    form: dict[str, bool], dtype: torch.dtype, momentum: float, cut: int
) -> None:
    make = partial(Zenith, window=WINDOW, momentum=momentum, **form)
    whole, first = make(parameters(dtype)), make(parameters(dtype))
    run(whole, range(STEPS))
    run(first, range(cut))
    document = first.state_dict()
    loaded = saved_and_loaded(document)
    assert_same(loaded, document)

    second = make(parameters(dtype), lr=0.7)
    copy_parameters(first, second)
    second.load_state_dict(loaded)
    assert_same_run(second, first)
    run(second, range(cut, STEPS))
    assert_same_run(second, whole)
    assert whole.zenith_state.scale < 0.9


@pytest.mark.parametrize(("dtype", "expected"), DTYPES.items())
def test_the_state_keeps_its_own_dtype(dtype: torch.dtype, expected: torch.dtype) -> None:
    optimizer = Zenith(parameters(dtype), window=WINDOW)
    run(optimizer, range(STEPS))
    before = optimizer.zenith_state
    optimizer.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    group = optimizer.state_dict()["param_groups"][0]
    saved = [group[f"zenith_{field}"] for field in FIELDS]
    assert_same(saved, list(before))
    floats, counts = expected, torch.int64
    assert [x.dtype for x in saved] == [floats, counts, floats, floats, floats, counts]
    assert [tuple(x.shape) for x in saved] == [(WINDOW,), (), (), (), (), ()]


@cuts
def test_several_groups_resume_bit_exactly(cut: int) -> None:
    def make() -> Zenith:
        params = parameters()
        groups = [
            {"params": params[:1], "lr": 0.3, "weight_decay": 0.1, "decay_in_norm": True},
            {"params": params[1:], "momentum": 0.9, "nesterov": True},
        ]
        return Zenith(groups, lr=0.05, window=WINDOW, max_grad_norm=1.0)

    whole, first, second = make(), make(), make()
    run(whole, range(STEPS))
    run(first, range(cut))
    copy_parameters(first, second)
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    run(second, range(cut, STEPS))
    assert_same_run(second, whole)


@pytest.mark.parametrize("nonfinite", ["skip", "propagate"])
@cuts
def test_a_run_resumes_after_a_step_that_was_not_finite(cut: int, nonfinite: str) -> None:
    """Only the schedule is compared under "propagate": the parameters are NaN, as asked."""
    make = partial(Zenith, window=WINDOW, nonfinite=nonfinite)
    whole, first, second = make(parameters()), make(parameters()), make(parameters())
    run(whole, range(STEPS), bad=cut - 1)
    run(first, range(cut), bad=cut - 1)
    copy_parameters(first, second)
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    run(second, range(cut, STEPS))
    assert_same(second.zenith_state, whole.zenith_state)
    assert whole.zenith_state.skipped == 1
    if nonfinite == "skip":
        assert_same_run(second, whole)


def test_a_tensor_rate_resumes() -> None:
    make = partial(Zenith, window=WINDOW, momentum=0.9, foreach=False)
    whole, first = (make(parameters(), lr=torch.tensor(0.2)) for _ in range(2))
    second = make(parameters(), lr=torch.tensor(0.9))
    run(whole, range(STEPS))
    run(first, range(7))
    copy_parameters(first, second)
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    run(second, range(7, STEPS))
    assert_same_run(second, whole)


# --- what is refused, and leaves no trace ---------------------------------------------------------


def assert_refused(optimizer: Any, document: dict[str, Any], *words: str) -> None:
    """Assert a ValueError that says `words`, an unchanged optimizer, and an unchanged document."""
    before, given = copy.deepcopy(optimizer), copy.deepcopy(document)
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words))):
        optimizer.load_state_dict(document)
    assert_same(document, given)
    assert_same_run(optimizer, before)
    run(optimizer, range(7, STEPS))
    run(before, range(7, STEPS))
    assert_same_run(optimizer, before)


def trained(window: int = WINDOW, momentum: float = 0.9, lr: float = 0.1) -> Zenith:
    optimizer = Zenith(parameters(), lr=lr, window=window, momentum=momentum)
    run(optimizer, range(7))
    return optimizer


@pytest.mark.parametrize("window", [WINDOW - 1, WINDOW + 3, 1])
def test_another_window_is_refused_by_naming_both(window: int) -> None:
    other = trained(window=window, momentum=0.5, lr=0.3).state_dict()
    assert_refused(trained(), other, "`window`", f"{WINDOW}, got {window}")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("norms", torch.tensor([1.0, torch.nan, 1.0, 1.0]), "`norms`"),
        ("norms", torch.tensor([1.0, torch.inf, 1.0, 1.0]), "`norms`"),
        ("norms", torch.tensor([1.0, -1.0, 1.0, 1.0]), "`norms`"),
        ("norms", torch.tensor(1.0), "`norms`"),
        ("count", torch.tensor(-1), "`count`"),
        ("count", torch.tensor(1.5), "`count`"),
        ("mean", torch.tensor(torch.nan), "`mean`"),
        ("mean", torch.tensor(1e9), "`mean`"),
        ("zenith", torch.tensor(-1.0), "`zenith`"),
        ("scale", torch.tensor(1.5), "`scale`"),
        ("scale", torch.tensor([1.0, 1.0]), "`scale`"),
        ("skipped", torch.tensor(-1), "`skipped`"),
    ],
)
def test_a_corrupted_state_is_refused(field: str, value: Tensor, words: str) -> None:
    document = copy.deepcopy(trained(momentum=0.5, lr=0.3).state_dict())
    document["param_groups"][0][f"zenith_{field}"] = value
    assert_refused(trained(), document, words)


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_refused(field: str) -> None:
    document = copy.deepcopy(trained(momentum=0.5, lr=0.3).state_dict())
    del document["param_groups"][0][f"zenith_{field}"]
    assert_refused(trained(), document, f"zenith_{field}")


def test_a_state_dict_of_another_model_is_refused() -> None:
    other = Zenith(parameters()[:1], lr=0.3, window=WINDOW)
    assert_refused(trained(), other.state_dict(), "parameter group")


# --- to and from torch.optim.SGD ------------------------------------------------------------------


@momenta
def test_a_state_dict_of_sgd_starts_the_schedule_empty(momentum: float) -> None:
    sgd = SGD(parameters(), lr=0.3, momentum=momentum, weight_decay=0.01)
    run(sgd, range(3))
    optimizer = trained()
    copy_parameters(sgd, optimizer)
    optimizer.load_state_dict(saved_and_loaded(sgd.state_dict()))
    assert_same(buffers_of(optimizer), buffers_of(sgd))
    empty = Zenith(parameters(), window=WINDOW).zenith_state
    assert_same(optimizer.zenith_state, empty)

    for steps in (range(3, 3 + WINDOW - 1), range(6, 7)):  # the filling of the window is SGD
        run(sgd, steps)
        run(optimizer, steps)
        assert optimizer.get_last_lr() == [0.3]
        assert_same(buffers_of(optimizer), buffers_of(sgd))
        assert_same(values_of(optimizer), values_of(sgd))
    assert optimizer.zenith_state.count == WINDOW


@momenta
def test_sgd_loads_a_state_dict_of_zenith(momentum: float) -> None:
    optimizer = trained(momentum=momentum, lr=0.3)
    sgd, reference = (SGD(parameters(), lr=0.3, momentum=momentum) for _ in range(2))
    for other in (sgd, reference):
        copy_parameters(optimizer, other)
    document = saved_and_loaded(optimizer.state_dict())
    sgd.load_state_dict(document)
    reference.load_state_dict({**reference.state_dict(), "state": copy.deepcopy(document["state"])})
    run(sgd, range(7, STEPS))
    run(reference, range(7, STEPS))
    assert_same(buffers_of(sgd), buffers_of(reference))
    assert_same(values_of(sgd), values_of(reference))


# --- nothing is shared ----------------------------------------------------------------------------


def schedule_of(document: dict[str, Any]) -> dict[str, Any]:
    group = document["param_groups"][0]
    return {key: value for key, value in group.items() if key.startswith("zenith_")}


def loaded_copy(optimizer: Zenith) -> Zenith:
    other = Zenith(parameters(), window=WINDOW, momentum=0.9)
    copy_parameters(optimizer, other)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return other


def pickled_copy(optimizer: Zenith) -> Zenith:
    return pickle.loads(pickle.dumps(optimizer))


@pytest.mark.parametrize("copied", [loaded_copy, copy.deepcopy, pickled_copy])
@cuts
def test_a_copy_advances_alone(copied: Callable[[Zenith], Zenith], cut: int) -> None:
    original, whole = (Zenith(parameters(), window=WINDOW, momentum=0.9) for _ in range(2))
    run(whole, range(STEPS))
    run(original, range(cut))
    twin = copied(original)
    before = copy.deepcopy(original.state_dict())
    run(twin, range(cut, STEPS))
    assert_same(original.state_dict(), before)
    assert_same_run(twin, whole)
    run(original, range(cut, STEPS))
    assert_same_run(original, whole)


def test_two_optimizers_of_one_state_dict_share_no_ring() -> None:
    document = trained().state_dict()
    schedule = copy.deepcopy(schedule_of(document))
    left, right = (Zenith(parameters(), window=WINDOW) for _ in range(2))
    left.load_state_dict(document)
    right.load_state_dict(document)
    right_before = right.zenith_state
    run(left, range(7, STEPS))
    assert_same(schedule_of(document), schedule)
    assert_same(right.zenith_state, right_before)

    for value in schedule_of(document).values():
        value.fill_(1)
    assert_same(right.zenith_state, right_before)


def test_later_steps_leave_a_state_dict_as_it_was() -> None:
    optimizer = trained()
    schedule = schedule_of(optimizer.state_dict())
    before = copy.deepcopy(schedule)
    run(optimizer, range(7, STEPS))
    assert_same(schedule, before)
    assert optimizer.zenith_state.count == STEPS


def test_a_snapshot_is_a_copy() -> None:
    optimizer = trained()
    optimizer.state_dict()  # the state is tensors now
    snapshot = optimizer.zenith_state
    before = copy.deepcopy(snapshot)
    for field in snapshot:
        field.fill_(1)
    assert_same(optimizer.zenith_state, before)
