"""Summary, table and picture: from records that are written by hand, and from tiny runs."""

import gzip
import json
import shutil

import numpy as np
import pytest
from _demo import NAMES, recorded, tiny
from _report import made
from matplotlib.image import imread

from experiments.errors import UserError
from experiments.question import Question
from experiments.records import paths, read
from experiments.report import report, report_all
from experiments.report.picture import curve, draw, running_mean
from experiments.report.summary import grouped, overhead, reference, summarise
from experiments.report.table import cells, headline
from experiments.run import Run


def summary_of(*runs):
    return summarise(grouped(dict(enumerate(runs))))


def runs_in(folder):
    return grouped({path: read(path) for path in paths(folder)})


def test_summary_by_hand():
    summary = summary_of(
        made(seed=0, test_accuracy=90.0, train_loss=0.5, seconds=10.0),
        made(seed=1, test_accuracy=92.0, train_loss=0.7, seconds=14.0),
        made("sgd"),
        made("sgd", seed=1, epochs=1, outcome="diverged"),
    )
    assert (summary["seeds"], summary["begun"], summary["epochs"]) == ([0, 1], 2, 2)
    row = summary["optimizers"]["zenith"]
    assert row["test_accuracy"] == {"mean": 91.0, "std": 1.41421}  # the sample's: sqrt(2)
    assert row["train_loss"] == {"mean": 0.6, "std": 0.141421}
    assert row["seconds"] == {"mean": 12.0, "std": 2.82843}
    assert row["lr"] == {"mean": 0.05, "std": 0.0}  # at the step of the last evaluation
    assert (row["runs"], row["diverged"]) == (2, 0)
    sgd = summary["optimizers"]["sgd"]
    assert sgd["train_loss"] == {"mean": None, "std": None}
    assert (sgd["runs"], sgd["diverged"]) == (2, 1)
    json.dumps(summary, allow_nan=False)


def timed(*seconds, optimizer="zenith", first=10):
    """A run with a line every ten steps, at these seconds."""
    run = made(optimizer)
    lines = [
        run.steps[0] | {"step": step, "seconds": at}
        for step, at in zip(range(first, first + 10 * len(seconds), 10), seconds, strict=True)
    ]
    return run._replace(steps=lines)


def test_overhead_is_the_median_of_paired_ratios():
    # What lies between the lines: 1.5, 1.1, 3, 2.6 and 1, 1, 1, 2: ratios 1.5, 1.1, 3 and 1.3.
    found = overhead(timed(4.0, 5.5, 6.6, 9.6, 12.2), timed(3.0, 4.0, 5.0, 6.0, 8.0))
    assert found == pytest.approx({"q1": 25.0, "median": 40.0, "q3": 87.5})
    assert overhead(timed(1.0, 2.5), timed(1.0, 2.0)) == {"q1": 50.0, "median": 50.0, "q3": 50.0}


def test_overhead_pairs_what_both_have():
    base = timed(1.0, 2.0, 3.0, 4.0)
    assert overhead(timed(1.0, 2.5, 3.6), base)["median"] == pytest.approx(30.0)  # it diverged
    assert overhead(timed(1.0, 2.0, first=15), base) is None  # lines at other steps
    assert overhead(timed(1.0), base) is None
    assert overhead(timed(1.0, 2.0), timed(1.0, 1.0)) is None  # no time passed


def test_overhead_is_against_sgd_of_the_same_seed():
    slow, fast = timed(1.0, 3.0), timed(1.0, 2.0, optimizer="sgd")
    other = made("sgd", seed=1)
    rows = summary_of(slow, fast, made(seed=1), other)["optimizers"]
    assert rows["zenith"]["overhead_percent"]["median"] == 50.0  # of 100 % and 0 %
    assert rows["sgd"]["overhead_percent"]["median"] == 0.0
    assert summary_of(slow)["optimizers"]["zenith"]["overhead_percent"] is None
    alone = summary_of(slow, other)["optimizers"]["zenith"]  # SGD has another seed only
    assert alone["overhead_percent"] is None
    assert alone["runs"] == 1


