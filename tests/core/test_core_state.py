"""A state: made, read, written as a document, and taken over."""

import json
import math
import numbers
from typing import Any

import pytest
from _core import DOCUMENT, REJECTED, STATE, finite, last, reproducible, windows
from hypothesis import given
from hypothesis import strategies as st

from zenith import ZenithState, core, from_dict, init, metrics, to_dict

# --- init


class NumpyLike:
    """As numpy.int64 is: an integer by registration, with no base in common with int."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value

    def __lt__(self, other: int) -> bool:
        return self.value < other

    def __repr__(self) -> str:
        return f"NumpyLike({self.value})"


numbers.Integral.register(NumpyLike)


def test_init() -> None:
    assert init(3) == ZenithState([0.0] * 3, count=0, mean=0.0, zenith=0.0, scale=1.0, skipped=0)
    assert len(init().norms) == 500


def test_init_takes_any_integral() -> None:
    window: Any = NumpyLike(3)
    assert init(window) == init(3)


@pytest.mark.parametrize("window", [True, False, 3.0, "3", None, 3 + 0j, [3]])
def test_init_refuses_a_window_that_is_no_integer(window: Any) -> None:
    with pytest.raises(TypeError) as caught:
        init(window)
    assert str(caught.value) == f"`window` must be an integer >= 1, got {window!r}"


@pytest.mark.parametrize("window", [0, -1, -500, NumpyLike(0)])
def test_init_refuses_a_window_below_1(window: Any) -> None:
    with pytest.raises(ValueError, match="window") as caught:
        init(window)
    assert str(caught.value) == f"`window` must be an integer >= 1, got {window!r}"


# --- metrics


def test_metrics_names_and_values() -> None:
    state = ZenithState([1.0, 2.0, 3.0], count=5, mean=2.0, zenith=4.0, scale=0.5, skipped=7)
    assert list(metrics(state).items()) == [
        ("grad_norm", 2.0),  # slot (5 - 1) % 3
        ("mean", 2.0),
        ("zenith", 4.0),
        ("scale", 0.5),
        ("count", 5),
        ("skipped", 7),
    ]


@reproducible
@given(st.lists(finite | st.sampled_from(REJECTED), max_size=40), windows)
def test_metrics_shows_the_last_accepted_norm(norms: list[float], window: int) -> None:
    accepted = [0.0] + [norm for norm in norms if 0 <= norm < math.inf]
    assert metrics(last(init(window), norms))["grad_norm"] == accepted[-1]


# --- to_dict and from_dict


def through_json(state: ZenithState) -> ZenithState:
    return from_dict(json.loads(json.dumps(to_dict(state), allow_nan=False)))


def test_document() -> None:
    assert to_dict(STATE) == DOCUMENT
    assert from_dict(DOCUMENT) == STATE


def test_the_document_shares_no_list_with_the_state() -> None:
    document = to_dict(STATE)
    document["norms"][0] = 9.0
    assert to_dict(STATE) == DOCUMENT
    loaded = from_dict(document)
    document["norms"][1] = 9.0
    assert loaded.norms == [9.0, 2.0, 3.0]


def test_whole_numbers_are_read_as_floats_where_a_float_belongs() -> None:
    # JavaScript, for one, writes 1.0 as 1.
    loaded = from_dict(DOCUMENT | {"norms": [1, 2, 3], "mean": 2, "zenith": 4, "scale": 1})
    assert repr(loaded) == repr(STATE._replace(scale=1.0))


@reproducible
@given(
    st.lists(finite | st.sampled_from(REJECTED), max_size=30),
    st.lists(finite | st.sampled_from(REJECTED), max_size=30),
    windows,
)
def test_a_state_goes_through_json_and_on_to_the_last_bit(
    norms: list[float], more: list[float], window: int
) -> None:
    state = last(init(window), norms)
    loaded = through_json(state)
    assert repr(loaded) == repr(state)
    assert repr(last(loaded, more)) == repr(last(state, more))


BAD_DOCUMENTS = [
    ({"version": 2}, "`version` must be 1, got 2"),
    ({"version": True}, "`version` must be 1, got True"),
    ({"mean": 2**1024}, f"`mean` must be finite and >= 0, got {2**1024}"),
    ({"version": "1"}, "`version` must be 1, got '1'"),
    ({"version": None}, "`version` must be 1, got None"),
    ({"norms": []}, "`norms` must be a list of at least one number, got []"),
    ({"norms": 3.0}, "`norms` must be a list of at least one number, got 3.0"),
    ({"norms": "12"}, "`norms` must be a list of at least one number, got '12'"),
    ({"norms": None}, "`norms` must be a list of at least one number, got None"),
    ({"norms": [1.0, math.nan]}, "`norms` must be finite and >= 0, got nan"),
    ({"norms": [1.0, math.inf]}, "`norms` must be finite and >= 0, got inf"),
    ({"norms": [1.0, -1.0]}, "`norms` must be finite and >= 0, got -1.0"),
    ({"norms": [1.0, True]}, "`norms` must be a number, got True"),
    ({"norms": [1.0, "2"]}, "`norms` must be a number, got '2'"),
    ({"norms": [1.0, None]}, "`norms` must be a number, got None"),
    ({"norms": [[1.0]]}, "`norms` must be a number, got [1.0]"),
    ({"mean": math.nan}, "`mean` must be finite and >= 0, got nan"),
    ({"mean": -1.0}, "`mean` must be finite and >= 0, got -1.0"),
    ({"mean": False}, "`mean` must be a number, got False"),
    ({"mean": 4.5}, "`mean` must be at most `zenith` = 4.0, got 4.5"),
    ({"zenith": math.inf}, "`zenith` must be finite and >= 0, got inf"),
    ({"zenith": -1}, "`zenith` must be finite and >= 0, got -1"),
    ({"zenith": None}, "`zenith` must be a number, got None"),
    ({"zenith": 1.0}, "`mean` must be at most `zenith` = 1.0, got 2.0"),
    ({"scale": 1.5}, "`scale` must be at most 1, got 1.5"),
    ({"mean": 0, "zenith": 0}, "`scale` must be 1 where `zenith` is 0, got 0.5"),
    ({"count": 1}, "`zenith` must be 0 until the window is full, got 4.0"),
    (
        {"count": 1, "mean": 0, "zenith": 0.5},
        "`zenith` must be 0 until the window is full, got 0.5",
    ),
    ({"scale": -0.5}, "`scale` must be finite and >= 0, got -0.5"),
    ({"scale": math.nan}, "`scale` must be finite and >= 0, got nan"),
    ({"scale": True}, "`scale` must be a number, got True"),
    ({"count": -1}, "`count` must be an integer >= 0, got -1"),
    ({"count": 5.0}, "`count` must be an integer >= 0, got 5.0"),
    ({"count": True}, "`count` must be an integer >= 0, got True"),
    ({"count": "5"}, "`count` must be an integer >= 0, got '5'"),
    ({"skipped": -1}, "`skipped` must be an integer >= 0, got -1"),
    ({"skipped": math.nan}, "`skipped` must be an integer >= 0, got nan"),
    ({"skipped": False}, "`skipped` must be an integer >= 0, got False"),
    ({"lr": 0.1}, "the document of a ZENITH state has unknown fields: lr"),
    ({"lr": 0.1, "beta": 1}, "the document of a ZENITH state has unknown fields: beta, lr"),
    ({1: 2}, "the document of a ZENITH state has unknown fields: 1"),
]


@pytest.mark.parametrize(("change", "message"), BAD_DOCUMENTS)
def test_from_dict_refuses(change: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"must be|unknown") as caught:
        from_dict(DOCUMENT | change)
    assert str(caught.value) == message


@pytest.mark.parametrize("missing", list(DOCUMENT))
def test_from_dict_names_a_missing_field(missing: str) -> None:
    document = {name: value for name, value in DOCUMENT.items() if name != missing}
    with pytest.raises(ValueError, match="lacks") as caught:
        from_dict(document)
    assert str(caught.value) == f"the document of a ZENITH state lacks {missing}"


@pytest.mark.parametrize("document", [None, 3, [1.0], "{}", STATE])
def test_from_dict_refuses_what_is_no_mapping(document: Any) -> None:
    with pytest.raises(TypeError) as caught:
        from_dict(document)
    kind = type(document).__name__
    assert str(caught.value) == f"`document` must be a mapping, got {kind}"


# --- what an adapter is asked to take over


def test_checked_returns_a_copy_of_what_fits() -> None:
    found = core.checked(STATE, window=3, largest=4.0)  # its zenith is just that
    assert found == STATE
    assert found.norms is not STATE.norms


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            STATE._replace(norms=[1]),
            "`window` of the state must be that of this schedule, 3, got 1",
        ),
        (STATE._replace(zenith=9.0), "the norms of the state must be at most 5, got 9.0"),
        (STATE._replace(norms=[1, 6, 2]), "the norms of the state must be at most 5, got 6.0"),
        (STATE._replace(scale=2.0), "`scale` must be at most 1, got 2.0"),
    ],
)
def test_checked_refuses(state: ZenithState, message: str) -> None:
    with pytest.raises(ValueError, match="must be") as caught:
        core.checked(state, window=3, largest=5.0)
    assert str(caught.value) == message


@pytest.mark.parametrize("state", [DOCUMENT, tuple(STATE), None])
def test_checked_refuses_what_is_no_state(state: Any) -> None:
    with pytest.raises(TypeError) as caught:
        core.checked(state, window=3, largest=5.0)
    kind = type(state).__name__
    assert str(caught.value) == f"the state must be a ZenithState, got {kind}"
