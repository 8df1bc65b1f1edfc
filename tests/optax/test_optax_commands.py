"""The cost and the examples, at toy length: what they print is what they measured."""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from zenith.readers import series

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, cwd):
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_cost_is_the_median_of_paired_ratios(tmp_path):
    options = ["--models", "small", "--repetitions", "3", "--batch", "2", "--out", tmp_path]
    out = run("-m", "experiments", "cost", "jit", *options, cwd=ROOT)
    assert out == (tmp_path / "jit.md").read_text()
    case = json.loads((tmp_path / "jit.json").read_text())["cases"]["small"]
    assert out.startswith("| small: 53,002 parameters |")
    samples = {name: own["milliseconds"] for name, own in case["variants"].items()}
    assert len(samples) == 8
    assert {len(times) for times in samples.values()} == {3}
    for line, (name, own) in zip(out.splitlines()[2:], case["variants"].items(), strict=True):
        shown, milliseconds, ratio, *_ = line.removeprefix("| ").split(" | ")
        assert shown == name
        assert float(milliseconds) == pytest.approx(statistics.median(samples[name]), rel=1e-3)
        if own["baseline"] != name:
            pairs = zip(samples[name], samples[own["baseline"]], strict=True)
            wanted = statistics.median(a / b for a, b in pairs)
            assert float(ratio.split()[0]) == pytest.approx(wanted, abs=0.0006)


def test_the_networks_of_the_measurement_have_the_layers_of_their_description(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])  # zenith itself is the wheel
    from experiments.cost import jit
    from experiments.tasks import shapes

    for network in (shapes.small(8), shapes.vgg19(0.05)):
        params = jit.initial(network)
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == network.parameters
        images = jax.numpy.ones((2, network.size, network.size, network.channels))
        assert jit.forward(network, params, images).shape == (2, 10)
    # Of one entry in a corner of 1 the kernel's middle is seen, and its right and lower neighbours.
    one = shapes.Network(4, 1, (shapes.Layer("conv", 1, 1, stride=2, relu=False),))
    kernel = jax.numpy.arange(9.0).reshape(3, 3, 1, 1)
    image = jax.numpy.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(1)
    seen = jit.forward(one, [(kernel, jax.numpy.zeros(1))], image)
    assert seen[0, :, :, 0].tolist() == [[4, 0], [0, 0]]


@pytest.mark.parametrize("how", [[], ["--nnx"]], ids=["plain", "nnx"])
def test_the_example_trains_at_the_rate_that_it_prints(how, tmp_path):
    example = ROOT / "examples" / "jax_train.py"
    out = run(example, "--epochs", "3", "--window", "20", *how, cwd=tmp_path)
    rates = [float(rate) for rate in re.findall(r"rate (\d\.\d{4}),", out)]
    assert len(rates) == 3
    assert rates[0] <= 0.1
    assert 0 < rates[-1] < 0.1


@pytest.mark.parametrize("name", ["equinox_train.py", "optax_warmup.py"])
def test_the_other_examples(name, tmp_path):
    out = run(ROOT / "examples" / name, "--epochs", "3", "--window", "20", cwd=tmp_path)
    rates = [float(rate) for rate in re.findall(r"rate (\d\.\d{4}),", out)]
    assert len(rates) == 3
    if name == "optax_warmup.py":  # 42 steps an epoch, the last at 41 / 100 of the way
        ramps = [float(ramp) for ramp in re.findall(r"warm-up (\d\.\d{4}) x", out)]
        scales = [float(scale) for scale in re.findall(r"scale (\d\.\d{4}) =", out)]
        assert ramps == [0.041, 0.083, 0.1]
        assert rates == pytest.approx([a * b for a, b in zip(ramps, scales, strict=True)], abs=1e-4)
    else:
        _, steps, logged, *_ = series(tmp_path / "equinox_train.csv", "scale")
        assert steps == list(range(1, 3 * 42 + 1))
        assert rates[-1] == pytest.approx(0.1 * logged[-1], abs=5e-5)
    assert 0 < rates[-1] < 0.1
