"""How wrong a norm is: within its contract, over sizes and values."""

import json

import pytest

from experiments.__main__ import main
from experiments.cost import norm

TORCH = norm.torch_norms()


@pytest.mark.parametrize("size", [1_000, 65_535, 65_536, 3_000_001])
@pytest.mark.parametrize("value", ["normal", "equal", "one spike", "tiny", "huge"])
def test_the_error_of_the_norm_is_bounded(value, size):
    assert list(norm.VALUES) == ["normal", "equal", "one spike", "tiny", "huge"]
    found = norm.errors(TORCH, size, value)
    assert list(found) == ["zenith.torch", "dot", "vector_norm", "split, dot"]
    assert found["zenith.torch"] <= (1e-4 if value == "equal" else 1e-5)


def test_the_exact_norm_is_that_of_all_entries():
    """3 and 4 once each, and a piece boundary between them."""
    entries = norm.VALUES["equal"](2**20 + 1) * 0
    entries[0], entries[-1] = 3, 4
    assert norm.exact(entries) == 5.0
    assert norm.errors(TORCH, 10, "equal")["dot"] < 1e-6


def test_the_table_of_errors(tmp_path, capsys):
    options = ["--sizes", "70000", "--threads", "1", "--repetitions", "1", "--out", str(tmp_path)]
    assert main(["cost", "norm", *options]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    names = ["zenith.torch", "dot", "vector_norm", "split, dot"]
    assert head == "| " + " | ".join(["entries", "threads", "values", *names]) + " |"
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [row[:3] for row in cells] == [["70,000", "1", what] for what in [*norm.VALUES, "ms"]]
    expected = norm.errors(TORCH, 70_000, "equal")["zenith.torch"]
    assert cells[1][3] == f"{expected:.1e}"
    times = json.loads((tmp_path / "norm.json").read_text())["rows"][-1]["norms"]
    assert list(times) == names
    assert all(time > 0 for time in times.values())
