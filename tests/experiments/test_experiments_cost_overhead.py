"""The measurement of table 1: what it counts, what it prints, and the command at toy length."""

import json
import statistics

import pytest
import torch

from experiments.__main__ import main
from experiments.cost import overhead, timed
from experiments.optimizers import OPTIMIZERS


@pytest.fixture(scope="module")
def seen():
    """What every optimizer was seen to do, in 4 iterations on a small network."""
    found = {}
    task = timed.constant("vgg19", batch=4, width=0.03)
    for name, recipe in OPTIMIZERS.items():
        run = timed.Timed(task, name, recipe)
        run.timed(2)
        found[name] = overhead.observed(run)
    return found


def test_forward_passes(seen):
    more = {"pal": 2, "lqa": 3, "gen": 1.75, "gen-same-batch": 1.5, "signal-halves": 2}
    for name, figures in seen.items():
        assert figures["forwards"] == more.get(name, 1), name


def test_memory_is_that_of_the_real_state(seen):
    wanted = {"sgd": 0, "pal": 1, "lqa": 0, "gen": 1, "cocob": 5, "dog": 1, "dowg": 1, "l4": 1}
    wanted |= {"sps": 0, "d-adaptation": 3, "adamw-cosine": 2, "schedule-free": 1}
    wanted |= {"zenith": 0, "sgd-cosine": 0, "ali-g": 0, "gen-same-batch": 0}
    for name, models in wanted.items():
        assert seen[name]["memory"] == pytest.approx(models, abs=0.15), name


def test_reads_of_the_device(seen):
    assert seen["sgd"]["reads"] == 0
    assert seen["sps"]["reads"] == 2  # the loss, and the norm
    assert seen["d-adaptation"]["reads"] >= 2 * 34  # two for each of the tensors


def test_state_bytes_count_a_storage_once():
    x = torch.nn.Parameter(torch.zeros(10))
    optimizer = torch.optim.SGD([x], lr=0.1, momentum=0.9)
    x.grad = torch.ones(10)
    optimizer.step()
    assert overhead.state_bytes(optimizer, [x]) == 40
    optimizer.again = optimizer.state[x]["momentum_buffer"][:5]
    assert overhead.state_bytes(optimizer, [x]) == 40


def test_the_optimizers_part_is_what_no_closure_took(monkeypatch):
    task = timed.constant("small", batch=2)
    run = timed.Timed(task, "gen-same-batch", OPTIMIZERS["gen-same-batch"])
    ticks = iter(range(1000))
    monkeypatch.setattr(timed, "stamp", lambda device: float(next(ticks)))
    whole, own = run.timed(4)  # each stamp is a second after the one before
    closures = len(run.inside)
    assert closures > 4  # GeN's further passes are closures too
    assert whole == 1e3 * (2 * closures + 1) / 4
    assert own == 1e3 * (closures + 1) / 4


def test_what_is_timed_is_the_schedule_at_work():
    run = timed.Timed(timed.constant("small", batch=2), "zenith", OPTIMIZERS["zenith"])
    assert (run.optimizer.window, run.optimizer.zenith_state.count) == (500, 500)
    run.timed(3)
    state = run.optimizer.zenith_state
    assert state.count == 503
    assert state.scale < 1


def test_the_command_prints_the_medians_of_paired_ratios(tmp_path, capsys):
    options = ["--batch", "2", "--repetitions", "3", "--width", "0.03", "--out", str(tmp_path)]
    names = ["zenith", "dog", "sgd-cosine"]
    assert main(["cost", "overhead", *options, "--optimizers", *names]) == 0
    document = json.loads((tmp_path / "overhead.json").read_text())
    assert list(document["optimizers"]) == ["sgd", *names]
    assert (document["batch"], document["made"]["torch"]) == (2, torch.__version__)
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "overhead.md").read_text()
    assert (tmp_path / "overhead.png").read_bytes().startswith(b"\x89PNG")
    sgd = document["optimizers"]["sgd"]
    for line in printed.splitlines()[3:]:
        label, milliseconds, extra, within, paper, step, *_ = line.strip("| ").split(" | ")
        recipe = next(recipe for recipe in OPTIMIZERS.values() if recipe.label == label)
        own = document["optimizers"][names.pop(0)]
        median = statistics.median
        assert float(milliseconds) == pytest.approx(median(own["milliseconds"]), abs=0.051)
        pairs = zip(own["milliseconds"], sgd["milliseconds"], strict=True)
        wanted = median(100 * (ours / theirs - 1) for ours, theirs in pairs)
        assert float(extra.split()[0]) == pytest.approx(wanted, abs=0.051)
        pairs = list(zip(own["step milliseconds"], sgd["step milliseconds"], strict=True))
        over = 100 * median(a - b for a, b in pairs) / median(sgd["milliseconds"])
        assert float(within) == pytest.approx(over, abs=0.0051)
        assert float(step.split()[0]) == pytest.approx(median(a / b for a, b in pairs), abs=0.0051)
        assert paper == (f"{recipe.paper.extra:.1f}" if recipe.paper else "")
    assert names == []


def test_the_short_table_by_hand():
    def figures(step, memory):
        whole = [100.0 + ours for ours in step]
        return {"milliseconds": whole, "step milliseconds": step, "memory": memory}

    own, sgd = figures([3.0, 3.0, 3.0], 0.0), figures([2.0, 1.0, 2.0], 0.0)
    document = {"optimizers": {"sgd": sgd, "zenith": own, "sgd-cosine": sgd}}
    rows = overhead.short(document, ["zenith"]).splitlines()
    assert rows == [
        "|  | ZENITH |",
        "| --- | --: |",
        "| its step, in steps of SGD | 1.50 |",
        "| that step over SGD's, % of an iteration | 0.98 |",  # 1 of 102
        "| whole iterations over SGD's, % (SGD under a cosine: 0.0) | 1.0 |",
        "| memory, in models | 0 |",
    ]
