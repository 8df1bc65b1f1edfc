"""The commands of cost: bad input, figures read again, tables that stand where they are read."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.cost import cases
from experiments.tasks import networks, shapes

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "overhead"
FILES = sorted(FIGURES.glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step", "--repetitions", "0"], "`--repetitions` must be an integer >= 1, got '0'"),
        (["step", "--rep", "2"], "unrecognized arguments: --rep 2"),
        (["step", "--models", "huge"], "`--models` invalid choice: 'huge'"),
        (["step", "--device", "tpu"], "`--device` invalid choice: 'tpu'"),
        (["overhead", "--optimizers", "adam"], "must be one of sgd, pal,"),
        (["tried", "--optimizers", "adam"], "`--optimizers` must be of SGD, SGD again,"),
        (["scaling", "--out", "taken"], "taken: cannot be written"),
        (["jit", "--read", "absent.json"], "absent.json: cannot be read"),
        (["fit", "--read", "taken"], "taken: must be a JSON file that `cost fit --out` has"),
    ],
)
def test_an_impossible_option_is_named_in_one_line(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file\n")
    assert main(["cost", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.parametrize("name", ["jit", "fit"])
def test_no_framework_is_imported_but_the_commands_own(name):
    """Both need theirs: where it is missing, one line says so."""
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(['keras', 'jax'])\n"  # as if they were not installed
        "from experiments.__main__ import main\n"
        f"code = main(['cost', '{name}'])\n"
        "print(code, 'torch' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.stdout == "2 False\n"
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_tables_of_the_documentation_are_made_from_their_figures(file):
    document = json.loads(file.read_text())
    name = document["command"]
    table = cases.table  # of fit and jit too, whose packages are not here
    if "cases" not in document:
        table = importlib.import_module(f"experiments.cost.{name}").table
    assert file.stem == name
    assert table(document) + "\n" == file.with_suffix(".md").read_text()


def test_figures_are_read_and_drawn_again(tmp_path, capsys):
    file = FIGURES / "scaling.json"
    assert main(["cost", "scaling", "--read", str(file), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == file.with_suffix(".md").read_text()
    assert (tmp_path / "scaling.json").read_bytes() == file.read_bytes()
    assert (tmp_path / "scaling.png").exists()


def test_every_command_with_figures_is_there():
    assert [file.stem for file in FILES] == ["fit", "jit", "overhead", "scaling", "step", "tried"]


@pytest.mark.parametrize("name", list(cases.NETWORKS))
def test_a_network_in_torch_has_the_layers_of_its_description(name):
    network = cases.NETWORKS[name]
    built = networks.vgg19() if name == "vgg19" else networks.small(network.size)
    weights = [tuple(p.shape) for p in built.parameters() if p.ndim > 1]
    assert len(weights) == len(network.learnt)
    for own, layer in zip(weights, network.learnt, strict=True):  # torch has outputs first
        assert own == (layer.outputs, layer.inputs, *layer.weight[:-2])
    assert sum(p.numel() for p in built.parameters()) == network.parameters


def test_the_sizes_of_the_networks():
    assert shapes.vgg19().parameters == 20_024_384 + 5_130  # convolutions, and the linear layer
    assert (shapes.small(8).parameters, shapes.small(28).parameters) == (53_002, 421_642)
    assert len(shapes.vgg19().learnt) == 17
    assert shapes.vgg19(0.5).layers[0].outputs == 32
