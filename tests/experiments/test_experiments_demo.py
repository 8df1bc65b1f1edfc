"""`python -m experiments demo`, `report` and `list`: as processes, as their users start them."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import _commands
import pytest
from _demo import NAMES, command, environment
from _idx import write_fashion

from experiments import demo, tasks
from experiments.__main__ import main
from experiments.errors import UserError
from experiments.records import Journal, paths, read

SIZES = ["--batch-size", "300", "--window", "3"]  # 4 steps an epoch
SHORT = ["demo", "--epochs", "2", "--seeds", "2", *SIZES]
ONE = ["demo", "--epochs", "1", "--seeds", "1", "--batch-size", "600", "--window", "2"]
# pytest may run in a shell's background job, where Ctrl-C is ignored, which a child inherits.
LISTENING = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from experiments.__main__ import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run over the pipe, although the environment asks for colours."""
    folder = tmp_path_factory.mktemp("finished")
    process = command(*SHORT, "--out", "out", cwd=folder, FORCE_COLOR="1", GITHUB_ACTIONS="true")
    return process, folder / "out"


@pytest.fixture
def quick(monkeypatch):
    """No report, which takes longer than the training."""
    monkeypatch.setattr(demo, "report", lambda folder: None)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_run_writes_its_files_and_nothing_else(finished):
    process, out = finished
    assert process.returncode == 0
    runs = [f"digits/{name}/seed-{seed}.jsonl" for name in NAMES for seed in (0, 1)]
    runs = [run.replace("zenith/", "zenith,window=3/") for run in runs]
    assert files(out) == sorted([".demo", *runs, "digits/picture.png", "digits/summary.json"])
    assert process.stdout.endswith("summary.json and picture.png are in out/digits\n")


def test_a_pipe_gets_no_colours_and_no_bar_but_a_line_for_each_seed(finished):
    process, _ = finished
    assert "\x1b" not in process.stdout + process.stderr
    assert "\r" not in process.stdout + process.stderr
    for label in ("ZENITH, window=3", "SGD", "SGD + cosine"):
        assert f"\n| {label} " in process.stdout
    # A busy machine may say how long it will take; matplotlib, that its fonts are not listed yet.
    lines = [x for x in process.stderr.splitlines() if not x.startswith("Matplotlib is building")]
    left = r"(, \d+ min left)?"
    every = rf"experiments: seed \d of 2, .*\d+ of 16 steps{left}"
    assert all(re.fullmatch(every, line) for line in lines)
    for seed, steps in ((1, 8), (2, 16)):
        last = rf"experiments: seed {seed} of 2, loss \d\.\d+, {steps} of 16 steps{left}"
        assert any(re.fullmatch(last, line) for line in lines)


def test_the_header_says_what_was_run_and_not_when_or_where(finished):
    header = read(finished[1] / "digits" / "zenith,window=3" / "seed-1.jsonl").header
    assert set(header.pop("made")) == {
        *(
            "zenith-optim",
            "python",
            "torch",
            "device",
            "threads",
            "clock",
            "cores",
            "together",
            "jobs",
        )
    }
    assert header == {
        "kind": "run",
        "format": 1,
        "task": "digits",
        "optimizer": "zenith",
        "seed": 1,
        "options": {"window": 3},
        "l2": 0.0,
        "hours": None,
        "log_every": 1,
        "train_images": 1347,
        "test_images": 450,
        "batch": 300,
        "steps": 4,
        "epochs": 1.0,
        "segments": 2,
        "parameters": 53002,
    }


def test_report_makes_the_same_again(finished, capsys):
    process, out = finished
    before = {name: (out / name).read_bytes() for name in files(out)}
    (out / "digits" / "summary.json").unlink()
    (out / "digits" / "picture.png").write_text("spoilt")
    assert main(["report", str(out)]) == 0
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert capsys.readouterr().out == process.stdout.replace("are in out", f"are in {out}")


