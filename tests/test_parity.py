"""One algorithm everywhere: the same runs in torch, Keras on TensorFlow and optax, and in numpy."""

import functools
import json
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
import torch
from _parity import BAD_STEPS, RATES, STEPS, WINDOW, Run, flat, problems, reference
from hypothesis import given, settings
from hypothesis import strategies as st

import zenith.optax
import zenith.tf
import zenith.torch
from zenith.optax import set_zenith_state, with_zenith, zenith_state

PROBLEMS = problems()


@functools.cache
def wanted(name: str, schedule: str, momentum: float, rate_in_momentum: bool) -> Run:
    return reference(PROBLEMS[name], RATES[schedule], momentum, rate_in_momentum)


@dataclass
class Leg:
    """A part of a run: where it begins, and what it leaves behind."""

    steps: range = range(STEPS)
    weights: list[np.ndarray] | None = None
    document: dict | None = None

    def data(self, problem):
        part = slice(self.steps.start, self.steps.stop)
        return problem.inputs[part], problem.targets[part]


# --- torch


class Twice(torch.nn.Module):
    """The convolution of `_parity.cnn`, with its kernel shared by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 2, 3, padding="same")
        self.out = torch.nn.Linear(2, 3)

    def forward(self, x):
        x = x.permute(0, 3, 1, 2)
        for _ in range(2):
            x = self.conv(x).tanh()
        return self.out(x.mean((2, 3)))


def torch_run(name, schedule, momentum, dtype, leg=None):
    leg, problem, dtype = leg or Leg(), PROBLEMS[name], getattr(torch, dtype)
    if name == "cnn":
        model = Twice()
    else:
        layers = torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        model = torch.nn.Sequential(*layers)
    model.to(dtype)
    parameters = list(model.parameters())
    for parameter, weight in zip(parameters, leg.weights or problem.weights, strict=True):
        parameter.data = torch.tensor(transposed(weight)).to(dtype)
    for parameter, factor in zip(parameters, problem.factors, strict=True):
        parameter.requires_grad_(factor is not None)
    groups = [
        {"params": [parameter], "lr": factor}
        for parameter, factor in zip(parameters, problem.factors, strict=True)
        if factor is not None
    ]
    if name != "groups":
        groups = [{"params": [p for p in parameters if p.requires_grad], "lr": 1.0}]
    optimizer = zenith.torch.Zenith(groups, window=WINDOW, momentum=momentum)
    if leg.document is not None:
        optimizer.zenith_state = zenith.from_dict(leg.document)
    rate = RATES[schedule]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: rate(leg.steps.start + t))
    scales, history = [], []
    for x, y in zip(*leg.data(problem), strict=True):
        optimizer.zero_grad()
        error = model(torch.tensor(x, dtype=dtype)) - torch.tensor(y, dtype=dtype)
        error.square().mean().backward()
        optimizer.step()
        scheduler.step()
        scales.append(optimizer.zenith_state.scale.item())
        history.append(flat(transposed(p.detach().numpy()) for p in parameters))
    leg.document = zenith.to_dict(optimizer.zenith_state)
    return Run(np.array(scales), np.array(history))


def transposed(weight: np.ndarray) -> np.ndarray:
    """Between torch's layout and that of the others, which is its own inverse for matrices."""
    if weight.ndim < 4:
        return weight.T
    return weight.transpose(3, 2, 0, 1) if weight.shape[0] == 3 else weight.transpose(2, 3, 1, 0)


# --- Keras on TensorFlow


def keras_run(name, schedule, momentum, dtype, leg=None):
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)  # of the variable that holds the learning rate, above all
    try:
        return keras_run_in_floatx(name, schedule, momentum, dtype, leg)
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def keras_run_in_floatx(name, schedule, momentum, dtype, leg):
    leg, problem = leg or Leg(), PROBLEMS[name]
    inputs = keras.Input(problem.inputs.shape[2:], dtype=dtype)
    dense = functools.partial(keras.layers.Dense, dtype=dtype)
    if name == "cnn":
        conv = keras.layers.Conv2D(2, 3, padding="same", activation="tanh", dtype=dtype)
        x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(conv(conv(inputs)))
    else:
        x = dense(8, activation="tanh")(inputs)
    model = keras.Model(inputs, dense(3)(x))
    model.set_weights(leg.weights or problem.weights)
    model.layers[1].trainable = problem.factors[0] is not None
    optimizer = zenith.tf.Zenith(0.0, window=WINDOW, momentum=momentum)
    model.compile(optimizer, loss=keras.losses.MeanSquaredError(dtype=dtype))
    trained = [w.path for w in model.trainable_variables]
    frozen = [w for w in model.weights if w.path not in trained]
    if leg.document is not None:
        optimizer.build(model.trainable_variables)
        optimizer.zenith_state = zenith.from_dict(leg.document)
    scales, history = [], []
    for t, x, y in zip(leg.steps, *leg.data(problem), strict=True):
        optimizer.learning_rate = RATES[schedule](t)
        model.train_on_batch(x.astype(dtype), y.astype(dtype))
        scales.append(float(optimizer.zenith_state.scale))
        history.append(flat(w.numpy() for w in (*frozen, *model.trainable_variables)))
    leg.document = zenith.to_dict(optimizer.zenith_state)
    return Run(np.array(scales), np.array(history))


