"""The benchmark and the example, at toy length: what they print is what they measured."""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from zenith.readers import series

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, cwd):
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_benchmark_prints_the_median_of_the_paired_ratios(tmp_path):
    path = tmp_path / "figures.json"
    options = ["--models", "small", "--repetitions", "3", "--batch", "2", "--json", path]
    out = run("-m", "benchmarks.jit", *options, cwd=ROOT)
    samples = json.loads(path.read_text())["microseconds"]["small"]
    assert {len(times) for times in samples.values()} == {3}
    assert "small: 490,876 parameters" in out
    for name, times in samples.items():
        (line,) = [x for x in out.splitlines() if x.startswith(f"{name}   ")]
        microseconds, ratio = line.removeprefix(name).split()[:2]
        baseline = re.search(r"\] of ((?:sgd|zenith)(?:, momentum)?)", line)[1]
        ratios = [a / b for a, b in zip(times, samples[baseline], strict=True)]
        assert float(microseconds) == pytest.approx(statistics.median(times), abs=0.5)
        assert float(ratio) == pytest.approx(statistics.median(ratios), abs=0.0005)


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