def test_what_is_as_by_default_is_not_in_the_path(tmp_path, capsys, quick):
    given = ["--lr", "0.1", "--window", "500", "--momentum", "0"]
    assert main([*ONE, *given, "--out", str(tmp_path)]) == 0
    assert [path.parent.name for path in paths(tmp_path)] == ["sgd", "sgd-cosine", "zenith"]
    given = ["--lr", "0.05", "--window", "2", "--momentum", "0.9", "--log-every", "2"]
    assert main([*ONE, *given, "--out", str(tmp_path)]) == 0
    assert [path.parent.name for path in paths(tmp_path)] == [
        "sgd,lr=0.05,momentum=0.9",
        "sgd-cosine,lr=0.05,momentum=0.9",
        "zenith,lr=0.05,window=2,momentum=0.9",
    ]


def test_about_400_lines_for_a_run(tmp_path, quick):
    sizes = ["--epochs", "7", "--batch-size", "20", "--seeds", "1", "--optimizers", "sgd"]
    assert main(["demo", *sizes, "--out", str(tmp_path)]) == 0
    (path,) = paths(tmp_path)
    assert read(path).header["log_every"] == 2  # 7 * 67 steps
    assert len(read(path).steps) == 7 * 34


def test_any_optimizer_of_the_registry(tmp_path, capsys):
    options = ["--optimizers", "dowg, adamw-cosine,schedule-free", "--out", str(tmp_path)]
    assert main([*ONE, *options]) == 0
    printed = capsys.readouterr().out
    for label in ("DoWG", "AdamW + cosine", "schedule-free SGD"):
        assert f"\n| {label} " in printed


