"""Records: what a reader relies on, and what it says of a file that it cannot use."""

import json
import math

import pytest
from _demo import recorded

from experiments.errors import UserError
from experiments.records import paths, read, rounded

HEADER = {
    "kind": "run",
    "format": 1,
    "task": "digits",
    "optimizer": "zenith",
    "seed": 0,
    "options": {},
    "l2": 0.0,
    "steps": 5,
    "epochs": 1.0,
    "segments": 2,
    "train_images": 40,
    "test_images": 12,
    "batch": 8,
    "parameters": 53002,
}
STEP = {"kind": "step", "step": 1, "loss": 1.0, "lr": 0.1, "seconds": 0.5, "grad_norm": 1.0}
STEP |= {"mean": 0.0, "zenith": 0.0, "scale": 1.0}
EVAL = {"kind": "eval", "segment": 1, "step": 5, "epoch": 1, "train_loss": 0.5, "seconds": 1.0}


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def without(record, name):
    return {key: value for key, value in record.items() if key != name}


def test_rounded_to_six_digits_and_null():
    assert rounded({"a": [1], "b": 1 / 3, "c": -2e-9 / 3, "d": math.nan, "e": math.inf}) == {
        "a": [1],
        "b": 0.333333,
        "c": -6.66667e-10,
        "d": None,
        "e": None,
    }
    assert rounded(123456789) == 123456789


def test_what_is_read_is_what_was_yielded(tmp_path):
    found = recorded(tmp_path, ["zenith"], seeds=1)
    (path,) = paths(tmp_path)
    run = read(path)
    yielded = {kind: [r for _, r in found if r["kind"] == kind] for kind in ("step", "eval")}
    assert (run.steps, run.evals, run.outcome) == (yielded["step"], yielded["eval"], "finished")


def test_a_run_that_diverged_is_strict_json(tmp_path):
    recorded(tmp_path, ["sgd"], seeds=1, lr=1e30)
    (path,) = paths(tmp_path)
    assert "NaN" not in path.read_text()
    assert read(path).steps[-1]["loss"] is None
    assert read(path).outcome == "diverged"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", ": empty"),
        (b"\xff\xfe\n", ": not a text in UTF-8"),
        (b"{\n", ", line 1: not JSON"),
        (b"[1]\n", ", line 1: must be an object, got [1]"),
        (lines(HEADER | {"format": 2}), ", line 1: must be of kind `run` and `format` 1"),
        (lines(STEP), ", line 1: must be of kind `run` and `format` 1"),
        (lines(without(HEADER, "options")), ", line 1: `options` is missing or not what it must"),
        (lines(HEADER | {"options": {"lr": "x"}}), ", line 1: `lr` is missing or not what it must"),
        (lines(HEADER | {"seed": "0"}), ", line 1: `seed` is missing or not what it must be"),
        (lines(HEADER | {"sized": [2]}), ", line 1: `sized` is missing or not what it must be"),
        (lines(HEADER | {"sized": {"epochs": "x"}}), ", line 1: `epochs` is missing or not what"),
        (lines(HEADER | {"made": "here"}), ", line 1: `made` is missing or not what it must be"),
        (lines(HEADER | {"hours": "x"}), ", line 1: `hours` is missing or not what it must be"),
        (
            lines(HEADER, {"kind": "end", "step": 9, "outcome": "finished"}),
            ": finished without an evaluation",
        ),
    ],
)
def test_reading_names_what_is_wrong_with_the_file(tmp_path, content, complaint):
    path = tmp_path / "seed-0.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}{complaint}")


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (HEADER, "`kind` must be one of step, eval, end, got 'run'"),
        (STEP | {"kind": ["step"]}, "`kind` must be one of step, eval, end, got ['step']"),
        (STEP | {"loss": "low"}, "`loss` is missing or not what it must be"),
        (without(STEP, "zenith"), "`zenith` is missing or not what it must be"),
        (without(STEP, "seconds"), "`seconds` is missing or not what it must be"),
        (EVAL | {"test_accuracy": "high"}, "`test_accuracy` is missing or not what it must be"),
        (without(EVAL, "segment"), "`segment` is missing or not what it must be"),
        (STEP | {"seconds": None}, "`seconds` is missing or not what it must be"),
        (EVAL | {"step": None}, "`step` is missing or not what it must be"),
        (EVAL | {"epoch": None}, "`epoch` is missing or not what it must be"),
        ({"kind": "end", "step": 5, "outcome": "won"}, "`outcome` is missing or not what it must"),
    ],
)
def test_reading_names_the_line(tmp_path, record, complaint):
    path = tmp_path / "seed-0.jsonl"
    path.write_bytes(lines(HEADER, STEP, record))
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line 3: {complaint}")


def test_reading_names_a_file_that_is_missing_or_no_gzip(tmp_path):
    with pytest.raises(UserError, match=r"seed-0\.jsonl: cannot be read \(No such file"):
        read(tmp_path / "seed-0.jsonl")
    (tmp_path / "seed-0.jsonl.gz").write_bytes(lines(HEADER))
    with pytest.raises(UserError, match=r"seed-0\.jsonl\.gz: not a sound gzip file"):
        read(tmp_path / "seed-0.jsonl.gz")


def test_a_folder_without_records_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: holds no records of a run"):
        paths(tmp_path / "nowhere")


def test_a_run_that_is_there_plain_and_gzipped_is_refused(tmp_path):
    for name in ("seed-0.jsonl", "seed-0.jsonl.gz", "seed-1.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"seed-0.jsonl and .*seed-0.jsonl.gz are of the same run"):
        paths(tmp_path)
    (tmp_path / "seed-0.jsonl").unlink()
    assert [path.name for path in paths(tmp_path)] == ["seed-0.jsonl.gz", "seed-1.jsonl"]
