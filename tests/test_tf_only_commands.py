"""The benchmark and the example, at toy length: what they print is what they measured."""

import csv
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, cwd):
    """Run Python where the source tree is importable for benchmarks/, and zenith is the wheel."""
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_benchmark_prints_the_median_of_the_paired_ratios(tmp_path):
    path = tmp_path / "figures.json"
    options = ["--models", "small", "--repetitions", "3", "--batch", "2", "--json", path]
    result = run("-m", "benchmarks.fit", *options, cwd=ROOT)
    assert result.returncode == 0, result.stderr

    document = json.loads(path.read_text())
    assert (document["backend"], document["batch"]) == ("tensorflow", 2)
    samples = document["milliseconds"]["small"]
    assert {len(times) for times in samples.values()} == {3}
    assert "small: 490,876 parameters" in result.stdout
    for name, times in samples.items():
        (line,) = [x for x in result.stdout.splitlines() if x.startswith(f"{name}   ")]
        ratios = [a / b for a, b in zip(times, samples["SGD"], strict=True)]
        milliseconds, ratio = line.removeprefix(name).split()[:2]
        assert float(milliseconds) == pytest.approx(statistics.median(times), abs=0.005)
        assert float(ratio) == pytest.approx(statistics.median(ratios), abs=0.0005)


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
