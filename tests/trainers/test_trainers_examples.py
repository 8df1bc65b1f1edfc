"""The programs for Lightning and Hugging Face's Trainer, at toy length."""

import pytest
from _examples import accuracy, example, rates

from zenith.readers import series

SHORT = ["--epochs", "3", "--window", "40"]


def test_lightning(tmp_path):
    printed = example("lightning_fit.py", *SHORT, "--out", tmp_path / "logs", cwd=tmp_path)
    (path,) = tmp_path.glob("logs/**/metrics.csv")
    steps, logged = series(path, "zenith/lr")[1:3]
    assert steps == list(range(3 * 43))
    assert rates(printed)[-1] == pytest.approx(logged[-1], abs=5e-5)
    assert logged[0] == pytest.approx(0.1)
    assert logged[-1] < 0.1
    assert accuracy(printed) > 60


def test_hugging_face(tmp_path):
    printed = example("transformers_trainer.py", *SHORT, "--out", tmp_path / "out", cwd=tmp_path)
    (rate,) = rates(printed)
    assert 0 < rate < 0.3
    assert "zenith/scale" in printed  # the Trainer's own progress lines
