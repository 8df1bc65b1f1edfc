"""The cost and the example, at toy length: what they print is what they measured."""

import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments, cwd):
    """Run Python; from the source tree, the experiments are found."""
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_cost_is_the_median_of_paired_ratios(tmp_path):
    options = ["--models", "small", "--repetitions", "3", "--batch", "2", "--out", tmp_path]
    result = run("-m", "experiments", "cost", "fit", *options, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout == (tmp_path / "fit.md").read_text()
    assert result.stdout.startswith("| small: 53,002 parameters |")

    document = json.loads((tmp_path / "fit.json").read_text())
    case = document["cases"]["small"]
    assert (document["made"]["backend"], case["batch"]) == ("tensorflow", 2)
    samples = {name: own["milliseconds"] for name, own in case["variants"].items()}
    assert {len(times) for times in samples.values()} == {3}
    for line, (name, times) in zip(result.stdout.splitlines()[2:], samples.items(), strict=True):
        shown, milliseconds, ratio, *_ = line.removeprefix("| ").split(" | ")
        assert shown == name
        assert float(milliseconds) == pytest.approx(statistics.median(times), rel=1e-3)
        if name != "SGD":
            ratios = [a / b for a, b in zip(times, samples["SGD"], strict=True)]
            assert float(ratio.split()[0]) == pytest.approx(statistics.median(ratios), abs=0.0006)


def test_the_networks_of_the_measurement_have_the_layers_of_their_description(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])  # zenith itself is the wheel
    from experiments.cost import fit
    from experiments.tasks import shapes

    for network in (shapes.small(8), shapes.vgg19(0.05)):
        model = fit.built(network)
        assert model.count_params() == network.parameters
        weights = [tuple(v.shape) for v in model.trainable_variables if len(v.shape) > 1]
        assert weights == [layer.weight for layer in network.learnt]
        assert model.output_shape == (None, 10)


def test_the_example_trains_both_and_leaves_their_files(tmp_path):
    example = ROOT / "examples" / "keras_fit.py"
    result = run(example, "--epochs", "2", "--window", "20", "--output", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr

    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["SGD.csv", "ZENITH.csv", "picture.png"]
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    with (out / "ZENITH.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert 0 < float(row["scale"]) <= 1
        rate = 0.1 * float(row["scale"])
        assert float(row["effective_learning_rate"]) == pytest.approx(rate, rel=1e-6)
