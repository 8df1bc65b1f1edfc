"""The command as a process, as its users start it; and in this process, where that is the same."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from _commands import assert_one_line, blocker, environment, run

import zenith
from zenith import cli, readers

MISTAKES = [
    (["nonsense"], "invalid choice: 'nonsense'"),
    (["demo"], "invalid choice: 'demo'"),  # which is `python -m experiments demo`
    ([], "the following arguments are required: {replay,state}"),
    (["replay"], "the following arguments are required: NORMS"),
    (["replay", "file", "--nonsense"], "unrecognized arguments: --nonsense"),
    (["--vers"], "the following arguments are required: {replay,state}"),
    (["replay", "file", "--col", "norm"], "unrecognized arguments: --col norm"),
    (["replay", "file", "--lr", "fast"], "`--lr` must be a finite number >= 0, got 'fast'"),
    (["replay", "file", "--lr", "nan"], "`--lr` must be a finite number >= 0, got 'nan'"),
    (["replay", "no\nwhere"], "no where: cannot be read (No such file or directory)"),
    (["state"], "the following arguments are required: {show,convert}"),
    (["state", "show", "none"], "none: cannot be read (No such file or directory)"),
]


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


def test_a_mistake_ends_the_process_with_2(tmp_path):
    process = run("replay", "nowhere", cwd=tmp_path)
    assert (process.returncode, process.stdout) == (2, "")
    assert_one_line(process.stderr, "nowhere: cannot be read")


@pytest.fixture
def plain(tmp_path):
    """Run the command as after `pip install zenith-optim` alone."""
    everything = ("rich", "numpy", "matplotlib", "torch", "tensorboard", "h5py", "orbax")
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
        raise ModuleNotFoundError("No module named 'orbax.export'", name="orbax.export")

    monkeypatch.setattr(readers, "series", missing)
    assert cli.main(["replay", str(tmp_path)]) == 2
    advice = "orbax is not installed: pip install orbax-checkpoint"
    assert_one_line(capsys.readouterr().err, advice)


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
    assert cli.main(["replay", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("window", "lr", "column", "out"):
        assert f"--{option} " in text
    assert "\x1b" not in text


def test_help_names_every_command(tmp_path):
    printed = run("--help", cwd=tmp_path).stdout
    for command in ("replay", "state"):
        assert f"\n    {command} " in printed
    printed = run("state", "--help", cwd=tmp_path).stdout
    for command in ("show", "convert"):
        assert f"\n    {command} " in printed


def test_neither_help_nor_the_package_loads_a_framework():
    code = (
        "import sys, zenith, zenith.cli;"
        "zenith.cli.main(['replay', '--help']);"
        "assert not {'torch', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True, capture_output=True)


def test_ctrl_c(monkeypatch, capsys):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(readers, "series", interrupted)
    assert cli.main(["replay", "log.csv"]) == 130
    assert capsys.readouterr().err == "zenith: interrupted\n"


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["state", "show"]])
def test_a_closed_pipe_is_no_traceback_and_141(tmp_path, command):
    (tmp_path / "state.json").write_text(json.dumps(zenith.to_dict(zenith.init(2))))
    files = {"state": str(tmp_path / "state.json")}
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


def no_space():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write to a file does


def nobody_reads():
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        os.write(theirs, b"for a child")
    finally:
        os.close(theirs)


@pytest.mark.parametrize(
    ("work", "line"),
    [
        (Path("no\nwhere").read_bytes, "no where: No such file or directory"),
        (no_space, "No space left on device"),
        (nobody_reads, "Broken pipe"),
    ],
)
def test_what_fails_beside_the_output_is_not_called_the_output(capsys, work, line):
    assert cli.guarded("program", work) == 2
    assert capsys.readouterr().err == f"program: error: {line}\n"


def test_where_a_shell_has_closed_stdout_nothing_is_printed():
    command = ["sh", "-c", '"$0" -m zenith --version >&-', sys.executable]
    process = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_terminal_without_the_signs_gets_escapes(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text("grad_norm\u00b1\n1\n2\n", encoding="utf-8")
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    log, out = str(tmp_path / "log.csv"), str(tmp_path / "a.png")
    assert cli.main(["replay", log, "--window", "1", "--out", out]) == 0
    assert rb"\xb1" in shown.getvalue()
