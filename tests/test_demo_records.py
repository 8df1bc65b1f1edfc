import json
import math

import pytest
from _demo import tiny_records

from zenith.demo import output
from zenith.demo.errors import UserError
from zenith.demo.records import read, rounded, to_line
from zenith.demo.settings import OPTIMIZERS
from zenith.demo.summary import summarise
from zenith.demo.table import cells, headline

HEADER = {
    "kind": "run",
    "format": 1,
    "data": "digits",
    "train_images": 1347,
    "test_images": 450,
    "parameters": 53002,
    "optimizers": list(OPTIMIZERS),
    "epochs": 2,
    "lr": 0.1,
    "window": 3,
    "momentum": 0.0,
    "seeds": 2,
    "batch_size": 8,
    "steps_per_epoch": 5,
    "steps": 10,
    "log_every": 1,
    "threads": 2,
    "versions": {"torch": "2.13.0"},
}


def result(optimizer="zenith", seed=0, epoch=2, **numbers):
    return {
        "kind": "result",
        "optimizer": optimizer,
        "seed": seed,
        "epoch": epoch,
        "train_loss": 0.5,
        "test_accuracy": 90.0,
        "lr": 0.01,
        "seconds": 10.0,
        "step_ms": 2.0,
        "overhead_percent": {"q1": 1.0, "median": 2.0, "q3": 3.0},
    } | numbers


STEP = {"kind": "step", "optimizer": "zenith", "seed": 0, "step": 1, "epoch": 1, "loss": 1.0}
STEP |= {"lr": 0.1, "grad_norm": 1.0, "mean": 0.0, "zenith": 0.0, "scale": 1.0}


def write(path, *records):
    path.write_text("".join(map(to_line, records)))
    return path


def test_rounded_to_six_digits_and_null():
    assert rounded({"a": [1], "b": 1 / 3, "c": -2e-9 / 3, "d": math.nan, "e": math.inf}) == {
        "a": [1],
        "b": 0.333333,
        "c": -6.66667e-10,
        "d": None,
        "e": None,
    }
    assert rounded(123456789) == 123456789


def test_records_round_trip(tmp_path):
    records = [HEADER, *tiny_records()]
    path = write(tmp_path / "records.jsonl", *records)
    assert read(path) == [rounded(record) for record in records]
    assert write(tmp_path / "again.jsonl", *read(path)).read_bytes() == path.read_bytes()


def test_a_run_that_diverged_is_strict_json(tmp_path):
    records = tiny_records(lr=1e30, optimizers=("sgd",))
    path = write(tmp_path / "records.jsonl", HEADER, *records)
    assert "NaN" not in path.read_text()
    assert read(path)[-1]["train_loss"] is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", ": empty"),
        (b"\xff\xfe\n", ": not a text in UTF-8"),
        (b"{\n", ", line 1: not JSON"),
        (b"[1]\n", ", line 1: `kind` must be one of run, step, epoch, result, got None"),
        (b'{"kind": ["run"]}\n', ", line 1: `kind` must be one of"),
        (to_line(HEADER | {"format": 2}).encode(), ", line 1: must be of kind `run` and `format`"),
        (to_line(STEP).encode(), ", line 1: must be of kind `run` and `format` 1"),
        (to_line(HEADER | {"optimizers": ["adam"]}).encode(), ", line 1: `optimizers` is missing"),
        (to_line(HEADER | {"optimizers": [[]]}).encode(), ", line 1: `optimizers` is missing"),
    ],
)
def test_reading_names_what_is_wrong_with_the_file(tmp_path, content, complaint):
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}{complaint}")


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (HEADER, "belongs to no optimizer of line 1"),
        (STEP | {"optimizer": "adam"}, "belongs to no optimizer of line 1"),
        (STEP | {"loss": "low"}, "`loss` is missing or not what it must be"),
        ({k: v for k, v in STEP.items() if k != "zenith"}, "`zenith` is missing or not"),
        (result(test_accuracy=None), "`test_accuracy` is missing or not what it must be"),
        (result(seed=0.5), "`seed` is missing or not what it must be"),
        (
            result(overhead_percent={"q1": 1.0}),
            "`overhead_percent` is missing or not what it must be",
        ),
    ],
)
def test_reading_names_the_line(tmp_path, record, complaint):
    path = write(tmp_path / "records.jsonl", HEADER, STEP, record)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line 3: {complaint}")


def test_reading_names_a_file_that_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"records\.jsonl: cannot be read \(No such file"):
        read(tmp_path / "records.jsonl")