def test_overhead_is_of_runs_in_step_with_one_another():
    def beside(*names, options=None, **header):
        run = timed(1.0, 3.0, **header)
        run.header.update(options=options or {}, made={"together": names})
        return run

    base = timed(1.0, 2.0, optimizer="sgd")
    rows = summary_of(
        base,
        beside("zenith", "sgd"),
        beside("pal", optimizer="pal"),
        beside("sgd,lr=0.2", options={"lr": 0.2}, optimizer="sgd"),
        timed(1.0, 3.0, optimizer="dog"),  # of old: it does not say
    )["optimizers"]
    found = {
        name: row["overhead_percent"] and row["overhead_percent"]["median"]
        for name, row in rows.items()
    }
    assert reference(rows) == "sgd"
    assert found == {"zenith": 100.0, "sgd": 0.0, "sgd,lr=0.2": None, "pal": None, "dog": 100.0}


def test_summary_of_an_interrupted_run_counts_whole_seeds_only():
    cut = made(seed=1, epochs=1, outcome=None, test_accuracy=10.0)
    summary = summary_of(made(seed=0), cut)
    assert (summary["seeds"], summary["epochs"]) == ([0], 2)
    assert summary["optimizers"]["zenith"]["test_accuracy"] == {"mean": 90.0, "std": None}
    assert "2 of 2 epochs, 1 of 2 seeds" in headline(summary)
    summary = summary_of(cut)
    assert (summary["seeds"], summary["epochs"]) == ([1], 1)
    assert "1 of 2 epochs, 1 of 1 seeds begun" in headline(summary)


def test_a_run_that_diverged_does_not_hold_back_the_others():
    summary = summary_of(
        made(seed=0, epochs=1, outcome=None), made("sgd", epochs=0, outcome="diverged")
    )
    assert (summary["seeds"], summary["epochs"]) == ([0], 1)
    assert summary["optimizers"]["zenith"]["runs"] == 1
    assert summary["optimizers"]["sgd"]["diverged"] == 1
    alone = summary_of(made("sgd", epochs=0, outcome="diverged"))
    assert (alone["seeds"], alone["epochs"]) == ([0], 2)
    assert cells("sgd", alone["optimizers"]["sgd"], 1)[1:3] == ("-", "diverged")


def test_a_run_that_stopped_after_its_hours_counts():
    summary = summary_of(
        made(), made("sgd", epochs=1, test_accuracy=80.0), made(seed=1, epochs=1), made("sgd", 1)
    )
    assert (summary["seeds"], summary["epochs"]) == ([0, 1], 2)
    assert [row["runs"] for row in summary["optimizers"].values()] == [2, 2]
    assert summary["optimizers"]["sgd"]["test_accuracy"]["mean"] == 85.0
    alone = summary_of(made(epochs=1))
    assert (alone["seeds"], alone["epochs"]) == ([0], 1)
    assert "1 of 2 epochs, 1 of 1 seeds begun" in headline(alone)


def test_what_was_planned_and_ran_out_of_time_is_marked():
    runs = [made(name, seed) for name in ("sgd", "sgd-cosine") for seed in (0, 1)]
    runs = [run._replace(outcome="stopped") if run.header["seed"] else run for run in runs]
    rows = summary_of(*runs)["optimizers"]
    assert rows["sgd-cosine"]["runs"] == 2
    assert cells("sgd-cosine", rows["sgd-cosine"], 2)[0] == "SGD + cosine (out of time: 1 of 2)"
    assert cells("sgd", rows["sgd"], 2)[0] == "SGD"


def test_summary_of_no_result():
    assert summary_of(made(epochs=0, outcome=None))["seeds"] == []