def test_a_second_run_replaces_the_first_and_leaves_what_is_the_users(tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    assert main([*ONE, "--seeds", "2"]) == 0
    Path("zenith-demo/notes.txt").write_text("the user's own")
    assert main([*ONE, "--lr", "0.2"]) == 0
    found = files(tmp_path / "zenith-demo")
    assert found[:2] == [".demo", "digits/sgd,lr=0.2/seed-0.jsonl"]
    assert found[4:] == ["notes.txt"]


def test_a_run_that_no_demo_made_is_not_replaced(tmp_path, monkeypatch, capsys, quick):
    monkeypatch.chdir(tmp_path)
    assert main(ONE) == 0
    own = ["run", "digits", "--optimizer", "adamw-cosine", "--epochs", "1"]
    assert main([*own, "--out", "zenith-demo"]) == 0
    before = files(tmp_path)
    capsys.readouterr()
    assert main([*ONE, "--lr", "0.2"]) == 2
    assert capsys.readouterr().err == (
        "experiments: error: zenith-demo/digits/adamw-cosine,epochs=1: no demo made this, so it is "
        "not replaced\n"
    )
    assert files(tmp_path) == before


def test_fashion_mnist_from_a_folder(tmp_path, capsys):
    data = write_fashion(tmp_path / "data")
    options = ["--data", "fashion-mnist", "--data-dir", str(data), "--out", str(tmp_path / "out")]
    assert main(["demo", *options, "--epochs", "2", "--window", "1", "--seeds", "1"]) == 0
    captured = capsys.readouterr()
    assert "fashion-mnist: 30 training and 10 test images" in captured.out
    assert "warning" not in captured.err


def test_a_window_longer_than_the_run_is_said(tmp_path, capsys, quick):
    options = [*ONE, "--out", str(tmp_path)]
    assert main([*options, "--window", "3"]) == 0
    assert capsys.readouterr().err.startswith(
        "experiments: warning: `--window` 3 is longer than the run of 2 steps, "
        "so ZENITH will be SGD at a constant rate\n"
    )
    assert main(options) == 0
    assert main([*options, "--window", "3", "--optimizers", "sgd"]) == 0
    assert "warning" not in capsys.readouterr().err


MISTAKES = [
    (["demo", "--epochs", "ten"], "`--epochs` must be an integer >= 1, got 'ten'"),
    (["demo", "--epochs", "0"], "`--epochs` must be an integer >= 1, got '0'"),
    (["demo", "--seeds", "-1"], "`--seeds` must be an integer >= 1, got '-1'"),
    (["demo", "--batch-size", "0"], "`--batch-size` must be an integer >= 1, got '0'"),
    (["demo", "--batch-size", "1348"], "`--batch-size` must be at most 1347, all images, got 1348"),
    (["demo", "--log-every", "0"], "`--log-every` must be an integer >= 1, got '0'"),
    (["demo", "--window", "0"], "`--window` must be an integer from 1 to 1000000, got '0'"),
    (["demo", "--window", "2.5"], "`--window` must be an integer from 1 to 1000000, got '2.5'"),
    (["demo", "--window", "1000001"], "an integer from 1 to 1000000, got '1000001'"),
    (["demo", "--lr", "fast"], "`--lr` must be a number > 0, at most 1e30, got 'fast'"),
    (["demo", "--lr", "0"], "`--lr` must be a number > 0, at most 1e30, got '0'"),
    (["demo", "--lr", "nan"], "`--lr` must be a number > 0, at most 1e30, got 'nan'"),
    (["demo", "--lr", "inf"], "`--lr` must be a number > 0, at most 1e30, got 'inf'"),
    (["demo", "--momentum", "1"], "`--momentum` must be at least 0 and below 1, got '1'"),
    (["demo", "--optimizers", "zenith,adam"], "`optimizer` must be one of sgd, pal, "),
    (["demo", "--optimizers", ""], ", got ''"),
    (["demo", "--optimizers", "sgd, sgd"], "`--optimizers` must name each one once, got sgd,sgd"),
    (["demo", "--optimizers", "dowg", "--lr", "1"], "`--lr` is no option of dowg, which takes no"),
    (["demo", "--data", "cifar"], "`task` must be one of digits, fashion-mnist, desk-a, "),
    (["demo", "--data-dir", "."], "the digits come with scikit-learn and take no folder, got ."),
    (
        ["demo", "--data", "fashion-mnist", "--data-dir", "none"],
        "none: must be a folder with the four .gz files of Fashion-MNIST, which Debian's package "
        "dataset-fashion-mnist brings, and github.com/zalandoresearch/fashion-mnist",
    ),
    (
        ["demo", "--data", "fashion-mnist", "--data-dir", "."],
        "train-images-idx3-ubyte.gz: cannot be read (No such file",
    ),
    (["demo", "--out", "file"], "`--out` must be a folder to write to, got file (File exists)"),
    (["demo", "--out", "file/below"], "`--out` must be a folder to write to, got file/below (Not"),
    (["demo", "--out", "/proc/zenith"], "`--out` must be a folder to write to, got /proc/zenith ("),
    (["demo", "--out", "."], "`--out` must be empty or hold an earlier demo, got ."),
    (["demo", "--nonsense"], "unrecognized arguments: --nonsense"),
    (["report", "none"], "none: holds no records of a run (TASK/OPTIMIZER/seed-N.jsonl)"),
    (["report", "no\nwhere"], "no where: holds no records of a run"),
    (["nonsense"], "invalid choice: 'nonsense'"),
    ([], "the following arguments are required: command"),
]


assert_one_line = partial(_commands.assert_one_line, program="experiments")


@pytest.mark.parametrize(("arguments", "complaint"), MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, arguments, complaint
):
    (tmp_path / "file").write_text("the user's own")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_one_line(captured.err, complaint)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_mistake_ends_the_process_with_2(tmp_path):
    process = command("demo", "--lr", "0", cwd=tmp_path)
    assert (process.returncode, process.stdout) == (2, "")
    assert_one_line(process.stderr, "`--lr`")


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch, capsys):
    def refuse(path, *arguments, **options):  # root may write anywhere
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert main([*ONE, "--out", str(tmp_path / "out")]) == 2
    message = f"{tmp_path / 'out' / '.demo'}: cannot be written (Permission denied)"
    assert_one_line(capsys.readouterr().err, message)