# --- optax


def optax_run(name, schedule, momentum, dtype, leg=None):
    leg, problem = leg or Leg(), PROBLEMS[name]

    def predict(weights, x):
        kernel, bias, out, out_bias = weights
        if name != "cnn":
            return jnp.tanh(x @ kernel + bias) @ out + out_bias
        layout = ("NHWC", "HWIO", "NHWC")
        for _ in range(2):
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
            x = jnp.tanh(x + bias)
        return x.mean((1, 2)) @ out + out_bias

    with jax.enable_x64(dtype == "float64"):
        rates = jnp.asarray([RATES[schedule](t) for t in leg.steps], dtype)
        if name == "groups":
            labels = [str(i) for i in range(4)]
            pairs = zip(labels, problem.factors, strict=True)
            members = {label: optax.sgd(factor, momentum or None) for label, factor in pairs}
            inner = with_zenith(optax.partition(members, labels), WINDOW)
            # A schedule inside `with_zenith` would stand still in a step that is skipped.
            optimizer = optax.chain(inner, optax.scale_by_schedule(lambda t: rates[t]))
        else:
            optimizer = zenith.optax.zenith(lambda t: rates[t], WINDOW, momentum or None)
        if name == "masked":
            labels = ["train" if factor is not None else "freeze" for factor in problem.factors]
            members = {"train": optimizer, "freeze": optax.set_to_zero()}
            optimizer = optax.partition(members, labels)

        def loss(weights, x, y):
            return jnp.mean(jnp.square(predict(weights, x) - y))

        def step(carry, batch):
            weights, state = carry
            updates, state = optimizer.update(jax.grad(loss)(weights, *batch), state, weights)
            weights = optax.apply_updates(weights, updates)
            return (weights, state), (zenith_state(state).scale, weights)

        weights = [jnp.asarray(weight, dtype) for weight in leg.weights or problem.weights]
        state = optimizer.init(weights)
        if leg.document is not None:
            state = set_zenith_state(state, zenith.from_dict(leg.document))
        batches = tuple(jnp.asarray(array, dtype) for array in leg.data(problem))
        (_, state), (scales, history) = jax.lax.scan(step, (weights, state), batches)
        leg.document = zenith.to_dict(zenith_state(state))
        return Run(np.asarray(scales), np.array([flat(w) for w in zip(*history, strict=True)]))


# --- the tests

RUNS = {"torch": torch_run, "keras": keras_run, "optax": optax_run}
# float64: 600 steps of rounding in 1e-16. float32: the rounding of one step, 6e-8, of weights of
# about 1, which adds up over the steps as a random walk does, for the runs contract.
TOLERANCES = {"float64": 1e-9, "float32": 1e-4}


def assert_equal(ours: Run, theirs: Run, tolerance: float) -> None:
    for name, a, b in zip(Run._fields, ours, theirs, strict=True):
        size = np.abs(b).reshape(STEPS, -1).max(1)  # of the largest entry of each step
        error = np.abs(a - b).reshape(STEPS, -1).max(1) / size
        assert error.max() <= tolerance, f"{name}: {error.max():.1e} at step {error.argmax()}"


PAIRS = [(f, name) for f in RUNS for name in PROBLEMS]
PAIRS.remove(("keras", "groups"))  # Keras has no parameter groups: a frozen layer stands for them


EVERY = [(name, schedule, "float64") for name in PROBLEMS for schedule in RATES]
EVERY += [("mlp", schedule, "float32") for schedule in RATES]
EVERY += [(name, "cosine", "float32") for name in PROBLEMS if name != "mlp"]
EVERY = [(f, *case) for f in RUNS for case in EVERY if (f, case[0]) in PAIRS]


@pytest.mark.parametrize(("framework", "name", "schedule", "dtype"), EVERY)
def test_rates_and_weights_are_those_of_the_reference(framework, name, schedule, dtype):
    theirs = wanted(name, schedule, 0.0, False)
    assert (theirs.scales[: WINDOW - 1] == 1).all()
    assert theirs.scales.min() < 0.8
    for t in BAD_STEPS:
        assert (theirs.weights[t] == theirs.weights[t - 1]).all()
    assert_equal(RUNS[framework](name, schedule, 0.0, dtype), theirs, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("framework", "name"), PAIRS)
