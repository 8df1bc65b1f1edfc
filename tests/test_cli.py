"""The command as a process, as its users start it; and in this process, where that is the same."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _demo import write_fashion

import zenith
from zenith import cli
from zenith.demo import run as running
from zenith.demo import terminal
from zenith.demo.settings import OPTIMIZERS

SHORT = ["demo", "--epochs", "2", "--batch-size", "300", "--window", "3", "--seeds", "2"]  # 8 steps
ADVICE = 'is not installed: pip install "zenith-optim[demo]"'
# pytest may run in a shell's background job, where Ctrl-C is ignored, which a child inherits.
LISTENING = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from zenith.cli import main; sys.exit(main())"
)


def environment(**variables):
    source = str(Path(zenith.__file__).parents[1])
    inherited = {k: v for k, v in os.environ.items() if k not in ("CI", "PYTHONPATH")}
    return (
        inherited
        | {"PYTHONPATH": source, "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
        | variables
    )


def run(*arguments, cwd, **variables):
    return subprocess.run(
        [sys.executable, "-m", "zenith", *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run over the pipe, although the environment asks for colours."""
    folder = tmp_path_factory.mktemp("finished")
    process = run(*SHORT, "--out", "out", cwd=folder, FORCE_COLOR="1", GITHUB_ACTIONS="true")
    return process, folder / "out"


def test_a_run_writes_its_files_and_nothing_else(finished):
    process, out = finished
    assert (process.returncode, process.stderr) == (0, "")
    assert sorted(p.name for p in out.iterdir()) == ["picture.png", "records.jsonl", "summary.json"]
    assert process.stdout.endswith("records.jsonl, summary.json and picture.png are in out\n")


def test_a_pipe_gets_no_colours_and_no_bar(finished):
    process, _ = finished
    assert "\x1b" not in process.stdout
    assert "\r" not in process.stdout
    for name in OPTIMIZERS:
        assert f"\n| {name} " in process.stdout


def test_the_header_says_what_was_run_and_not_when_or_where(finished):
    _, out = finished
    header = json.loads((out / "records.jsonl").read_text().splitlines()[0])
    assert set(header.pop("versions")) == {"python", "torch", "zenith-optim"}
    assert header == {
        "kind": "run",
        "format": 1,
        "data": "digits",
        "optimizers": list(OPTIMIZERS),
        "epochs": 2,
        "lr": 0.1,
        "window": 3,
        "momentum": 0.0,
        "seeds": 2,
        "batch_size": 300,
        "log_every": 1,
        "steps_per_epoch": 4,
        "steps": 8,
        "train_images": 1347,
        "test_images": 450,
        "parameters": 53002,
        "threads": 1,
    }


def test_report_makes_the_same_again(finished, capsys):
    process, out = finished
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    (out / "summary.json").unlink()
    (out / "picture.png").write_text("spoilt")
    assert cli.main(["report", str(out)]) == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert capsys.readouterr().out == process.stdout.replace("are in out", f"are in {out}")


def test_a_second_run_replaces_the_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "report", lambda out: None)
    options = ["--epochs", "1", "--batch-size", "600", "--seeds", "1", "--window", "2"]
    assert cli.main(["demo", *options]) == 0
    first = (tmp_path / "zenith-demo" / "records.jsonl").read_text()
    assert cli.main(["demo", *options, "--lr", "0.2"]) == 0
    second = (tmp_path / "zenith-demo" / "records.jsonl").read_text()
    assert '"lr":0.2' in second.splitlines()[0]
    assert first != second
    assert capsys.readouterr().err == ""


def test_fashion_mnist_from_a_folder(tmp_path, capsys):
    data = write_fashion(tmp_path / "data")
    options = ["--data", "fashion-mnist", "--data-dir", str(data), "--out", str(tmp_path / "out")]
    assert cli.main(["demo", *options, "--epochs", "2", "--window", "1", "--seeds", "1"]) == 0
    captured = capsys.readouterr()
    assert "fashion-mnist: 30 training and 10 test images" in captured.out
    assert captured.err == ""