def test_the_cells_of_the_table():
    row = summary_of(made(), made(seed=1, test_accuracy=92.0), made("sgd"), made("sgd", seed=1))
    row = row["optimizers"]["zenith"]
    expected = ("ZENITH", "91.00 ± 1.41", "0.5 ± 0", "0.05 ± 0", "10.0 ± 0.0", "+0.0 %")
    assert cells("zenith", row, 2) == expected
    assert cells("sgd", row, 2)[-1] == "reference"
    assert cells("sgd,lr=0.2", row, 2)[::5] == ("SGD, lr=0.2", "+0.0 %")
    assert cells("sgd,lr=0.2", row, 2, "sgd,lr=0.2")[::5] == ("SGD, lr=0.2", "reference")
    assert cells("zenith", row | {"overhead_percent": None}, 2)[-1] == "-"
    assert cells("zenith", row | {"diverged": 2}, 2)[2] == "diverged"
    assert cells("zenith", row | {"diverged": 1}, 2)[2] == "diverged (1 of 2)"
    single = summary_of(made())["optimizers"]["zenith"]
    assert cells("zenith", single, 1)[1] == "90.00"


def test_what_is_missing_is_shown_as_missing():
    cut = made("sgd", seed=2, epochs=1, outcome=None)
    summary = summary_of(made(), made(seed=1), made("dog", seed=1), cut)
    rows = summary["optimizers"]
    assert cells("dog", rows["dog"], 2)[0] == "DoG (1 of 2 seeds)"
    assert cells("sgd", rows["sgd"], 2) == ("SGD", "missing", "-", "-", "-", "-")


def test_the_headline_says_what_was_run():
    assert headline(summary_of(made(), made(seed=1))) == (
        "digits: 1,347 training and 450 test images; a network of 53,002 parameters; "
        "batches of 8; 2 of 2 epochs, 2 of 2 seeds begun (mean ± standard deviation)"
    )


def test_zenith_comes_first_then_the_order_of_the_registry():
    runs = [made(name) for name in ("sgd-cosine", "sgd", "zenith", "pal")]
    runs.append(made("zenith", options={"window": 50}))
    assert list(grouped(dict(enumerate(runs)))) == [
        "zenith",
        "zenith,window=50",
        "sgd",
        "pal",
        "sgd-cosine",
    ]


def test_runs_of_two_questions_or_of_nobody_are_refused():
    other = made("sgd")
    other.header["batch"] = 16
    with pytest.raises(UserError, match=r"^b: `batch` must be 8, as in the other .* got 16$"):
        grouped({"a": made(), "b": other})
    late = made("sgd", seed=1)
    late.header["hours"] = 0.5
    with pytest.raises(UserError, match=r"^b: `hours` must be None, as in the other"):
        grouped({"a": made("sgd"), "b": late})
    late.header["sized"] = {"hours": 0.5}  # which its name has
    grouped({"a": made("sgd"), "b": late})
    with pytest.raises(UserError, match=r"^a: `optimizer` must be one of sgd, .* got 'adam'$"):
        grouped({"a": made("adam")})


