"""A log of four norms."""

import pytest
from _replay import NORMS, write_csv


@pytest.fixture
def log(tmp_path):
    lines = [(step, norm) for step, norm in enumerate(NORMS, start=1)]
    return write_csv(tmp_path / "metrics.csv", ["step", "grad_norm"], *lines)
