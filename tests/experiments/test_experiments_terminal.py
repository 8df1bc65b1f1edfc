"""Ctrl-C, and the progress: a bar in a terminal, now and then a line elsewhere."""

import signal
import sys

import pytest

from experiments import terminal
from experiments.terminal import interruptible, progress


@pytest.fixture
def listening():
    # pytest may run in a shell's background job, where Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_the_second_ctrl_c_acts_at_once():
    with interruptible() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("listening")
def test_an_ignored_ctrl_c_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible() as stopped:
        signal.raise_signal(signal.SIGINT)
        assert not stopped()


def test_in_a_pipe_a_line_at_most_every_ten_seconds_and_where_it_is_due(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock[0])
    with progress(30) as show:
        for step, now in [(1, 105.0), (2, 109.9), (3, 110.0), (4, 119.9), (5, 120.0), (6, 121.0)]:
            clock[0] = now
            show(step, "seed 1 of 3", False)
        show(10, "seed 1 of 3", True)
        show(11, "seed 2 of 3", False)
    assert capsys.readouterr() == (
        "",
        # 27 steps at 10 s for 3 are 90 s, 25 at 20 s for 5 are 100, and 20 at 21 s for 10 are 42
        "experiments: seed 1 of 3, 3 of 30 steps, 2 min left\n"
        "experiments: seed 1 of 3, 5 of 30 steps, 2 min left\n"
        "experiments: seed 1 of 3, 10 of 30 steps\n",
    )


@pytest.mark.parametrize(("ci", "bar"), [("", True), ("true", False)])
def test_a_ci_gets_no_bar_even_with_a_terminal(monkeypatch, capsys, ci, bar):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress(5) as show:
        show(5, "seed 1 of 1", False)
    assert ("5/5" in capsys.readouterr().err) == bar