def test_report_depends_on_the_records_alone(tmp_path, capsys):
    recorded(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for path in paths(tmp_path / "a"):  # gzipped, they come to the same
        copy = tmp_path / "b" / path.relative_to(tmp_path / "a").with_suffix(".jsonl.gz")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(gzip.compress(path.read_bytes()))
    outputs = []
    for name in ("a", "b"):
        report_all(tmp_path / name)
        printed = capsys.readouterr().out.replace(str(tmp_path / name), "")
        folder = tmp_path / name / "digits"
        files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
        outputs.append((printed, files))
    assert outputs[0] == outputs[1]
    assert set(outputs[0][1]) == {"summary.json", "picture.png"}


def test_the_table_for_a_markdown_file(tmp_path, capsys):
    recorded(tmp_path)
    report(tmp_path / "digits")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    titles, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert titles == [
        "optimizer",
        "test accuracy %",
        "final training loss",
        "rate at the end",
        "training s",
        "overhead per step",
    ]
    assert [row[0] for row in rows] == ["ZENITH, window=3", "SGD", "SGD + cosine"]
    summary = json.loads((tmp_path / "digits" / "summary.json").read_text())
    for row, numbers in zip(rows, summary["optimizers"].values(), strict=True):
        accuracy = numbers["test_accuracy"]
        assert row[1] == f"{accuracy['mean']:.2f} ± {accuracy['std']:.2f}"


def test_report_all_finds_every_task(tmp_path, capsys):
    for name in ("one", "two/deep"):
        recorded(tmp_path / name, ["sgd"], seeds=1)
    report_all(tmp_path)
    assert capsys.readouterr().out.count("summary.json and picture.png are in") == 2
    assert (tmp_path / "two" / "deep" / "digits" / "picture.png").exists()


def test_report_of_records_without_a_result(tmp_path):
    recorded(tmp_path, seeds=1, stopped=lambda: True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"digits: holds no result to show"):
        report(tmp_path / "digits")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_shown_is_named_and_left_out(tmp_path, capsys):
    recorded(tmp_path, seeds=1)
    empty, begun = (tmp_path / task / "sgd" / "seed-1.jsonl" for task in ("digits", "other"))
    empty.touch()
    begun.parent.mkdir(parents=True)
    header, *_ = (tmp_path / "digits/sgd/seed-0.jsonl").read_text().splitlines(keepends=True)
    begun.write_text(header)
    report_all(tmp_path)
    captured = capsys.readouterr()
    assert captured.err == (
        f"experiments: left out: {empty}: empty, and not the records of a run\n"
        f"experiments: left out: {begun}: no evaluation yet\n"
    )
    assert captured.out.count("summary.json and picture.png are in") == 1
    shutil.rmtree(tmp_path / "digits")
    with pytest.raises(UserError, match="holds no result to show"):
        report_all(tmp_path)


def test_a_report_is_not_on_the_folder_of_one_optimizer(tmp_path):
    recorded(tmp_path, ["sgd", "pal"], seeds=1)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"digits/sgd: is the folder of one optimizer; a report"):
        report_all(tmp_path / "digits" / "sgd")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_in_two_files_is_refused(tmp_path):
    recorded(tmp_path, ["sgd"], seeds=2)
    one, two = sorted((tmp_path / "digits/sgd").iterdir())
    two.write_bytes(one.read_bytes())
    with pytest.raises(UserError, match=r"seed-1.jsonl: `seed` 0 of sgd is in another file too"):
        report_all(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"names": ("sgd",), "seeds": 1},
        {"names": ("sgd", "zenith"), "lr": 1e30},
        {"names": ("zenith",), "seeds": 1, "log_every": 100},
        {"seeds": 1, "stopped": lambda: True},
    ],
    ids=["whole", "no zenith", "diverged", "two lines", "interrupted"],
)
def test_the_picture_is_1600_by_1000(tmp_path, options):
    recorded(tmp_path, **options)
    path = tmp_path / "picture.png"
    path.write_bytes(draw(runs_in(tmp_path)))
    assert imread(path).shape[:2] == (1000, 1600)
    assert path.stat().st_size < 400_000


def test_a_curve_is_mean_and_range_over_the_seeds_there_are():
    records = [{"x": 1, "y": 2.0}, {"x": 1, "y": 5.0}, {"x": 2, "y": None}, {"x": 0, "y": 1.0}]
    x, mean, low, high = curve(records, "x", "y")
    assert (x.tolist(), mean.tolist()) == ([0, 1], [1, 3.5])
    assert (low.tolist(), high.tolist()) == ([1, 2], [1, 5])
    assert curve([], "x", "y").x.size == 0


def test_running_mean_by_hand():
    assert running_mean(np.array([4.0, 2.0, 3.0, 7.0]), 2).tolist() == [4.0, 3.0, 2.5, 5.0]
    assert running_mean(np.array([]), 2).size == 0


def test_a_header_made_by_hand_is_as_the_harness_writes_it():
    written = Run(tiny(), Question("zenith")).header()
    assert set(made().header) == {"kind", "format"} | set(written)
    assert NAMES[0] == written["optimizer"]