def without(folder, package):
    """The path of a child that does not find a package."""
    return os.pathsep.join([_commands.blocker(folder, package), environment()["PYTHONPATH"]])


@pytest.mark.parametrize("package", ["rich", "torch"])
def test_a_missing_extra_is_one_line_that_names_it(tmp_path, package):
    process = command("demo", cwd=tmp_path, PYTHONPATH=without(tmp_path, package))
    assert process.returncode == 2
    assert_one_line(process.stderr, f'{package} is not installed: pip install ".[demo]"')
    assert not (tmp_path / "zenith-demo").exists()


def test_a_missing_rival_is_one_line_that_names_its_package(tmp_path):
    path = without(tmp_path, "dog")
    process = command(*ONE, "--optimizers", "dog", cwd=tmp_path, PYTHONPATH=path)
    assert process.returncode == 2
    assert_one_line(process.stderr, "dog is not installed: pip install dog-optimizer")


RIVALS = ("dog", "parameterfree", "prodigyopt", "schedulefree", "dadaptation", "pytorch_optimizer")


def test_list_names_what_there_is_and_what_is_not_installed(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        f"import importlib.util as u\nfind = u.find_spec\n"
        f"u.find_spec = lambda name, *more: None if name in {RIVALS!r} else find(name, *more)\n"
    )
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    process = command("list", cwd=tmp_path, PYTHONPATH=path)
    assert (process.returncode, process.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in process.stdout.splitlines()]
    assert "digits run digits --optimizer NAME --out DIR" in lines
    assert "zenith ZENITH --lr 0.1 --window 500 --momentum 0" in lines
    assert "dog DoG (pip install dog-optimizer)" in lines
    assert {line.split()[-1][:-1] for line in lines if "pip install" in line} == {
        name.replace("dog", "dog-optimizer") for name in RIVALS
    }
    assert "Table 1 study table1" in lines


def test_help_loads_no_framework_and_names_where_fashion_mnist_comes_from():
    code = (
        "import sys; from experiments.__main__ import main;"
        "assert main(['demo', '--help']) == 0;"
        "assert not {'torch', 'numpy', 'sklearn', 'matplotlib', 'rich'} & set(sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment(), check=True, capture_output=True, text=True
    )
    text = " ".join(process.stdout.split())
    for option in ("data", "data-dir", "optimizers", "epochs", "lr", "window", "momentum", "seeds"):
        assert f"--{option} " in text
    for option in ("batch-size", "log-every", "out", "resume"):
        assert f"--{option} " in text
    assert "dataset-fashion-mnist" in text
    assert "github.com/zalandoresearch/fashion-mnist" in text
    assert "\x1b" not in text


def interrupted(folder, *options, when=lambda text: text.count('"kind":"eval"') >= 1):
    """Press Ctrl-C in an endless demo, once ZENITH's records are as wanted."""
    endless = ["demo", *SIZES, "--epochs", "1000000", "--log-every", "1", "--out", "out", *options]
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, *endless],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    run = "digits/zenith,window=3/seed-0.jsonl"
    while process.poll() is None:
        found = [p for p in folder.glob(f"out/**/{run}") if when(p.read_text())]
        if found:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.05)
    return process, *process.communicate()


def test_ctrl_c_keeps_what_was_finished_and_resume_goes_on(tmp_path):
    process, stdout, stderr = interrupted(tmp_path)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == (
        "experiments: interrupted; what was finished is kept in out, --resume goes on with it"
    )
    assert " of 1000000 epochs, 1 of 1 seeds begun" in stdout
    out = tmp_path / "out"
    evals = {len(read(path).evals) for path in paths(out)}
    assert len(evals) == 1  # the same for all three
    assert (out / "digits" / "picture.png").exists()
    assert not (out / "digits.partial").exists()
    assert [read(path).outcome for path in paths(out)] == [None] * 3

    (before,) = evals

    def further(text):
        return text.count('"kind":"eval"') > before

    process, _, _ = interrupted(tmp_path, "--resume", when=further)
    assert process.returncode == 130
    assert min(len(read(path).evals) for path in paths(out)) > before


