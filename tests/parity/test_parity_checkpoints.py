"""The schedule's state, read out of real checkpoints of every framework by the command line."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import torch
from flax import nnx

import zenith
from zenith import cli
from zenith.checkpoints import read, read_all
from zenith.optax import zenith as sgd_under_zenith
from zenith.optax import zenith_state
from zenith.tf import Zenith, ZenithSchedule, ZenithWrapper
from zenith.torch import Zenith as TorchZenith
from zenith.torch import ZenithLR

NORMS = [3.0, 5.0, 1.0, 1.5, float("nan"), 0.25]
WINDOW = 3


def wanted():
    state = zenith.init(WINDOW)
    for norm in NORMS:
        state = zenith.update(state, norm)
    return zenith.to_dict(state)


def torch_file(path):
    linear = torch.nn.Linear(1, 1, bias=False)
    optimizer = TorchZenith(linear.parameters(), window=WINDOW, momentum=0.9)
    for norm in NORMS:
        linear.weight.grad = torch.full((1, 1), norm)
        optimizer.step()
    torch.save({"model": linear.state_dict(), "optimizers": [optimizer.state_dict()]}, path)


def torch_scheduler_file(path):
    linear = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(linear.parameters(), 0.1)
    scheduler = ZenithLR(optimizer, window=WINDOW)
    for norm in NORMS:
        linear.weight.grad = torch.full((1, 1), norm)
        optimizer.step()
    torch.save(scheduler.state_dict(), path)


def keras_model(optimizer, saved):
    """A compiled model whose optimizer has seen the norms."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, loss="mse")
    optimizer.build(model.trainable_variables)
    for norm in NORMS:
        optimizer.apply([keras.ops.convert_to_tensor([[norm]])])
    model.save(saved) if str(saved).endswith(".keras") else model.save_weights(saved)


def keras_file(path):
    keras_model(Zenith(0.1, window=WINDOW, momentum=0.9), path)


def keras_wrapper_file(path):
    keras_model(ZenithWrapper(keras.optimizers.AdamW(0.1), window=WINDOW), path)


def keras_schedule_file(path):
    schedule = ZenithSchedule(0.1, window=WINDOW)
    for norm in NORMS:
        schedule.observe(grad_norm=norm)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(schedule), loss="mse")
    model.save(path)


def optax_run():
    optimizer = optax.chain(optax.clip(1.0), sgd_under_zenith(0.1, WINDOW, momentum=0.9))
    params = {"w": jnp.ones(3)}
    state = optimizer.init(params)
    for norm in NORMS:
        _, state = optimizer.update(params, state, params, grad_norm=norm)
    return {"params": params, "opt_state": state, "step": 6}


def orbax_directory(path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, optax_run())


def orbax_manager(path):
    with ocp.CheckpointManager(path.parent / "run") as manager:
        manager.save(7, args=ocp.args.StandardSave(optax_run()))
    (path.parent / "run" / "7").rename(path)


def nnx_directory(path):
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    transformation = sgd_under_zenith(0.1, WINDOW, momentum=0.9)
    optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)
    for norm in NORMS:
        optimizer.update(model, nnx.state(model, nnx.Param), grad_norm=norm)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, nnx.state(optimizer))


def orbax_items(path):
    with ocp.CheckpointManager(path.parent / "manager") as manager:
        items = {
            "weights": ocp.args.StandardSave({"w": jnp.ones(2)}),
            "training": ocp.args.StandardSave(optax_run()),
            "config": ocp.args.JsonSave({"lr": 0.1}),
        }
        manager.save(7, args=ocp.args.Composite(**items))
    (path.parent / "manager" / "7").rename(path)


def json_document(path):
    path.write_text(json.dumps({"run": 3, "schedule": wanted()}))


