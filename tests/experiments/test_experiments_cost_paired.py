"""The one measurement: what it calls, in which order, and its figures worked out by hand."""

import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cost import paired

ROOT = Path(__file__).resolve().parents[2]


def test_every_repetition_calls_all_once_and_the_first_is_thrown_away():
    calls, ticks = [], itertools.count()

    def one(name):
        calls.append(name)
        return next(ticks)

    names = ["a", "b", "c"]
    runs = {name: lambda name=name: one(name) for name in names}
    samples = paired.interleaved(runs, repetitions=20)
    rounds = [calls[at : at + 3] for at in range(0, len(calls), 3)]
    assert len(rounds) == 21
    assert all(sorted(one) == names for one in rounds)
    assert len({tuple(one) for one in rounds}) == 6  # every order there is
    for name in names:
        wanted = [at for at, called in enumerate(calls) if called == name][1:]
        assert samples[name] == wanted


def test_the_order_is_the_same_in_every_run_and_leaves_random_alone():
    def orders():
        calls = []
        runs = {name: lambda name=name: calls.append(name) for name in "abcde"}
        paired.interleaved(runs, repetitions=4)
        return calls

    random.seed(3)
    expected = random.random()
    random.seed(3)
    assert orders() == orders()
    assert random.random() == expected


def test_a_clock_counts_the_milliseconds_of_a_step(monkeypatch):
    moments = iter([2.0, 2.5])
    monkeypatch.setattr(paired, "now", lambda: next(moments))
    done = []
    assert paired.clock(lambda: done.append(1), steps=4)() == 125.0
    assert done == [1]


@pytest.mark.parametrize(("cores", "moment"), [(1, 5.0), (2, 7.0)])
def test_a_process_with_one_core_is_timed_by_its_own_clock(monkeypatch, cores, moment):
    monkeypatch.setattr(paired.time, "process_time", lambda: 5.0)
    monkeypatch.setattr(paired.time, "perf_counter", lambda: 7.0)
    monkeypatch.setattr(paired, "cores", lambda: cores)
    assert paired.now() == moment


def test_the_cores_are_those_that_the_process_may_use():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from experiments.machine import cores; print(cores())"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout == "1\n"


def test_quartiles_by_hand():
    assert paired.quartiles([5.0, 1.0, 3.0, 2.0]) == {"q1": 1.75, "median": 2.5, "q3": 3.5}
    assert paired.quartiles([7.0]) == {"q1": 7.0, "median": 7.0, "q3": 7.0}


def test_figures_are_compared_within_a_repetition():
    # The second repetition is ten times slower, for both: the ratios do not see it.
    own, baseline = [3.0, 20.0, 1.0], [2.0, 10.0, 1.0]
    assert paired.ratios(own, baseline) == {"q1": 1.25, "median": 1.5, "q3": 1.75}
    assert paired.differences(own, baseline) == {"q1": 0.5, "median": 1.0, "q3": 5.5}
    with pytest.raises(ValueError, match="longer"):
        paired.ratios([1.0], [1.0, 2.0])


def test_a_spread_is_a_median_with_its_quartiles():
    assert paired.spread({"q1": 1.25, "median": 1.5, "q3": 1.756}, 2) == "1.50 [1.25, 1.76]"
    assert paired.spread({"q1": -4.4, "median": 0.6, "q3": 3.0}, 0) == "1 [-4, 3]"


def test_progress_is_shown_on_a_terminal_alone(monkeypatch, capsys):
    paired.interleaved({"a": lambda: None}, repetitions=2)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(paired.sys.stderr, "isatty", lambda: True, raising=False)
    paired.interleaved({"a": lambda: None}, repetitions=2)
    shown = [line.removeprefix("\033[K") for line in capsys.readouterr().err.split("\r")]
    assert shown == ["", "repetition 0 of 2", "repetition 1 of 2", ""]
