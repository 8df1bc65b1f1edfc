"""MirroredStrategy on 1, 2 and 4 logical devices: the scale and weights of a single device."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _reference import ROUNDING

SCRIPT = Path(__file__).with_name("_keras_mirrored.py")


@pytest.fixture(scope="module", params=[1, 2])
def runs(request):
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(request.param)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def assert_equal_to_rounding(ours, theirs):
    """Sums over replicas add in another order than sums over the batch: float32 rounding apart."""
    for a, b in zip(ours["weights"], theirs["weights"], strict=True):
        np.testing.assert_allclose(a, b, atol=ROUNDING)
    assert ours["rate"] == pytest.approx(theirs["rate"], rel=ROUNDING)
    assert ours["state"].keys() == theirs["state"].keys()
    for name, value in ours["state"].items():
        np.testing.assert_allclose(value, theirs["state"][name], rtol=ROUNDING, err_msg=name)


def test_every_replica_has_the_scale_of_a_single_device(runs):
    assert len(runs["mirrored"]) == (4 if runs["devices"] == 2 else 2)
    for name, mirrored in runs["mirrored"].items():
        assert mirrored["state"]["count"] == 10
        assert mirrored["state"]["scale"] < 0.98  # or this would show nothing
        assert_equal_to_rounding(mirrored, runs["alone"][name])


def test_rows_of_an_embedding_add_up_over_the_replicas(runs):
    alone, mirrored = runs["embedding"]
    assert_equal_to_rounding(mirrored, alone)


def test_the_gradient_is_summed_once_and_with_clipping_twice(runs):
    several = runs["devices"] > 1  # a single replica has nothing to sum
    once, clipped = (runs[name]["reductions"] for name in ("sgd", "clipped sgd"))
    for name in ("zenith", "adamw"):
        assert runs["mirrored"][name]["reductions"] == (once if several else once - 1)
    assert runs["clipped"]["reductions"] == (clipped + 1 if several else clipped)


def test_clipping_is_that_of_sgd_under_the_same_strategy(runs):
    assert runs["clipped"]["weights"] == runs["clipped sgd"]["weights"]


def test_a_nan_in_one_replica_is_skipped_in_all(runs):
    for name in ("zenith", "adamw"):
        assert runs["mirrored"][name]["changed by a NaN"] == ["zenith_skipped"]


def test_the_state_is_readable_in_and_out_of_the_scope(runs):
    run = runs["mirrored"]["zenith"]
    assert run["state"]["count"] == run["count in scope"] == 10


def test_accumulated_gradients_move_it_as_they_do_sgd(runs):
    """Keras' own test of SGD: the sum over the replicas of the mean over the micro-steps."""
    sgd = runs["accumulated"]["sgd"]
    replicas = runs["devices"]
    assert sgd["shared"][2][0] == [1.0 - replicas, 2.0 - replicas]
    sums = {"shared": replicas, "own": replicas * (replicas + 1) / 2}
    for name in ("zenith", "wrapper"):
        ours = runs["accumulated"][name]
        for kind, factor in sums.items():
            assert ours[kind] == sgd[kind]
            assert ours[f"{kind} norms"] == pytest.approx([factor * 10**0.5] * 2, rel=1e-6)