def test_a_window_longer_than_the_run_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "report", lambda out: None)
    options = ["--epochs", "1", "--batch-size", "600", "--seeds", "1", "--out", str(tmp_path)]
    assert cli.main(["demo", *options, "--window", "3"]) == 0
    assert capsys.readouterr().err == (
        "zenith: warning: `--window` 3 is longer than the run of 2 steps, "
        "so ZENITH will be SGD at a constant rate\n"
    )
    assert cli.main(["demo", *options, "--window", "2"]) == 0
    assert cli.main(["demo", *options, "--window", "3", "--optimizers", "sgd"]) == 0
    assert capsys.readouterr().err == ""


MISTAKES = [
    (["demo", "--epochs", "ten"], "'--epochs': must be an integer, got 'ten'"),
    (["demo", "--epochs", "0"], "`--epochs` must be an integer >= 1, got 0"),
    (["demo", "--seeds", "-1"], "`--seeds` must be an integer >= 1, got -1"),
    (["demo", "--batch-size", "0"], "`--batch-size` must be an integer >= 1, got 0"),
    (["demo", "--batch-size", "1348"], "`--batch-size` must be at most 1347, all images, got 1348"),
    (["demo", "--log-every", "0"], "`--log-every` must be an integer >= 1, got 0"),
    (["demo", "--window", "0"], "`--window` must be an integer >= 1, got 0"),
    (["demo", "--window", "2.5"], "'--window': must be an integer, got '2.5'"),
    (["demo", "--window", "1000001"], "`--window` must be at most 1000000, got 1000001"),
    (["demo", "--lr", "fast"], "'--lr': must be a number, got 'fast'"),
    (["demo", "--lr", "0"], "`--lr` must be a finite number > 0, got 0.0"),
    (["demo", "--lr", "nan"], "`--lr` must be a finite number > 0, got nan"),
    (["demo", "--lr", "inf"], "`--lr` must be a finite number > 0, got inf"),
    (["demo", "--momentum", "1"], "`--momentum` must be at least 0 and below 1, got 1.0"),
    (["demo", "--optimizers", "zenith,adam"], "one of zenith, sgd, sgd-cosine, got 'adam'"),
    (["demo", "--optimizers", ""], "one of zenith, sgd, sgd-cosine, got ''"),
    (["demo", "--optimizers", "sgd, sgd"], "`--optimizers` must name each one once, got sgd,sgd"),
    (["demo", "--data", "cifar"], "`--data` must be one of digits, fashion-mnist, got 'cifar'"),
    (["demo", "--data-dir", "."], "`--data-dir` must come with `--data fashion-mnist`, got ."),
    (["demo", "--data", "fashion-mnist", "--data-dir", "none"], "must be a folder with the four"),
    (["demo", "--data", "fashion-mnist", "--data-dir", "."], "train-images-idx3-ubyte.gz: no such"),
    (["demo", "--out", "file"], "`--out` must be a folder to write to, got file (File exists)"),
    (["demo", "--out", "file/below"], "`--out` must be a folder to write to, got file/below (Not"),
    (["demo", "--out", "/proc/zenith"], "`--out` must be a folder to write to, got /proc/zenith ("),
    (["demo", "--out", "."], "`--out` must be empty or hold an earlier run's records.jsonl, got ."),
    (["demo", "--nonsense"], "No such option: --nonsense"),
    (["report"], "Missing argument 'DIR'"),
    (["report", "none"], "none/records.jsonl: cannot be read (No such file or directory)"),
    (["nonsense"], "invalid choice: 'nonsense'"),
    ([], "the following arguments are required: {demo,report,replay,state}"),
]


def assert_one_line(stderr, complaint):
    assert stderr.startswith("zenith: error: ")
    assert stderr.count("\n") == 1
    assert stderr.endswith("\n")
    assert complaint in stderr


@pytest.mark.parametrize(("arguments", "complaint"), MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, arguments, complaint
):
    (tmp_path / "file").write_text("the user's own")
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_one_line(captured.err, complaint)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "mistake", [["demo", "--epochs", "ten"], ["demo", "--lr", "0"], ["report", "no\nwhere"], []]
)
def test_a_mistake_ends_the_process_with_2(tmp_path, mistake):
    process = run(*mistake, cwd=tmp_path)
    assert process.returncode == 2
    assert process.stdout == ""
    assert_one_line(process.stderr, "")


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch, capsys):
    def refuse(path, *arguments, open=Path.open, **options):  # root may write anywhere
        if tmp_path in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 2
    message = f"`--out` must be a folder to write to, got {tmp_path / 'out'} (Permission denied)"
    assert_one_line(capsys.readouterr().err, message)