def test_with_momentum_keras_has_a_form_of_its_own(framework, name, dtype):
    in_float32 = float(np.float32(0.9))  # to which Keras rounds the momentum, but not the buffer
    of_torch, of_keras = (
        wanted(name, "cosine", 0.9, False),
        wanted(name, "cosine", in_float32, True),
    )
    assert np.abs(of_torch.weights - of_keras.weights).max() > 1e-3
    theirs = of_keras if framework == "keras" else of_torch
    assert_equal(RUNS[framework](name, "cosine", 0.9, dtype), theirs, TOLERANCES[dtype])


# --- a run that moves


ORDERS = [("torch", "optax", "keras"), ("optax", "keras", "torch"), ("keras", "torch", "optax")]


@pytest.mark.parametrize(
    ("order", "dtype", "tolerance"),
    [*((order, "float64", 1e-9) for order in ORDERS), (ORDERS[0], "float32", 1e-4)],
)
def test_a_run_goes_from_framework_to_framework_and_back(order, dtype, tolerance):
    theirs = wanted("mlp", "cosine", 0.0, False)
    leg, scales = Leg(range(0)), []
    for framework in (*order, order[0]):  # 70 steps each: a window and 20 more, the ring in between
        leg.steps = range(leg.steps.stop, leg.steps.stop + 70)
        run = RUNS[framework]("mlp", "cosine", 0.0, dtype, leg)
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
    document, found = zenith.to_dict(zenith.init(WINDOW)), []
    with jax.enable_x64(dtype == "float64"):
        for start in range(0, 150, 30):
            keeper = KEEPERS[start // 30 % 3](json.loads(json.dumps(document)), dtype)
            found += [keeper.send(norm) for norm in norms[start : start + 30]]
            document = keeper.send(None)
    assert min(rates) < 0.95
    np.testing.assert_allclose(found, rates, rtol=tolerance)


def started(keeper):
    @functools.wraps(keeper)
    def start(document, dtype):
        generator = keeper(zenith.from_dict(document), dtype)
        next(generator)
        return generator

    return start


@started
def in_torch(state, dtype):
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=getattr(torch, dtype)))
    optimizer = zenith.torch.Zenith([parameter], lr=0.1, window=WINDOW)
    optimizer.zenith_state, answer = state, None
    while (norm := (yield answer)) is not None:
        parameter.grad = torch.tensor([norm], dtype=parameter.dtype)
        optimizer.step()
        answer = float(optimizer.zenith_state.scale)
    yield zenith.to_dict(optimizer.zenith_state)


@started
def in_optax(state, dtype):
    transformation = zenith.optax.scale_by_zenith(WINDOW)
    own, answer = set_zenith_state(transformation.init(jnp.zeros(1, dtype)), state), None
    while (norm := (yield answer)) is not None:
        answer, own = transformation.update(jnp.ones(1, dtype), own, grad_norm=norm)
        answer = float(answer[0])
    yield zenith.to_dict(own)


@started
def in_keras(state, dtype):
    variable = keras.Variable([0.0], dtype=dtype)
    optimizer = zenith.tf.Zenith(1.0, window=WINDOW)
    optimizer.build([variable])
    optimizer.zenith_state, answer = state, None
    while (norm := (yield answer)) is not None:
        optimizer.apply([keras.ops.convert_to_tensor([norm], dtype)], [variable])
        answer = float(optimizer.zenith_state.scale)
    yield zenith.to_dict(optimizer.zenith_state)


KEEPERS = (in_torch, in_optax, in_keras)


# --- the schedule alone


norm_lists = st.lists(
    st.floats(0, 1e6) | st.sampled_from([math.nan, math.inf]), min_size=1, max_size=40
)


@settings(deadline=None, derandomize=True, database=None, max_examples=25)
@given(norms=norm_lists, window=st.integers(1, 6))
def test_any_norms_give_every_adapter_the_state_of_the_core(norms, window):
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    torch_optimizer = zenith.torch.Zenith([parameter], lr=0.1, window=window)
    schedule = zenith.tf.ZenithSchedule(0.1, window=window)
    transformation = zenith.optax.scale_by_zenith(window)
    state, optax_state = zenith.init(window), transformation.init(jnp.zeros(1))
    observe = jax.jit(lambda norm, state: transformation.update(jnp.ones(1), state, grad_norm=norm))
    for norm in np.asarray(norms, "float32").tolist():
        state = zenith.update(state, norm)
        parameter.grad = torch.tensor([norm], dtype=torch.float64)
        torch_optimizer.step()
        schedule.observe(grad_norm=norm)
        _, optax_state = observe(norm, optax_state)
        found = {
            "torch": (torch_optimizer.zenith_state, 1e-12),
            "keras": (schedule.zenith_state, 2e-6),
            "optax": (optax_state, 2e-6),
        }
        for name, (theirs, tolerance) in found.items():
            for field, value in zenith.to_dict(theirs).items():
                expected = zenith.to_dict(state)[field]
                np.testing.assert_allclose(value, expected, tolerance, err_msg=f"{name} {field}")
