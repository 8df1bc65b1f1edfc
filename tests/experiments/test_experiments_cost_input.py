"""What cost is given: documents that lack a part, and sizes beyond all memory."""

import functools
import json
import operator
from functools import partial
from pathlib import Path

import _commands
import pytest

from experiments.__main__ import main
from experiments.cost import norm

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "overhead"
assert_one_line = partial(_commands.assert_one_line, program="experiments")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("step", ["cases"]),
        ("step", ["cases", "small", "parameters"]),
        ("step", ["cases", "small", "variants", "SGD fused"]),
        ("step", ["cases", "small", "variants", "ZENITH fused", "milliseconds"]),
        ("tried", ["cases", "small", "variants", "ZENITH", "step milliseconds"]),
        ("overhead", ["optimizers", "sgd"]),
        ("overhead", ["optimizers", "zenith", "memory"]),
        ("scaling", ["axes", "window", 0, "SGD"]),
    ],
)
@pytest.mark.parametrize("instead", [None, "absent"])
def test_a_document_that_lacks_a_part_is_named_in_one_line(tmp_path, capsys, name, path, instead):
    document = json.loads((FIGURES / f"{name}.json").read_text())
    *parents, last = path
    parent = functools.reduce(operator.getitem, parents, document)
    del parent[last]
    if instead:
        parent[last] = instead
    file = tmp_path / "figures.json"
    file.write_text(json.dumps(document))
    assert main(["cost", name, "--read", str(file), "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert_one_line(err, f"{file}: must be a JSON file that `cost {name} --out` has written, and")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "text", ['{"command": "norm", "rows": []}', '{"command": "norm"}', "[" * 100_000]
)
def test_a_document_without_rows_is_named_in_one_line(tmp_path, capsys, text):
    file = tmp_path / "figures.json"
    file.write_text(text)
    assert main(["cost", "norm", "--read", str(file)]) == 2
    assert_one_line(capsys.readouterr().err, f"{file}: must be a JSON file that `cost norm --out`")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["norm", "--sizes", "1000000000000"], "`--sizes` must be an integer from 1 to 100000000"),
        (["norm", "--threads", "1000"], "`--threads` must be an integer from 1 to 256"),
        (["jit", "--batch", "1000000"], "`--batch` must be an integer from 1 to 100000"),
        (["overhead", "--width", "0"], "`--width` must be above 0 and at most 16, got '0'"),
        (["overhead", "--width", "1e300"], "`--width` must be above 0 and at most 16"),
    ],
)
def test_a_size_beyond_all_machines_is_refused(capsys, arguments, complaint):
    assert main(["cost", *arguments]) == 2
    assert_one_line(capsys.readouterr().err, complaint)


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 9 TiB"), RuntimeError("can't allocate memory")]
)
def test_work_that_does_not_fit_into_memory_is_one_line(monkeypatch, capsys, error):
    monkeypatch.setattr(norm, "measure", lambda options: throw(error))
    assert main(["cost", "norm"]) == 2
    complaint = f"this is too large for the memory of the machine: {error}"
    assert_one_line(capsys.readouterr().err, complaint)


def test_another_failure_of_a_measurement_is_not_hidden(monkeypatch):
    monkeypatch.setattr(norm, "measure", lambda options: throw(RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main(["cost", "norm"])


def throw(error):
    raise error
