import json

import numpy as np
import pytest
from _demo import tiny, tiny_records
from matplotlib.image import imread

from zenith.demo.errors import UserError
from zenith.demo.picture import curve, draw, running_mean
from zenith.demo.records import rounded, to_line
from zenith.demo.report import report
from zenith.demo.run import header
from zenith.demo.settings import OPTIMIZERS


def records_of(**options):
    return [rounded(r) for r in [header(*tiny(**options)), *tiny_records(**options)]]


def write(folder, records):
    folder.mkdir(exist_ok=True)
    (folder / "records.jsonl").write_text("".join(map(to_line, records)))
    return folder


def test_report_depends_on_the_records_alone(tmp_path, capsys):
    records = records_of()
    outputs = []
    for name in ("a", "b"):
        folder = write(tmp_path / name, records)
        report(folder)
        printed = capsys.readouterr().out.replace(str(folder), "")
        files = {p.name: p.read_bytes() for p in folder.iterdir()}
        outputs.append((printed, files))
    assert outputs[0] == outputs[1]
    assert set(outputs[0][1]) == {"records.jsonl", "summary.json", "picture.png"}


def test_the_table_for_a_markdown_file(tmp_path, capsys):
    report(write(tmp_path / "a", records_of()))
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
    assert [row[0] for row in rows] == list(OPTIMIZERS)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    for row in rows:
        accuracy = summary["optimizers"][row[0]]["test_accuracy"]
        assert row[1] == f"{accuracy['mean']:.2f} ± {accuracy['std']:.2f}"


def test_report_of_records_without_a_result(tmp_path):
    folder = write(tmp_path / "a", records_of()[:3])
    with pytest.raises(UserError, match=r"records\.jsonl: holds no result to show"):
        report(folder)
    assert [p.name for p in folder.iterdir()] == ["records.jsonl"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizers": ("sgd",), "seeds": 1},
        {"optimizers": ("sgd", "zenith"), "lr": 1e30},
        {"window": 100},
    ],
    ids=["whole", "no zenith", "diverged", "window never full"],
)
def test_the_picture_is_1600_by_1000(tmp_path, options):
    path = tmp_path / "picture.png"
    path.write_bytes(draw(records_of(**options)))
    assert imread(path).shape[:2] == (1000, 1600)
    assert path.stat().st_size < 200_000


def test_the_picture_of_an_interrupted_run():
    assert draw(records_of()[:2]).startswith(b"\x89PNG")


def test_a_curve_is_mean_and_range_over_the_seeds_there_are():
    records = [{"x": 1, "y": 2.0}, {"x": 1, "y": 5.0}, {"x": 2, "y": None}, {"x": 0, "y": 1.0}]
    x, mean, low, high = curve(records, "x", "y")
    assert (x.tolist(), mean.tolist()) == ([0, 1], [1, 3.5])
    assert (low.tolist(), high.tolist()) == ([1, 2], [1, 5])
    assert curve([], "x", "y").x.size == 0


def test_running_mean_by_hand():
    assert running_mean(np.array([4.0, 2.0, 3.0, 7.0]), 2).tolist() == [4.0, 3.0, 2.5, 5.0]
    assert running_mean(np.array([]), 2).size == 0
