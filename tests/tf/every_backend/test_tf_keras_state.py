"""`zenith_state`, its precision, and what bad arguments say."""

import pickle
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from _keras import (
    BACKEND,
    FIELDS,
    SHAPES,
    apply,
    arrays,
    assert_same,
    assert_same_state,
    gradients,
    norm,
    plain,
    scale,
    tensors,
    variables,
    x64,
)

import zenith
from zenith.tf import Zenith, ZenithSchedule, ZenithWrapper

LR = 0.1
WINDOW = 4
NORMS = [norm(gradients(step)) for step in range(10)]


def after(steps, optimizer=None):
    optimizer, own = optimizer or Zenith(LR, window=WINDOW), variables()
    optimizer.build(own)
    for step in range(steps):
        apply(optimizer, own, step)
    return optimizer, own


def core_state(steps):
    state = zenith.init(WINDOW)
    for value in NORMS[:steps]:
        state = zenith.update(state, value)
    return state


# --- the snapshot ---------------------------------------------------------------------------------


def test_a_new_state():
    optimizer, _ = after(0)
    state = optimizer.zenith_state
    assert zenith.to_dict(state) == zenith.to_dict(zenith.init(WINDOW))
    assert all(keras.ops.is_tensor(value) for value in state)
    ours = plain(state)
    integer = "int32" if BACKEND == "jax" else "int64"
    wanted = dict.fromkeys(FIELDS, "float32") | dict.fromkeys(("count", "skipped"), integer)
    assert {name: str(value.dtype) for name, value in ours.items()} == wanted
    assert {name: value.shape for name, value in ours.items()} == (
        dict.fromkeys(FIELDS, ()) | {"norms": (WINDOW,)}
    )


def test_a_snapshot_does_not_change():
    optimizer, own = after(5)
    state, copy = optimizer.zenith_state, plain(optimizer.zenith_state)
    apply(optimizer, own, 5)
    optimizer.zenith_state = core_state(9)
    assert_same(plain(state).values(), copy.values())
    assert scale(optimizer) != copy["scale"]


def test_metrics_and_to_dict():
    optimizer, own = after(0)
    assert float(zenith.metrics(optimizer.zenith_state)["grad_norm"]) == 0
    for step in range(6):
        apply(optimizer, own, step)
        metrics = zenith.metrics(optimizer.zenith_state)
        assert float(metrics["grad_norm"]) == pytest.approx(NORMS[step], rel=2e-6)
    document = zenith.to_dict(optimizer.zenith_state)
    wanted = zenith.to_dict(core_state(6))
    assert document["norms"] == pytest.approx(wanted.pop("norms"), rel=2e-6)
    assert {name: document[name] for name in wanted} == pytest.approx(wanted, rel=2e-6)
    assert float(metrics["scale"]) == document["scale"]


# --- a state that is carried over -----------------------------------------------------------------


def test_a_run_can_be_carried_over_from_the_core():
    whole, _ = after(9)
    for make in (list, np.asarray):
        state = core_state(5)
        state = state._replace(
            norms=make(state.norms), count=np.int64(5) if make is not list else 5
        )
        optimizer, own = after(0)
        optimizer.zenith_state = state
        for step in range(5, 9):
            apply(optimizer, own, step)
        ours, wanted = plain(optimizer.zenith_state), plain(whole.zenith_state)
        for name in FIELDS:
            np.testing.assert_allclose(ours[name], wanted[name], rtol=2e-6)
            assert ours[name].dtype == wanted[name].dtype


def test_a_state_goes_through_a_document_unchanged():
    first, own = after(6)
    wrapper, _ = after(0, ZenithWrapper(keras.optimizers.Adam(LR), window=WINDOW))
    schedule = ZenithSchedule(LR, WINDOW)
    for other in (wrapper, schedule):
        other.zenith_state = zenith.from_dict(zenith.to_dict(first.zenith_state))
        assert_same_state(other.zenith_state, first.zenith_state)
        other.zenith_state = zenith.init(WINDOW)
        other.zenith_state = first.zenith_state
        apply(first, own, 6)
        assert plain(other.zenith_state)["count"] + 1 == plain(first.zenith_state)["count"]
        first.zenith_state = other.zenith_state


MAKERS = [
    lambda: Zenith(LR, window=WINDOW, name="mine"),
    lambda: ZenithWrapper(keras.optimizers.Adam(LR), window=WINDOW, name="mine"),
]


