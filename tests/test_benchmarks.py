"""The benchmark commands at toy length: what they print is measured. No time is judged."""

import importlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = [
    "SGD fused",
    "Zenith fused",
    "SGD default",
    "Zenith default",
    "Zenith fused, window 15,000",
    "SGD fused, momentum",
    "Zenith fused, momentum",
    "SGD default, momentum",
    "Zenith default, momentum",
    "Zenith fused, momentum, window 15,000",
    "clip_grad_norm_ + SGD fused, cutting",
    "clip_grad_norm_ + Zenith fused(grad_norm=), cutting",
    "Zenith fused(max_grad_norm=), cutting",
    "clip_grad_norm_ + SGD fused, idle",
    "clip_grad_norm_ + Zenith fused(grad_norm=), idle",
    "Zenith fused(max_grad_norm=), idle",
    "zenith norm alone",
    "torch get_total_norm alone",
]
LABEL = 52  # the width of the first column


def benchmark(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.step", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def numbers(text: str) -> list[float]:
    return [float(part) for part in re.split(r"[\[\], ]+", text) if part]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module itself, which no wheel holds."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.step")


@pytest.fixture
def norm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.norm")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The JSON document and the printed text of one short run."""
    path = tmp_path_factory.mktemp("benchmark") / "step.json"
    arguments = ["--repetitions", "2", "--models", "small", "--threads", "1", "--json", str(path)]
    process = benchmark(arguments)
    assert process.returncode == 0, process.stderr
    return json.loads(path.read_text()), process.stdout


def test_the_document_says_what_was_run(run: tuple[dict[str, Any], str]) -> None:
    document, text = run
    assert list(document) == ["torch", "device", "processor", "threads", "repetitions", "models"]
    assert (document["device"], document["threads"], document["repetitions"]) == ("cpu", 1, 2)
    assert text.startswith(f"torch {document['torch']} on cpu")
    assert list(document["models"]) == ["small"]
    small = document["models"]["small"]
    assert (small["parameters"], small["tensors"]) == (101_000, 20)


def test_every_variant_is_measured_and_compared(run: tuple[dict[str, Any], str]) -> None:
    rows = run[0]["models"]["small"]["rows"]
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        assert row["baseline"] == "SGD fused" + ", momentum" * (", momentum" in row["name"])
        for key in ("microseconds", "ratio", "over_microseconds"):
            figures = row[key]
            assert figures["q1"] <= figures["median"] <= figures["q3"]
        assert row["microseconds"]["q1"] > 0
        assert row["ratio"]["q1"] > 0
        if row["name"] == row["baseline"]:
            assert set(row["ratio"].values()) == {1.0}
            assert set(row["over_microseconds"].values()) == {0.0}


def test_the_table_shows_the_figures_of_the_document(run: tuple[dict[str, Any], str]) -> None:
    document, text = run
    lines = {line[:LABEL].rstrip(): line[LABEL:] for line in text.splitlines()}
    for row in document["models"]["small"]["rows"]:
        shown, target = lines[row["name"]], row["target"]
        assert shown.endswith(target)
        median = row["microseconds"]["median"]
        # The time of the first row decides on the unit of all: a busy machine may want ms.
        divisor = 1.0 if " us  " in text else 1000.0
        expected = [round(median / divisor, 2)]
        for key, digits in (("ratio", 2), ("over_microseconds", 0)):
            expected += [round(row[key][name], digits) for name in ("median", "q1", "q3")]
        assert numbers(shown.removesuffix(target)) == expected


def test_the_state_beyond_sgds_own(run: tuple[dict[str, Any], str]) -> None:
    document, text = run
    # In float32: the ring, mean, zenith and scale; and two int64 counters.
    assert document["models"]["small"]["state"] == [
        {"window": window, "bytes": 4 * (window + 3) + 2 * 8, "target": 4 * window + 64}
        for window in (500, 15_000)
    ]
    assert "window 500".ljust(LABEL) + "    2,028  (target: 2,064)" in text
    assert "window 15,000".ljust(LABEL) + "   60,028  (target: 60,064)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repetitions", "0"], "argument --repetitions: must be an integer >= 1, got '0'"),
        (["--repetitions", "few"], "argument --repetitions: must be an integer >= 1, got 'few'"),
        (["--models", "small,huge"], "argument --models: must be of vgg19, small, got 'huge'"),
        (["--device", "tpu"], "argument --device: invalid choice: 'tpu'"),
    ],
)
def test_an_impossible_option_is_named(
    step: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        step.main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_large_model_is_vgg19(step: ModuleType) -> None:
    shapes = step.MODELS["vgg19"].shapes
    convolutions = [shape for shape in shapes if len(shape) == 4]
    assert len(convolutions) == 16
    assert (convolutions[0], convolutions[-1]) == ((64, 3, 3, 3), (512, 512, 3, 3))
    assert shapes[-2:] == [(10, 512), (10,)]
    sizes = [math.prod(shape) for shape in shapes]
    assert sum(sizes) == 20_029_514  # torchvision's vgg19().features has 20,024,384


# --- benchmarks.norm: how wrong a norm is


@pytest.mark.parametrize("size", [1_000, 65_535, 65_536, 3_000_001])
@pytest.mark.parametrize("value", ["normal", "equal", "one spike", "tiny", "huge"])
def test_the_error_of_the_norm_is_bounded(norm: ModuleType, value: str, size: int) -> None:
    assert list(norm.VALUES) == ["normal", "equal", "one spike", "tiny", "huge"]
    found = norm.errors("torch", size, value)
    assert list(found) == ["zenith.torch", "dot", "vector_norm", "split, dot"]
    assert found["zenith.torch"] <= (1e-4 if value == "equal" else 1e-5)


def test_the_exact_norm_is_that_of_all_entries(norm: ModuleType) -> None:
    """3 and 4 once each, and a piece boundary between them."""
    entries = norm.VALUES["equal"](2**20 + 1) * 0
    entries[0], entries[-1] = 3, 4
    assert norm.exact(entries) == 5.0
    assert norm.errors("torch", 10, "equal")["dot"] < 1e-6


def test_the_table_of_errors(norm: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    norm.main(["--sizes", "70000", "--threads", "1", "--repetitions", "1"])
    title, head, *rows = capsys.readouterr().out.splitlines()
    assert title == "torch, 1 threads: relative errors, and milliseconds"
    assert head.split() == ["entries", "zenith.torch", "dot", "vector_norm", "split,", "dot"]
    assert [row[15:25].strip() for row in rows] == [*norm.VALUES, "ms"]
    expected = norm.errors("torch", 70_000, "equal")["zenith.torch"]
    assert rows[1].split()[:3] == ["70,000", "equal", f"{expected:.1e}"]