PLACES = {
    "run.pt": (torch_file, "optimizers/0/param_groups/0"),
    "scheduler.pt": (torch_scheduler_file, "zenith_state"),
    "zenith.keras": (keras_file, "optimizer/vars"),
    "wrapper.keras": (keras_wrapper_file, "optimizer/vars"),
    "zenith.weights.h5": (keras_file, "optimizer/vars"),
    "schedule.keras": (
        keras_schedule_file,
        "compile_config/optimizer/config/learning_rate/config/zenith_state",
    ),
    "orbax": (orbax_directory, "opt_state/1/0/zenith"),
    "step": (orbax_manager, "opt_state/1/0/zenith"),
    "nnx": (nnx_directory, "opt_state/0/zenith"),
    "items": (orbax_items, "training/opt_state/1/0/zenith"),
    "state.json": (json_document, "schedule"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, (write, _) in PLACES.items():
        write(folder / name)
    return folder


@pytest.mark.parametrize("name", PLACES)
def test_the_state_is_found_to_the_last_bit(folder, name):
    found = read_all(folder / name)
    assert list(found) == [PLACES[name][1]]
    expected = wanted()
    for field, value in zenith.to_dict(read(folder / name)).items():
        rounded = np.asarray(expected[field], "float32")  # in which all of them were kept
        # The mean of three norms may be rounded at each of them, and the scale is of two such.
        np.testing.assert_allclose(value, rounded, 0 if field == "norms" else 6e-7, 0)


def test_it_is_found_inside_of_a_loss_scale_optimizer(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    optimizer = keras.optimizers.LossScaleOptimizer(Zenith(0.1, window=WINDOW))
    model.compile(optimizer, loss="mse")
    model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=1, verbose=0)
    model.save(tmp_path / "scaled.keras")
    inner = zenith.to_dict(optimizer.inner_optimizer.zenith_state)
    assert inner["count"] == 4
    found = read_all(tmp_path / "scaled.keras")
    assert list(found) == ["optimizer/inner_optimizer/vars"]
    assert zenith.to_dict(found["optimizer/inner_optimizer/vars"]) == inner


def run(*arguments, cwd):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    source = str(Path(zenith.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "zenith", "state", *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )


def test_show_prints_the_numbers(folder):
    result = run("show", "run.pt", cwd=folder)
    lines = dict(line.split() for line in result.stdout.splitlines())
    assert lines.keys() == {"window", *zenith.metrics(zenith.init(1))}
    assert (lines["window"], lines["count"], lines["skipped"]) == ("3", "5", "1")
    assert float(lines["scale"]) == pytest.approx(wanted()["scale"], rel=1e-6)
    assert (result.returncode, result.stderr) == (0, "")


def test_convert_prints_or_writes_a_document_that_every_framework_loads(folder, tmp_path):
    printed = run("convert", "zenith.keras", cwd=folder)
    written = run("convert", "orbax", str(tmp_path / "state.json"), cwd=folder)
    assert (printed.returncode, written.returncode, written.stdout) == (0, 0, "")
    for text in (printed.stdout, (tmp_path / "state.json").read_text()):
        state = zenith.from_dict(json.loads(text))
        optimizer = TorchZenith([torch.nn.Parameter(torch.ones(1))], window=WINDOW)
        optimizer.zenith_state = state
        params = jnp.ones(1)
        opt_state = sgd_under_zenith(0.1, WINDOW).init(params)
        opt_state = zenith.optax.set_zenith_state(opt_state, state)
        variable = keras.Variable([1.0])
        keras_optimizer = Zenith(0.1, window=WINDOW)
        keras_optimizer.build([variable])
        keras_optimizer.zenith_state = state
        states = (optimizer.zenith_state, zenith_state(opt_state), keras_optimizer.zenith_state)
        assert [zenith.to_dict(found) for found in states] == [zenith.to_dict(state)] * 3
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


class Malicious:
    def __reduce__(self):
        return (Path("executed").touch, ())


def broken(folder):
    """Files that hold no state, or not one: what is wrong with each, in words of the message."""
    (folder / "pickle.pt").write_bytes(pickle.dumps(Malicious()))
    torch.save({"model": torch.ones(2)}, folder / "plain.pt")
    state = {"zenith_state": zenith.init(2)._asdict()}
    torch.save({"a": state, "b": state}, folder / "two.pt")
    bad = {**wanted(), "norms": [1.0, float("nan"), 1.0]}
    (folder / "nan.json").write_text(json.dumps(bad))
    (folder / "version.json").write_text(json.dumps({**wanted(), "version": 2}))
    (folder / "unknown.json").write_text(json.dumps({**wanted(), "momentum": 1}))
    (folder / "list.json").write_text("[1, 2]")
    (folder / "deep.json").write_text('{"a":' * 5000 + "1" + "}" * 5000)
    (folder / "empty.pt").touch()
    with zipfile.ZipFile(folder / "half.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    (folder / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    (folder / "junk").mkdir()
    (folder / "junk" / "_METADATA").write_text("{")
    (folder / "cut.json").write_text(json.dumps(wanted())[:-5])
    (folder / "empty").mkdir()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "other", {"w": jnp.ones(2)})
    eqx.tree_serialise_leaves(folder / "run.eqx", optax_run()["params"])
    header = (
        b'{"w":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}}  '  # as the library writes it
    )
    safetensors = len(header).to_bytes(8, "little") + header + np.ones(2).tobytes()
    (folder / "model.safetensors").write_bytes(safetensors)
    return {
        "run.eqx": "run.eqx is a file of Equinox or NumPy, whose arrays have no names",
        "model.safetensors": "model.safetensors is a safetensors file: the weights of a model",
        "pickle.pt": "pickle.pt cannot be read as a checkpoint of torch, with weights_only=True",
        "empty.pt": "empty.pt cannot be read as a checkpoint of torch",
        "half.keras": "half.keras cannot be read as a .keras file",
        "cut.h5": "cut.h5: cannot be read (",
        "junk": "junk cannot be read as an orbax checkpoint",
        "list.json": "list.json must hold one state of ZENITH, got none",
        "deep.json": "deep.json cannot be read as a JSON document",
        "plain.pt": "plain.pt must hold one state of ZENITH, got none",
        "two.pt": "got 2, at a/zenith_state, b/zenith_state",
        "nan.json": "a JSON document: `norms` must be finite and >= 0, got nan",
        "version.json": "`version` must be 1, got 2",
        "unknown.json": "unknown fields: momentum",
        "cut.json": "cut.json cannot be read as a JSON document",
        "empty": "empty cannot be read as an orbax checkpoint: it has no file _METADATA",
        "other": "other must hold one state of ZENITH, got none",
        "missing.pt": "missing.pt: cannot be read (No such file or directory)",
    }


def test_a_file_without_one_good_state_is_refused_by_name(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for name, message in broken(tmp_path).items():
        out = tmp_path / "out.json"
        assert cli.main(["state", "convert", name, str(out)]) == 2
        error = capfd.readouterr().err.splitlines()[-1]
        assert error.startswith("zenith: error: ")
        assert message in error
        assert not out.exists()
    assert not (tmp_path / "executed").exists(), "nothing may be unpickled"
    assert cli.main(["state", "convert", "two.pt", ".", "--at", "a/zenith_state"]) == 2
    assert ".: cannot be written (Is a directory)" in capfd.readouterr().err
    assert cli.main(["state", "show", "two.pt", "--at", "b/zenith_state"]) == 0
    assert cli.main(["state", "show", "two.pt", "--at", "c"]) == 2
    assert "at 'c', but 2, at a/zenith_state, b/zenith_state" in capfd.readouterr().err


def test_the_arrays_of_the_model_are_not_read(folder, tmp_path, monkeypatch):
    loaded = []
    restore = ocp.PyTreeCheckpointer.restore

    def counted(self, *args, **kwargs):
        tree = restore(self, *args, **kwargs)
        loaded.extend(leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, np.ndarray))
        return tree

    monkeypatch.setattr(ocp.PyTreeCheckpointer, "restore", counted)
    read(folder / "orbax")
    assert sum(leaf.size for leaf in loaded) == WINDOW + 5