@pytest.mark.parametrize("make", MAKERS, ids=["Zenith", "ZenithWrapper"])
def test_before_build_the_state_is_empty_and_can_be_set(make):
    optimizer = make()
    assert zenith.to_dict(optimizer.zenith_state) == zenith.to_dict(zenith.init(WINDOW))
    assert_same_state(optimizer.zenith_state, after(0, make())[0].zenith_state)
    wanted, _ = after(0, make())
    wanted.zenith_state = core_state(6)
    for state in (core_state(9), core_state(6)):  # the last one counts
        optimizer.zenith_state = state
    assert not optimizer.built
    assert_same_state(optimizer.zenith_state, wanted.zenith_state)
    copy = pickle.loads(pickle.dumps(optimizer))  # which waits for its `build` as well
    for each in (optimizer, copy):
        own = variables()
        apply(each, own, 6)
        wanted = plain(core_state(7))
        for name, value in plain(each.zenith_state).items():
            np.testing.assert_allclose(value, wanted[name], rtol=2e-6)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer 'adam")
@pytest.mark.parametrize("make", MAKERS, ids=["Zenith", "ZenithWrapper"])
def test_a_state_set_between_load_and_build_replaces_the_loaded_one(make):
    first, own = after(6, make())
    copy = pickle.loads(pickle.dumps(first))
    assert not copy.built
    assert_same_state(copy.zenith_state, first.zenith_state)
    copy.zenith_state = core_state(3)
    copy.build(own)
    assert plain(copy.zenith_state)["count"] == 3
    assert int(copy.iterations) == 6  # the rest of what was loaded stays


def test_a_wrong_state_is_refused_before_build_too():
    for make in MAKERS:
        optimizer = make()
        with pytest.raises(ValueError, match=f"must be that of this schedule, {WINDOW}, got 7"):
            optimizer.zenith_state = zenith.init(7)
        with pytest.raises(ValueError, match=r"must be at most 3.403e\+38, got 1e\+39"):
            optimizer.zenith_state = core_state(2)._replace(norms=[1e39, 0.0, 0.0, 0.0])
        assert plain(optimizer.zenith_state)["count"] == 0


# --- the numbers of the last step -----------------------------------------------------------------

NAMES = ["lr", "grad_norm", "mean", "zenith", "scale", "count", "skipped"]


def test_the_numbers_of_the_last_step():
    halving = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    makers = [
        lambda: Zenith(halving, window=2),
        lambda: ZenithWrapper(keras.optimizers.SGD(halving), window=2),
        lambda: Zenith(halving, window=2, gradient_accumulation_steps=2),
    ]
    for make, micro in zip(makers, (1, 1, 2), strict=True):
        optimizer, own = make(), [keras.Variable([0.0])]
        seen = [optimizer.zenith_metrics()]
        for gradient in (3.0, 5.0, float("nan"), 1.0):
            for _ in range(micro):
                optimizer.apply(tensors([[gradient]]), own)
            seen.append(optimizer.zenith_metrics())
        assert all(list(numbers) == NAMES for numbers in seen)
        rows = [[float(value) for value in numbers.values()] for numbers in seen]
        # Keras' schedules count micro-steps: of the second update that is the fourth.
        rates = [0.5 * 0.5 ** (micro * (update + 1) - 1) for update in range(3)]
        assert rows == [
            [0.5, 0, 0, 0, 1, 0, 0],
            [rates[0], 3, 0, 0, 1, 1, 0],
            [rates[1], 5, 4, 4, 1, 2, 0],
            [rates[1], 5, 4, 4, 1, 2, 1],
            [rates[2] * 0.75, 1, 3, 4, 0.75, 3, 1],
        ]


def test_the_numbers_of_a_schedule():
    schedule, seen = ZenithSchedule(0.5, window=2), []
    for norm_ in (3.0, 5.0, 1.0):
        schedule.observe(grad_norm=norm_)
        seen.append(schedule.zenith_metrics())
    assert list(seen[0]) == NAMES
    assert [float(value) for value in seen[2].values()] == [0.375, 1, 3, 4, 0.75, 3, 0]
    assert [float(numbers["grad_norm"]) for numbers in seen] == [3, 5, 1]


# --- precision ------------------------------------------------------------------------------------


def test_one_float64_variable_makes_the_state_float64():
    with x64():
        own = [variables()[0], variables("float64")[1]]
        optimizer = Zenith(LR, window=2)
        for step in range(3):
            grads = gradients(step)
            optimizer.apply([*tensors(grads[:1]), *tensors(grads[1:], "float64")], own)
            assert step == 2 or scale(optimizer) == 1.0  # exactly: the mean is the highest so far
        state = plain(optimizer.zenith_state)
        assert {str(state[name].dtype) for name in ("norms", "mean", "zenith", "scale")} == {
            "float64"
        }
        assert state["mean"] == pytest.approx((NORMS[1] + NORMS[2]) / 2, rel=1e-14)
        assert state["zenith"] == pytest.approx((NORMS[0] + NORMS[1]) / 2, rel=1e-14)
        assert [str(v.dtype) for v in own] == ["float32", "float64"]


