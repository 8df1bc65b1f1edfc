"""The command `check`: what is made anew agrees, or is said not to."""

import gzip
import json
import shutil

import pytest

from experiments import check
from experiments.__main__ import main
from experiments.records import paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The six runs of `momentum`, two seeds each; one of them gzipped, as they are committed."""
    folder = tmp_path_factory.mktemp("check")
    assert main(["study", "momentum", "--scale", "toy", "--out", str(folder)]) == 0
    path = paths(folder)[0]
    path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return folder


def checked(folder, capsys, *more):
    """The exit code, and the lines of the table."""
    capsys.readouterr()
    code = main(["check", str(folder), *more])
    lines = capsys.readouterr().out.splitlines()[2:]
    return code, [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_same_machine_makes_the_same_records(folder, capsys):
    code, lines = checked(folder, capsys, "--sample", "9", "--jobs", "2")
    assert code == 0
    assert {line[0] for line in lines} == {
        path.relative_to(folder).as_posix() for path in paths(folder)
    }
    assert {line[3] for line in lines} == {"the same records"}
    assert all(before == now for _, before, now, _ in lines)
    code, chosen = checked(folder, capsys, "--sample", "1", "--seed", "3")
    assert code == 0
    assert chosen[0] in lines


@pytest.mark.parametrize(
    ("by", "code", "said"), [(0.25, 0, "within the spread of the seeds"), (0.75, 1, "DIFFERENT")]
)
def test_other_records_are_within_the_spread_or_not(by, code, said, folder, tmp_path, capsys):
    """Two seeds, the first of which was recorded a part of the way to the second."""
    shutil.copytree(paths(folder)[-1].parent, tmp_path / "digits" / "moved")
    first, second = paths(tmp_path)
    ours, theirs = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (first, second)
    )
    for line, other in zip(ours, theirs, strict=True):
        if line["kind"] == "eval":
            gap = other["test_accuracy"] - line["test_accuracy"]
            assert gap != 0
            line["test_accuracy"] += by * gap
    first.write_text("".join(json.dumps(line) + "\n" for line in ours))
    found, lines = checked(tmp_path, capsys)
    assert found == code
    assert {line[0].split("/")[-1]: line[3] for line in lines} == {
        "seed-0.jsonl": said,
        "seed-1.jsonl": "the same records",
    }


def test_what_takes_a_package_that_is_not_installed_is_left_out(
    folder, tmp_path, monkeypatch, capsys
):
    """A run of digits, and the same as if it were of the scenes."""
    path = paths(folder)[-1]
    for task in ("digits", "scenes-keypoints"):
        own = tmp_path / task / path.parent.name / path.name
        own.parent.mkdir(parents=True)
        own.write_text(path.read_text().replace('"task":"digits"', f'"task":"{task}"'))
    monkeypatch.setattr(check, "lacking", lambda modules: [m for m in modules if "vision" in m])
    assert main(["check", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "1 of 2 runs left out: not installed: torchvision" in err
    assert "scenes-keypoints" not in out
    assert main(["check", str(tmp_path / "scenes-keypoints")]) == 2
    assert "holds no run that can be made with what is installed" in capsys.readouterr().err


def test_a_folder_without_runs(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 2
    assert "holds no records of a run" in capsys.readouterr().err


def test_files_and_weights_reach_the_runs(folder, tmp_path, monkeypatch, capsys):
    def run_all(cells, place, stopped):
        return [f"{len(cells)} of {place.data} from {place.weights}"]

    monkeypatch.setattr(check, "run_all", run_all)
    asked = ["check", str(folder), "--sample", "2", "--data", "coco", "--weights", "none"]
    assert main(asked) == 2
    assert "2 of coco from none" in capsys.readouterr().err
