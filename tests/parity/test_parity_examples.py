"""The programs that need more than one framework, at toy length."""

import json
import re

import pytest
from _examples import example, rates

import zenith
from zenith.readers import series


def test_keras_on_jax(tmp_path):
    printed = example("keras_on_jax.py", "--epochs", "3", "--window", "40", cwd=tmp_path)
    assert printed.startswith("jax: ")
    steps, logged = series(tmp_path / "keras_on_jax.csv", "lr")[1:3]
    assert steps == list(range(1, 3 * 43 + 1))
    assert rates(printed) == pytest.approx([logged[-1]], abs=5e-5)
    assert logged[-1] < 0.1


def test_a_run_goes_through_three_frameworks(tmp_path):
    printed = example("transfer.py", "--steps", "60", "--window", "50", cwd=tmp_path)
    counts = [int(count) for count in re.findall(r"(\d+) norms", printed)]
    assert counts == [60, 120, 180]
    state = zenith.from_dict(json.loads((tmp_path / "state.json").read_text()))
    assert state.count == 120
    assert rates(printed)[1] == pytest.approx(0.1 * state.scale, abs=5e-7)
    assert sorted(rates(printed), reverse=True) == rates(printed)