def test_under_floatx_float64():
    with x64():
        keras.config.set_floatx("float64")
        try:
            own = [keras.Variable(np.zeros(shape)) for shape in SHAPES]
            optimizer = Zenith(LR, window=2, momentum=0.5)
            schedule = ZenithSchedule(LR, window=2)
            for step in range(3):
                grads = tensors(gradients(step), "float64")
                optimizer.apply(grads, own)
                schedule.observe(grads)
        finally:
            keras.config.set_floatx("float32")
        wanted = (NORMS[1] + NORMS[2]) / (NORMS[0] + NORMS[1])
        for each in (optimizer, schedule):
            assert plain(each.zenith_state)["scale"] == pytest.approx(min(wanted, 1), rel=1e-14)
        rate = optimizer.effective_learning_rate
        assert float(rate) == pytest.approx(LR * min(wanted, 1), rel=1e-14)
        assert arrays(own)[0].dtype == np.float64


def test_a_low_precision_model_has_a_float32_state():
    for dtype in ("float16", "bfloat16"):
        own = variables(dtype)
        optimizer = Zenith(LR, window=1)
        optimizer.apply(tensors(gradients(0), dtype), own)
        state = plain(optimizer.zenith_state)
        assert state["norms"].dtype == np.float32
        rounded = [np.float64(a) for a in arrays(tensors(gradients(0), dtype))]
        assert state["mean"] == pytest.approx(norm(rounded), rel=1e-6)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [Zenith, lambda **kwargs: ZenithWrapper(keras.optimizers.Adam(), **kwargs), ZenithSchedule],
    ids=["Zenith", "ZenithWrapper", "ZenithSchedule"],
)
def test_a_wrong_window_is_refused(make):
    with pytest.raises(ValueError, match="`window` must be an integer >= 1, got 0"):
        make(window=0)
    for window in (True, 2.5, "3", None):
        with pytest.raises(TypeError, match=f"`window` must be an integer >= 1, got {window!r}"):
            make(window=window)


def test_a_wrong_rate_or_choice_is_refused():
    for rate in (-0.5, float("nan")):
        with pytest.raises(ValueError, match=f"`learning_rate` must be >= 0, got {rate}"):
            Zenith(rate)
        with pytest.raises(ValueError, match=f"`initial_learning_rate` must be >= 0, got {rate}"):
            ZenithSchedule(rate)
    for make in (Zenith, lambda **kwargs: ZenithWrapper(keras.optimizers.Adam(), **kwargs)):
        with pytest.raises(ValueError, match='must be "skip" or "propagate", got \'x\''):
            make(nonfinite="x")
    with pytest.raises(ValueError, match=r"not recognized: {'windw': 3}"):
        Zenith(windw=3)
    with pytest.raises(ValueError, match="Only one of `clipnorm`"):
        Zenith(clipnorm=1.0, clipvalue=1.0)


def test_what_cannot_be_wrapped_is_refused():
    for wrong in (0.1, "adam", keras.optimizers.Adam, None):
        with pytest.raises(TypeError, match=r"must be a keras.optimizers.Optimizer, got"):
            ZenithWrapper(wrong)
    adam = keras.optimizers.Adam()
    scaler = keras.optimizers.LossScaleOptimizer(adam)
    with pytest.raises(ValueError, match=r"use LossScaleOptimizer\(ZenithWrapper\(\.\.\.\)\)"):
        ZenithWrapper(scaler)
    for inner in (Zenith(), ZenithWrapper(keras.optimizers.Adam())):
        rule = f"without a schedule of ZENITH, got a {type(inner).__name__}"
        with pytest.raises(ValueError, match=rule):
            ZenithWrapper(inner)


def test_an_impossible_state_is_refused_and_changes_nothing():
    wrapper, _ = after(0, ZenithWrapper(keras.optimizers.Adam(LR), window=WINDOW))
    for each in (after(6)[0], wrapper, ZenithSchedule(LR, WINDOW)):
        before = each.zenith_state
        with pytest.raises(ValueError, match=f"must be that of this schedule, {WINDOW}, got 7"):
            each.zenith_state = zenith.init(7)
        with pytest.raises(TypeError, match="the state must be a ZenithState, got "):
            each.zenith_state = zenith.to_dict(before)
        with pytest.raises(ValueError, match="`scale` must be at most 1, got 2"):
            each.zenith_state = core_state(6)._replace(scale=2.0)
        with pytest.raises(ValueError, match=r"must be at most 3.403e\+38, got 1e\+39"):
            each.zenith_state = core_state(2)._replace(norms=[1e39, 0.0, 0.0, 0.0])
        assert_same_state(each.zenith_state, before)


def test_without_keras_the_import_names_the_extra():
    code = """
        import sys
        sys.modules["keras"] = None
        try:
            import zenith.tf
        except ImportError as error:
            print(error)
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert 'pip install "zenith-optim[tf]"' in out.stdout
    assert "keras" in out.stdout