def test_ctrl_c_leaves_an_earlier_demo_in_its_place(tmp_path, quick, capsys):
    assert main([*ONE, "--out", str(tmp_path / "out")]) == 0
    before = {path: path.read_bytes() for path in paths(tmp_path / "out")}
    process, _, stderr = interrupted(tmp_path)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == (
        "experiments: interrupted; the earlier demo is still in out, --resume goes on"
    )
    assert {path: path.read_bytes() for path in paths(tmp_path / "out" / "digits")} == before
    assert len(paths(tmp_path / "out" / "digits.partial")) == 3


def test_ctrl_c_before_anything_is_finished_leaves_the_earlier_demo(
    finished, tmp_path, monkeypatch, capsys, quick
):
    assert main([*ONE, "--out", str(tmp_path)]) == 0
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    capsys.readouterr()
    train = demo.train

    def stopped_at_once(task, runs, folder, resume, stopped):
        signal.raise_signal(signal.SIGINT)
        return train(task, runs, folder, resume, stopped)

    monkeypatch.setattr(demo, "train", stopped_at_once)
    listening = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main([*SHORT, "--out", str(tmp_path)]) == 130
    finally:
        signal.signal(signal.SIGINT, listening)
    assert capsys.readouterr().err == (
        "experiments: interrupted before the first epoch was finished; kept nothing\n"
    )
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_ctrl_c_outside_of_the_training(monkeypatch, capsys):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "load", interrupted)
    assert main(SHORT) == 130
    assert capsys.readouterr().err == "experiments: interrupted\n"


def test_a_full_disk_loses_neither_the_earlier_demo_nor_what_is_finished(
    tmp_path, monkeypatch, capsys, quick
):
    assert main([*ONE, "--out", str(tmp_path)]) == 0
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    write = Journal.write

    def full(journal, record):
        if journal.path.name == "seed-1.jsonl":
            raise UserError(f"{journal.path}: cannot be written (No space left on device)")
        return write(journal, record)

    monkeypatch.setattr(Journal, "write", full)
    assert main([*ONE, "--seeds", "2", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("cannot be written (No space left on device)\n")
    now = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    assert {name: now[name] for name in before} == before
    monkeypatch.undo()
    monkeypatch.setattr(demo, "report", lambda folder: None)
    assert main([*ONE, "--seeds", "2", "--resume", "--out", str(tmp_path)]) == 0
    assert len(paths(tmp_path / "digits")) == 6
    assert all(read(path).outcome == "finished" for path in paths(tmp_path))
    assert not (tmp_path / "digits.partial").exists()


def in_a_terminal(*arguments, cwd):
    """Run the command on a pseudo-terminal and return what it shows there."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", *arguments],
        cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS="120"),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


def test_a_terminal_gets_a_bar_and_a_box(tmp_path):
    shown = in_a_terminal(*SHORT, "--out", "out", cwd=tmp_path)
    assert "16/16" in shown
    assert "\x1b[" in shown
    assert "╭" in shown


@pytest.mark.parametrize("arguments", [["report"], ["--help"], ["list"]])
def test_a_closed_pipe_is_no_traceback_and_141(finished, tmp_path, arguments):
    ours, theirs = os.pipe()
    os.close(ours)
    folder = [str(finished[1])] if arguments == ["report"] else []
    process = subprocess.run(
        [sys.executable, "-m", "experiments", *arguments, *folder],
        env=environment(),
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    assert (process.returncode, process.stderr) == (141, "")


def test_a_terminal_without_the_signs_gets_escapes(finished, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main(["report", str(finished[1])]) == 0
    assert rb"\xb1" in shown.getvalue()


def test_the_summary_has_the_header_in_common(finished):
    summary = json.loads((finished[1] / "digits" / "summary.json").read_text())
    assert summary["run"]["task"] == "digits"
    assert list(summary["optimizers"]) == ["zenith,window=3", "sgd", "sgd-cosine"]
