"""Studies: their lists of runs, all of them at toy scale, and what a kill or an error does."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from _demo import command, environment
from test_experiments_run import timeless

from experiments import study
from experiments.__main__ import main
from experiments.optimizers import BLOCKS
from experiments.records import paths, read
from experiments.studies import LENGTHS, STUDIES, cells
from experiments.tasks.classify import ROWS

# By hand: KILLS=50 and table3, whose runs have state of every kind.
KILLS, KILLED = int(os.environ.get("KILLS", "2")), os.environ.get("KILLED", "momentum")
TOY = ["--scale", "toy", "--seeds", "1"]


def names(study, task, scale="desk"):
    return [c.question.name for c in cells(study, scale, 1) if c.task == task]


def test_lengths_are_those_of_the_tasks():
    for task in ("desk-a", "desk-b", "desk-c"):
        row, length = ROWS[task], LENGTHS[task]
        images = row.data.args[0]
        assert (length.epochs, length.segment) == (row.epochs, row.segment)
        assert length.steps == images // row.batch


def test_windows_are_the_parts_of_an_epoch_that_they_are_in_the_paper():
    # 50, 150, 500, 1500, 5000 and 15000 of 390 steps, in epochs of 32
    windows = [4, 12, 41, 123, 410, 1231]
    asked = ["zenith", *(f"zenith,window={window}" for window in windows)]
    assert names("figure6", "desk-a") == asked
    exact = [f"zenith,window={window}" for window in (50, 150, 1500, 5000, 15000)]
    assert names("figure6", "cifar100-resnet50", "paper") == ["zenith", *exact]


def test_table3_asks_both_blocks_and_the_best_of_three_rates():
    asked = names("table3", "desk-b")
    assert len(asked) == len(set(asked))
    for block in BLOCKS.values():
        for name, options in block:
            assert ",".join([name, *(f"{k}={v:g}" for k, v in options.items())]) in asked
    tuned = {"sgd,lr=0.03", "sgd,lr=0.3", "sgd-cosine,lr=0.3", "sgd-step,lr=0.03"}
    assert tuned <= {*names("table3", "desk-a")}
    assert "schedule-free" not in names("table3", "desk-a")


def test_a_row_has_the_seeds_of_its_part():
    found = Counter((c.task, c.question.name) for c in cells("table3", "desk"))
    assert [found[f"desk-{which}", "zenith"] for which in "ab"] == [10, 10]
    assert [found[f"desk-{which}", "pal"] for which in "ab"] == [6, 3]
    again = Counter((c.task, c.question.name) for c in cells("table3", "desk", seeds=2))
    assert {*again.values()} == {2}


def test_a_run_that_studies_share_has_the_probes_of_them_all():
    shared = [
        next(cell for cell in cells(name, "desk") if cell.question.name == "zenith")
        for name in ("table3", "horizon", "figure6")
    ]
    assert len({cell.question.probes for cell in shared}) == 1
    assert shared[0].question.probes == ("average", "cooldown", "line", "noise", "sharpness")


def test_a_cosine_is_planned_for_each_fifth():
    planned = [name for name in names("horizon", "desk-a") if "epochs" in name]
    assert planned == [f"sgd-cosine,epochs={epochs}" for epochs in (20, 40, 60, 80)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shared by all studies: these two have the runs of them all."""
    folder = tmp_path_factory.mktemp("studies")
    for name in ("secondary", "claims"):
        assert main(["study", name, *TOY, "--jobs", "2", "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", [name for name in STUDIES if "table5" not in name])  # torchvision
def test_every_study_at_toy_scale(name, folder):
    assert main(["report", str(folder), "--study", name, *TOY]) == 0
    report = folder / "reports" / name
    text = (report / "report.md").read_text()
    assert text.startswith(f"# {STUDIES[name].title} (")
    assert "Nothing: every run is there and has ended." in text
    pictures = [part for part in STUDIES[name].shown if f"![{part}" in text]
    assert all((report / f"{part}.png").exists() for part in pictures)


def test_nothing_is_run_twice_and_the_report_is_made_of_the_files(tmp_path):
    arguments = ["figure6", *TOY, "--out", str(tmp_path)]
    assert main(["study", *arguments]) == 0
    before = {path: path.read_bytes() for path in paths(tmp_path)}
    report = tmp_path / "reports" / "figure6" / "report.md"
    text = report.read_text()
    report.unlink()
    options = ["--study", "figure6", "--scale", "toy", "--seeds", "1"]
    assert main(["report", str(tmp_path), *options]) == 0
    assert report.read_text() == text
    report.unlink()
    assert main(["report", str(tmp_path), "--study", "all", *options[2:]]) == 0
    assert report.read_text() == text
    made = {path.name for path in (tmp_path / "reports").iterdir()}
    assert {"figure6", "claims", "table3"} <= made  # which have a run of figure6
    assert "adamw" not in made
    assert main(["study", *arguments]) == 0
    assert {path: path.read_bytes() for path in paths(tmp_path)} == before


def test_table1_is_what_cost_overhead_measures(tmp_path):
    assert main(["study", "table1", "--scale", "toy", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "table1" / "overhead.md").exists()


def test_a_run_that_cannot_be_made_does_not_end_the_others(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "report", lambda *_: None)
    asked = [cell.question for cell in cells("momentum", "toy", 1)]
    (own,) = [question.path("digits") for question in asked if question.optimizer == "sgd"]
    path = tmp_path / own
    path.parent.mkdir(parents=True)
    path.write_text('{"kind":"run","format":1}\n')
    assert main(["study", "momentum", *TOY, "--out", str(tmp_path)]) == 2
    stderr = capsys.readouterr().err
    assert f"experiments: {own.with_suffix('')}: {path} holds a run of another question" in stderr
    finished = {p.parent.name.split(",")[0] for p in paths(tmp_path) if p != path}
    assert finished == {"zenith", "sgd-cosine"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["table9"], "`study` must be one of table1, claims, table3"),
        (["table4", "--tasks", "digits"], "`--tasks` must be of desk-b, got 'digits'"),
        (
            ["table5-window", "--scale", "paper"],
            "`--scale` must be one that table5-window has, got",
        ),
        (["table4", "--device", "cuda"], "`--device` must be cpu: torch finds no GPU here"),
    ],
)
def test_what_a_study_cannot_do_is_one_line(tmp_path, capsys, monkeypatch, arguments, complaint):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["study", *arguments, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"experiments: error: {complaint}")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["study", "momentum", *TOY, "--out", str(tmp_path / "file")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("experiments: error: `--out` must be a folder to write to, got ")


def test_a_task_without_data_is_one_line_for_all_its_runs(tmp_path, capsys):
    arguments = ["study", "momentum", "--tasks", "desk-b", "--seeds", "1"]
    assert main([*arguments, "--data", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    stderr = capsys.readouterr().err
    assert "desk-b/zenith,lr=0.02,momentum=0.9/seed-0 and 2 more runs: " in stderr
    assert "holds no finished run" in stderr.splitlines()[-1]


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("seed-*.jsonl"))


def test_a_study_that_is_killed_goes_on_to_the_same_records(tmp_path):
    arguments = [sys.executable, "-m", "experiments", "study", KILLED, "--scale", "toy"]
    arguments += ["--jobs", "2", "--out"]
    quiet = environment(PYTHONWARNINGS="ignore")  # of what curvlinops imports, for table3
    subprocess.run([*arguments, tmp_path / "whole"], env=quiet, check=True)
    cut = [*arguments, tmp_path / "cut"]
    moment = random.Random(KILLS)
    for _ in range(KILLS):
        process = subprocess.Popen(cut, env=quiet, stderr=subprocess.DEVNULL)
        before = size(tmp_path / "cut")
        while process.poll() is None and size(tmp_path / "cut") <= before:
            time.sleep(0.005)
        time.sleep(moment.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(cut, env=quiet, check=True)
    ours, theirs = (
        {path.relative_to(tmp_path / out): timeless(path) for path in paths(tmp_path / out)}
        for out in ("cut", "whole")
    )
    assert ours == theirs
    assert (tmp_path / "cut" / "reports" / KILLED / "report.md").exists()
    assert not list((tmp_path / "cut").rglob("*.pt"))


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    arguments = [sys.executable, "-m", "experiments", "study", "momentum", "--scale", "toy"]
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code = f"{listening} import sys; from experiments.__main__ import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments[3:], "--out", str(tmp_path)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.rglob("seed-0.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert "interrupted; what was finished is kept in" in stderr
    assert all(read(path).header["task"] == "digits" for path in paths(tmp_path))


def test_two_processes_of_torchrun_write_the_records_of_one(tmp_path):
    own = ["run", "digits", "--optimizer", "zenith", "--window", "9", "--momentum", "0.9"]
    own += ["--l2", "0.001", "--epochs", "1", "--log-every", "4"]
    assert command(*own, "--batch-size", "64", "--out", "one", cwd=tmp_path).returncode == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["-m", "experiments", *own, "--batch-size"]
    quiet = {"cwd": tmp_path, "env": environment(PYTHONWARNINGS="ignore"), "text": True}
    done = subprocess.run([*torchrun, "64", "--out", "two"], **quiet, capture_output=True)
    assert done.returncode == 0, done.stderr
    one, two = (timeless(next((tmp_path / out).rglob("*.jsonl"))) for out in ("one", "two"))
    assert two[0] == one[0]
    for ours, theirs in zip(two[1:], one[1:], strict=True):
        # 21 steps of float32, each of which rounds a sum of 64 terms otherwise
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            same = value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-6)
            assert ours[name] == same
    refused = subprocess.run([*torchrun, "63", "--out", "odd"], **quiet, capture_output=True)
    assert refused.returncode != 0
    assert "`--batch-size` must be a multiple of 2 processes, got 63" in refused.stderr


def test_amp_is_autocast_in_bfloat16(tmp_path):
    import torch

    from experiments.question import Question
    from experiments.run import Run
    from experiments.tasks import load

    task = load("digits", epochs=1, batch=64)
    run = Run(task, Question("sgd", amp=True))
    batch = next(task.batches(0, 0))
    with torch.autocast("cpu", torch.bfloat16):
        expected = task.loss(run.model, batch).item()
    run.step(batch)
    assert run._losses[0].item() == expected
    assert run.question.path("digits").parts[1] == "sgd,amp"
    assert json.loads(json.dumps(run.header()))["amp"] is True
