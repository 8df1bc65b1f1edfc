"""Table 5 as a study: its runs, and its report at toy scale."""

import shlex
from pathlib import Path

import pytest
from _coco import write_shapes

from experiments.__main__ import _question as asked_for
from experiments.__main__ import arguments, main
from experiments.optimizers import OPTIMIZERS
from experiments.records import paths
from experiments.report.paper import TABLE5
from experiments.studies import LENGTHS, cells
from experiments.tasks import DETECTION, SCENES, SCENES_TRAIN, scenes
from experiments.tasks.detect import EVERY, ROWS

ROOT = Path(__file__).parents[2]
NAMES = ["zenith", "sgd", "sgd-cosine", "pal", "gen", "cocob", "dog", "d-adaptation"]


def test_its_runs_are_those_of_the_paper_and_two_more_with_six_seeds():
    for scale, tasks in (("desk", SCENES), ("paper", ("coco-keypoints", "coco-instances"))):
        asked = cells("table5", scale)
        runs = [(task, name) for task in tasks for name in NAMES for _ in range(6)]
        assert [(cell.task, cell.question.name) for cell in asked] == runs
    assert {cell.question.log_every for cell in asked} == {617}  # four lines an evaluation


def test_a_window_to_scale_is_as_large_a_part_of_an_epoch_as_500_of_cocos():
    asked = {cell.question.name for cell in cells("table5-window", "desk")}
    assert asked == {"zenith", "sgd", "sgd-cosine", "zenith,window=8"}  # 500 / 7393 * 125


def test_lengths_are_those_of_the_tasks():
    for name in SCENES:
        assert LENGTHS[name].epochs == ROWS[name].epochs
        assert LENGTHS[name].steps == SCENES_TRAIN // ROWS[name].batch < EVERY
    for name in DETECTION:
        hours, epochs = DETECTION[name]
        assert (ROWS[name].hours, ROWS[name].epochs, ROWS[name].batch) == (hours, epochs, 16)


def test_the_papers_numbers_as_its_text_has_them():
    lines = {
        "pal": "72.1 78.9 14.4 46.2 44.1 13.5",
        "gen": "62.9 61.7 1.43 29.7 27.2 1.59",
        "cocob": "79.6 81.6 15.8 51.7 47.9 14.8",
        "dog": "80.7 82.3 16.2 55.1 51.9 14.4",
        "d-adaptation": "80.3 81.8 10.6 57.4 53.6 12.4",
        "zenith": "81.3 84.2 13.2 59.3 56.0 14.5",
    }
    for name, line in lines.items():
        boxes, points, first, others, masks, second = line.split()
        cells = [column[name] for column in TABLE5.values()]
        assert [cell.accuracy for cell in cells] == [boxes, points, others, masks]
        assert [cell.time for cell in cells] == [f"{first} h"] * 2 + [f"{second} h"] * 2


def test_the_run_of_the_docs_is_one_of_the_studys():
    text = (ROOT / "docs" / "experiments.md").read_text().replace("\\\n", "")
    (line,) = (line for line in text.splitlines() if "run coco-keypoints" in line)
    (study,) = (line for line in text.splitlines() if "study table5 --scale paper" in line)
    asked = arguments(shlex.split(line)[3:])
    question = asked_for(asked, {})
    assert question in [cell.question for cell in cells("table5", "paper", 1)]
    assert arguments(shlex.split(study)[3:]).out == asked.out


def test_what_the_second_study_adds_is_shown_with_what_it_shares(folder):
    own = ["--scale", "toy", "--seeds", "1"]
    assert main(["report", str(folder), "--study", "table5-window", *own]) == 0
    text = (folder / "reports" / "table5-window" / "report.md").read_text()
    assert "- `scenes-keypoints/zenith,window=8,epochs=1`: 0 of 1 seeds" in text
    assert "SGD + cosine" in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    at = tmp_path_factory.mktemp("study")
    data = scenes.write(at / "data", write_shapes(at / "fashion"), 16, 2)
    study = ["study", "table5", "--scale", "toy", "--seeds", "1", "--jobs", "2"]
    assert main([*study, "--data", str(data), "--out", str(at / "out")]) == 0
    return at / "out"


def test_the_report_is_table_5_beside_the_papers(folder):
    text = (folder / "reports" / "table5" / "report.md").read_text()
    assert text.startswith("# Detection and segmentation (Table 5, Figure 5)")
    table = text.partition("beside the paper's table 5\n\n")[2].partition("\n\n")[0].splitlines()
    columns = [cell.strip() for cell in table[0].strip("|").split("|")]
    measured = ["keypoints, box", "keypoints, keypoint", "instances, box", "instances, mask"]
    assert columns[1:5] == [f"scenes-{name} mAP50, %" for name in measured]
    assert columns[6:] == [f"paper: coco-{name} mAP50" for name in measured]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]
    assert len(rows) == 8
    printed = ["81.3 (13.2 h)", "84.2 (13.2 h)", "59.3 (14.5 h)", "56.0 (14.5 h)"]
    assert rows[0][0] == "ZENITH, epochs=1"
    assert rows[0][6:] == printed
    # An epoch is not their length.
    assert "None of these runs is one that a claim is about." in text
    assert "Nothing: every run is there and has ended." in text
    for picture in ("figure5.png", "figure3f.png"):
        assert (folder / "reports" / "table5" / picture).stat().st_size > 10_000


def test_the_same_runs_in_one_table_by_their_first_measure(folder, capsys):
    assert {path.parts[-2].partition(",")[0] for path in paths(folder)} == {*NAMES}
    assert main(["report", str(folder / "scenes-instances")]) == 0
    out = capsys.readouterr().out
    assert "box mAP50 %" in out
    assert all(OPTIMIZERS[name].label in out for name in NAMES)
