"""However a run is saved, the resumed run is the uninterrupted run, bit for bit."""

import json
import pickle

import keras
import numpy as np
import pytest
from _keras import (
    SHAPES,
    apply,
    arrays,
    assert_same,
    assert_same_state,
    batches,
    dense_model,
    everything,
    fit,
    plain,
    tensors,
    variables,
    x64,
)

from zenith.tf import Zenith, ZenithWrapper

LR = 0.1
WINDOW = 4
CUT, STEPS = 6, 9  # the run is cut where the ring is in its second round, half overwritten

MAKE = {
    "Zenith": lambda: Zenith(LR, window=WINDOW, momentum=0.9),
    "ZenithWrapper": lambda: ZenithWrapper(keras.optimizers.Adam(LR), window=WINDOW),
    "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(
        Zenith(LR, window=WINDOW, momentum=0.9), initial_scale=8.0
    ),
}


def compiled(optimizer, seed=0):
    model = dense_model(seed)
    model.compile(optimizer=optimizer, loss="mse")
    return model


def schedule_of(model):
    optimizer = model.optimizer
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return (optimizer.inner_optimizer if scaled else optimizer).zenith_state


def outcome(model):
    return everything(model.optimizer, model.weights)


class Run:
    """An uninterrupted run: what was saved of it on the way, and how it ended."""

    def __init__(self, folder, name):
        model = compiled(MAKE[name]())
        fit(model, range(CUT))
        self.file, self.weights = folder / f"{name}.keras", folder / f"{name}.weights.h5"
        model.save(self.file)
        model.save_weights(self.weights)
        self.pickle = pickle.dumps(model)
        self.cut = plain(schedule_of(model))
        self.cut_everything = outcome(model)
        fit(model, range(CUT, STEPS))
        self.end = outcome(model)
        assert plain(schedule_of(model))["scale"] < 0.95


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {name: Run(folder, name) for name in MAKE}


def assert_goes_on(model, run):
    assert_same(plain(schedule_of(model)).values(), run.cut.values())
    fit(model, range(CUT, STEPS))
    assert_same(outcome(model), run.end)


names = pytest.mark.parametrize("name", MAKE)


@names
def test_a_keras_file(runs, name):
    model = keras.saving.load_model(runs[name].file)
    assert type(model.optimizer) is type(MAKE[name]())
    assert_goes_on(model, runs[name])


@names
def test_a_pickled_model(runs, name):
    model = pickle.loads(runs[name].pickle)
    assert_same(outcome(model), runs[name].cut_everything)


@names
def test_weights_into_a_built_optimizer(runs, name):
    model = compiled(MAKE[name](), seed=5)
    model.optimizer.build(model.trainable_variables)
    model.load_weights(runs[name].weights)
    assert_same(outcome(model), runs[name].cut_everything)


@names
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer '(adam|loss_scale)")
def test_weights_into_an_optimizer_that_is_not_built_are_kept_until_it_is(runs, name):
    run = runs[name]
    model = compiled(MAKE[name](), seed=5)
    model.load_weights(run.weights)  # Keras drops what is the loss scaler's own, with a warning
    assert not model.optimizer.built
    if name == "Zenith":  # built within the first compiled step
        fit(model, range(CUT, STEPS))
        assert_same(outcome(model), run.end)
        return
    model.optimizer.build(model.trainable_variables)
    assert_same(plain(schedule_of(model)).values(), run.cut.values())
    own = 2 if name == "LossScaleOptimizer" else 0
    skip = len(model.weights) + own * 2  # its iterations, rate, counter and scale
    ours, saved = outcome(model), run.cut_everything
    assert_same(
        ours[: len(model.weights)] + ours[skip:], saved[: len(model.weights)] + saved[skip:]
    )


def test_backup_and_restore(tmp_path):
    x, y = batches(1)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == CUT:
                raise KeyboardInterrupt

    def train(*callbacks):
        model = compiled(MAKE["Zenith"]())
        fitted = {"epochs": STEPS, "shuffle": False, "verbose": 0, "callbacks": list(callbacks)}
        model.fit(x[0], y[0], **fitted)
        return outcome(model)

    wanted = train()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        train(backup, Interrupt())
    epochs = []
    seen = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    assert_same(train(keras.callbacks.BackupAndRestore(tmp_path / "backup"), seen), wanted)
    assert epochs == list(range(epochs[0], STEPS))
    assert epochs[0] >= CUT