def blocker(folder, *packages):
    """Return a folder which, on the path, makes packages look as if they were not installed."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {packages!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )
    return str(folder)


@pytest.mark.parametrize("package", ["typer", "torch"])
def test_a_missing_extra_is_one_line_that_names_it(tmp_path, package):
    path = os.pathsep.join([blocker(tmp_path, package), environment()["PYTHONPATH"]])
    process = run("demo", "--out", "out", cwd=tmp_path, PYTHONPATH=path)
    assert process.returncode == 2
    assert_one_line(process.stderr, f"{package} {ADVICE}")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def plain(tmp_path):
    """Run the command as after `pip install zenith-optim` alone."""
    everything = ("typer", "rich", "numpy", "matplotlib", "torch", "tensorboard", "h5py", "orbax")
    (tmp_path / "site").mkdir()
    hidden = blocker(tmp_path / "site", *everything, "jax", "keras", "tensorflow", "sklearn")
    path = os.pathsep.join([hidden, environment()["PYTHONPATH"]])
    return lambda *arguments: run(*arguments, cwd=tmp_path, PYTHONPATH=path)


def test_a_plain_install_has_version_help_state_and_replay(plain, tmp_path):
    assert plain("--version").stdout.startswith("zenith-optim ")
    assert plain("replay", "--help").returncode == 0
    state = zenith.update(zenith.init(window=1), 3.0)
    (tmp_path / "state.json").write_text(json.dumps(zenith.to_dict(state)))
    shown = plain("state", "show", "state.json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "grad_norm 3.0" in shown.stdout
    assert json.loads(plain("state", "convert", "state.json").stdout) == zenith.to_dict(state)

    (tmp_path / "log.csv").write_text("step,grad_norm\n1,3\n2,5\n3,1\n4,1\n")
    replayed = plain("replay", "log.csv", "--window", "2")
    assert replayed.returncode == 0
    assert replayed.stdout.splitlines()[2].split()[:4] == ["2", "2", "4", "1"]
    advice = 'matplotlib is not installed: pip install "zenith-optim[plot]"'
    assert replayed.stderr == f"zenith: warning: there is no picture: {advice}\n"
    wanted = plain("replay", "log.csv", "--out", "a.png")
    assert wanted.returncode == 2
    assert_one_line(wanted.stderr, advice)


def test_a_plain_install_names_the_reader_that_a_file_needs(plain, tmp_path):
    files = {
        "run.pt": (b"\x80\x02", 'torch is not installed: pip install "zenith-optim[torch]"'),
        "a.weights.h5": (b"\x89HDF\r\n\x1a\n", "h5py is not installed: pip install h5py"),
        "orbax/_METADATA": (b"{}", "jax is not installed: pip install orbax-checkpoint"),
    }
    for name, (content, advice) in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        process = plain("state", "show", name.partition("/")[0])
        assert process.returncode == 2
        assert_one_line(process.stderr, advice)
    (tmp_path / "events.out.tfevents.1").touch()
    process = plain("replay", ".")
    assert_one_line(process.stderr, "tensorboard is not installed: pip install tensorboard")
    assert process.returncode == 2


def test_a_part_of_a_missing_package_names_the_package(tmp_path, monkeypatch, capsys):
    def missing(*_arguments):
        raise ModuleNotFoundError("No module named 'sklearn.datasets'", name="sklearn.datasets")

    monkeypatch.setattr(running, "load", missing)
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    assert_one_line(capsys.readouterr().err, f"sklearn {ADVICE}")


def test_a_fault_of_our_own_is_no_missing_extra(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("grad_norm\n1\n2\n")
    monkeypatch.setitem(sys.modules, "zenith.plot", None)
    with pytest.raises(ModuleNotFoundError, match=r"zenith\.plot"):
        cli.main(["replay", "log.csv"])


def test_version_and_help(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("zenith-optim ")
    assert cli.main(["demo", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("data", "data-dir", "optimizers", "epochs", "lr", "window", "momentum", "seeds"):
        assert f"--{option} " in text
    assert "\x1b" not in text


def test_help_names_every_command(tmp_path):
    printed = run("--help", cwd=tmp_path).stdout
    for command in ("demo", "report", "replay", "state"):
        assert f"\n    {command} " in printed
    printed = run("state", "--help", cwd=tmp_path).stdout
    for command in ("show", "convert"):
        assert f"\n    {command} " in printed


def test_neither_help_nor_the_package_loads_a_framework():
    code = (
        "import sys, zenith, zenith.cli;"
        "assert 'typer' not in sys.modules;"
        "zenith.cli.main(['demo', '--help']);"
        "assert not {'torch', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True)


def test_ctrl_c_keeps_what_was_finished(tmp_path):
    endless = [
        "demo",
        "--epochs",
        "1000000",
        "--batch-size",
        "300",
        "--window",
        "3",
        "--out",
        "out",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, *endless, "--log-every", "1"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    partial = tmp_path / "out" / "records.jsonl.partial"
    while process.poll() is None:
        if partial.exists() and partial.read_text().count('"kind":"epoch"') >= 3:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.05)
    stdout, stderr = process.communicate()
    assert stderr == "zenith: interrupted; what was finished is kept in out\n"
    assert process.returncode == 130
    assert " of 1000000 epochs, 1 of 3 seeds" in stdout
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert files == ["picture.png", "records.jsonl", "summary.json"]
    results = [
        json.loads(line)
        for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()
        if '"kind":"result"' in line
    ]
    assert [r["optimizer"] for r in results] == list(OPTIMIZERS)
    assert len({r["epoch"] for r in results}) == 1


def test_ctrl_c_before_anything_is_finished_leaves_the_earlier_run(
    finished, tmp_path, monkeypatch, capsys
):
    records = (finished[1] / "records.jsonl").read_text()
    (tmp_path / "records.jsonl").write_text(records)
    monkeypatch.setattr(running, "train", lambda *_: iter(()))
    assert cli.main([*SHORT, "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == (
        "zenith: interrupted before the first epoch was finished; kept nothing\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]
    assert (tmp_path / "records.jsonl").read_text() == records


def test_ctrl_c_outside_of_the_training(monkeypatch, capsys):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "load", interrupted)
    assert cli.main(SHORT) == 130
    assert capsys.readouterr().err == "zenith: interrupted\n"


@pytest.fixture
def listening():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_the_second_ctrl_c_acts_at_once():
    with terminal.interruptible() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("listening")
def test_an_ignored_ctrl_c_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with terminal.interruptible() as stopped:
        signal.raise_signal(signal.SIGINT)
        assert not stopped()


def in_a_terminal(*arguments, cwd, **variables):
    """Run the command on a pseudo-terminal and return what it shows there."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "zenith", *arguments],
        cwd=cwd,
        env=environment(TERM="xterm-256color", COLUMNS="120", **variables),
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


@pytest.mark.parametrize(("ci", "bar"), [("", True), ("true", False)])
def test_a_ci_gets_no_bar_even_with_a_terminal(monkeypatch, capsys, ci, bar):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    records = [{"kind": "step", "seed": 0, "step": 5, "loss": float("nan")}, {"kind": "epoch"}]
    assert list(terminal.track(records, seeds=1, steps=5)) == records
    assert ("5/5" in capsys.readouterr().err) == bar


@pytest.mark.parametrize("command", [["report"], ["--help"], ["--version"], ["state", "show"]])
def test_a_closed_pipe_is_no_traceback_and_141(finished, tmp_path, command):
    (tmp_path / "state.json").write_text(json.dumps(zenith.to_dict(zenith.init(2))))
    files = {"report": str(finished[1]), "state": str(tmp_path / "state.json")}
    ours, theirs = os.pipe()
    os.close(ours)
    process = subprocess.run(
        [sys.executable, "-m", "zenith", *command, *filter(None, [files.get(command[0])])],
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
    assert cli.main(["report", str(finished[1])]) == 0
    assert rb"\xb1" in shown.getvalue()