def test_summary_by_hand():
    records = [
        HEADER,
        result(seed=0, test_accuracy=90.0, train_loss=0.5, seconds=10.0),
        result(seed=1, test_accuracy=92.0, train_loss=0.7, seconds=14.0)
        | {"overhead_percent": {"q1": 3.0, "median": 4.0, "q3": 8.0}},
        result("sgd", overhead_percent=None),
        result("sgd", seed=1, train_loss=None, overhead_percent=None),
        result("sgd-cosine"),
        result("sgd-cosine", seed=1),
    ]
    summary = summarise(records)
    assert summary["seeds"] == [0, 1]
    assert summary["epochs"] == 2
    row = summary["optimizers"]["zenith"]
    assert row["test_accuracy"] == {"mean": 91.0, "std": 1.41421}  # the sample's: sqrt(2)
    assert row["train_loss"] == {"mean": 0.6, "std": 0.141421}
    assert row["seconds"] == {"mean": 12.0, "std": 2.82843}
    assert row["overhead_percent"] == {"q1": 2.0, "median": 3.0, "q3": 5.5}
    assert row["diverged"] == 0
    sgd = summary["optimizers"]["sgd"]
    assert sgd["train_loss"] == {"mean": None, "std": None}
    assert sgd["diverged"] == 1
    assert sgd["overhead_percent"] is None
    json.dumps(summary, allow_nan=False)


def test_summary_of_an_interrupted_run_counts_whole_seeds_only():
    optimizers = {"optimizers": ["zenith"]}
    records = [HEADER | optimizers, result(seed=0), result(seed=1, epoch=1, test_accuracy=10.0)]
    summary = summarise(records)
    assert (summary["seeds"], summary["epochs"]) == ([0], 2)
    assert summary["optimizers"]["zenith"]["test_accuracy"] == {"mean": 90.0, "std": None}
    assert "2 of 2 epochs, 1 of 2 seeds" in headline(summary)
    summary = summarise([records[0], records[2]])
    assert (summary["seeds"], summary["epochs"]) == ([1], 1)
    assert "1 of 2 epochs, 1 of 2 seeds" in headline(summary)


def test_summary_of_no_result():
    assert summarise([HEADER, STEP])["epochs"] == 0


def test_the_cells_of_the_table():
    row = summarise([HEADER, result(), result(seed=1, test_accuracy=92.0)])["optimizers"]["zenith"]
    expected = ("91.00 ± 1.41", "0.5 ± 0", "0.01 ± 0", "10.0 ± 0.0", "+2.0 %")
    assert cells("zenith", row, 2) == expected
    assert cells("sgd", row, 2)[-1] == "reference"
    assert cells("zenith", row | {"overhead_percent": None}, 2)[-1] == "-"
    assert cells("zenith", row | {"diverged": 2}, 2)[1] == "diverged"
    assert cells("zenith", row | {"diverged": 1}, 2)[1] == "diverged (1 of 2)"
    single = summarise([HEADER, result()])["optimizers"]["zenith"]
    assert cells("zenith", single, 1)[0] == "90.00"


def test_the_headline_says_what_was_run():
    assert headline(summarise([HEADER, result(), result(seed=1)])) == (
        "digits: 1,347 training and 450 test images; a network of 53,002 parameters; "
        "lr 0.1, window 3, momentum 0, batches of 8; 2 of 2 epochs, 2 of 2 seeds "
        "(mean ± standard deviation)"
    )


def test_records_are_on_disk_as_they_come_and_an_earlier_run_stays_until_kept(tmp_path):
    path = write(tmp_path / "records.jsonl", HEADER)
    (tmp_path / "summary.json").write_text("earlier")
    (tmp_path / "notes.txt").write_text("the user's own")
    output.claim(tmp_path)
    with output.recording(tmp_path) as record:
        record(HEADER | {"seeds": 9})
        partial = tmp_path / "records.jsonl.partial"
        assert partial.read_text() == to_line(HEADER | {"seeds": 9})
    assert path.read_text() == to_line(HEADER)
    output.keep(tmp_path)
    assert path.read_text() == to_line(HEADER | {"seeds": 9})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "records.jsonl"]


def test_discarded_records_leave_the_earlier_run(tmp_path):
    path = write(tmp_path / "records.jsonl", HEADER)
    with output.recording(tmp_path) as record:
        record(STEP)
    output.discard(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == to_line(HEADER)


def test_a_folder_of_a_killed_run_is_ours(tmp_path):
    write(tmp_path / "records.jsonl.partial", HEADER)
    output.claim(tmp_path)


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "records.jsonl.partial").symlink_to("/dev/full")
    complaint = r"records\.jsonl\.partial: cannot be written \(No space left"
    with pytest.raises(UserError, match=complaint), output.recording(tmp_path) as record:
        record(HEADER)


def test_replacing_a_file_fails_whole(tmp_path):
    output.replace(tmp_path / "a", b"first")
    output.replace(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"second"
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match=r"b: cannot be written \(Is a directory\)"):
        output.replace(tmp_path / "b", b"third")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