# --- an optimizer alone ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer 'adam")
@pytest.mark.parametrize("name", ["Zenith", "ZenithWrapper"])
def test_a_pickled_optimizer(name):
    own, theirs, optimizer = variables(), variables(), MAKE[name]()
    for step in range(CUT):
        apply(optimizer, own, step)
    copy = pickle.loads(pickle.dumps(optimizer))
    for a, b in zip(theirs, own, strict=True):
        a.assign(b)
    for step in range(CUT, STEPS):
        apply(optimizer, own, step)
        apply(copy, theirs, step)
    assert_same(everything(copy, theirs), everything(optimizer, own))
    assert plain(copy.zenith_state)["count"] == STEPS


def test_a_float64_state_is_saved_in_full():
    with x64():
        own = variables("float64")
        optimizer = Zenith(LR, window=WINDOW)
        for step in range(CUT):
            optimizer.apply(tensors([np.ones(s) / (step + 3) for s in SHAPES], "float64"), own)
        copy = pickle.loads(pickle.dumps(optimizer))
        copy.build(own)
        norms = plain(copy.zenith_state)["norms"]
        assert norms.dtype == np.float64
        assert norms[0] == pytest.approx(10**0.5 / 7, rel=1e-15)
        assert_same_state(copy.zenith_state, optimizer.zenith_state)


def test_a_bfloat16_model_keeps_its_float32_schedule(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="bfloat16")])
    model.compile(optimizer=Zenith(LR, window=2, momentum=0.5), loss="mse")
    model.optimizer.build(model.trainable_variables)
    for norm in (1 / 3, 1 / 7, 1 / 11):
        grads = [keras.ops.zeros(v.shape, "bfloat16") for v in model.trainable_variables]
        model.optimizer.apply(grads, model.trainable_variables, grad_norm=norm)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert plain(loaded.zenith_state)["norms"].tolist() == [np.float32(1 / 11), np.float32(1 / 7)]
    assert_same_state(loaded.zenith_state, model.optimizer.zenith_state)


# --- what cannot be loaded ------------------------------------------------------------------------


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("name", ["Zenith", "ZenithWrapper"])
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer 'adam")
def test_another_window_is_refused_and_both_are_named(runs, name, built):
    other = {
        "Zenith": Zenith(LR, window=7, momentum=0.9, name="mine"),
        "ZenithWrapper": ZenithWrapper(keras.optimizers.Adam(LR), window=7, name="mine"),
    }[name]
    model = compiled(other)
    if built:
        other.build(model.trainable_variables)
    rule = r"`window` of the saved state must be that of the optimizer 'mine', 7, got 4"
    with pytest.raises(ValueError, match=rule):
        model.load_weights(runs[name].weights)


def test_weights_of_plain_sgd_leave_the_schedule_empty(tmp_path):
    model = compiled(keras.optimizers.SGD(LR))
    fit(model, range(2))
    model.save_weights(tmp_path / "sgd.weights.h5")
    ours = compiled(Zenith(LR, window=WINDOW))
    ours.optimizer.build(ours.trainable_variables)
    with pytest.warns(UserWarning, match="the saved optimizer has no schedule of ZENITH"):
        ours.load_weights(tmp_path / "sgd.weights.h5")
    assert_same(arrays(ours.weights), arrays(model.weights))
    assert plain(ours.optimizer.zenith_state)["count"] == 0


# --- configurations -------------------------------------------------------------------------------


def test_the_configuration_is_all_that_was_given():
    kwargs = {
        "learning_rate": keras.optimizers.schedules.CosineDecay(0.5, 10),
        "window": 7,
        "momentum": 0.5,
        "nesterov": True,
        "nonfinite": "propagate",
        "weight_decay": 0.25,
        "global_clipnorm": 2.0,
        "use_ema": True,
        "ema_momentum": 0.5,
        "ema_overwrite_frequency": 3,
        "loss_scale_factor": 2.0,
        "gradient_accumulation_steps": 2,
        "name": "mine",
    }
    config = Zenith(**kwargs).get_config()
    for name, value in kwargs.items():
        if name != "learning_rate":
            assert config[name] == value
    again = Zenith.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    assert float(again.learning_rate) == 0.5


@names
def test_serialized_and_deserialized(name):
    optimizer = MAKE[name]()
    document = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(document)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


def test_the_wrappers_configuration_holds_the_inner_one():
    inner = keras.optimizers.AdamW(0.25, weight_decay=0.5, beta_1=0.75)
    optimizer = ZenithWrapper(inner, window=3, nonfinite="propagate", name="mine")
    again = ZenithWrapper.from_config(json.loads(json.dumps(optimizer.get_config())))
    assert (again.window, again.nonfinite, again.name) == (3, "propagate", "mine")
    assert type(again.inner_optimizer) is type(inner)
    assert again.inner_optimizer.get_config() == inner.get_config()
