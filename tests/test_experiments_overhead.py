"""The measurement of table 1: what it counts, what it prints, and the command at toy length."""

import json
import statistics
import sys
import types

import pytest
import torch

from benchmarks import tried
from experiments import overhead
from experiments.__main__ import BENCHMARKS, main
from experiments.optimizers import OPTIMIZERS
from experiments.tasks.networks import vgg19
from zenith.torch import Zenith


def test_vgg19_is_that_of_the_paper():
    assert (
        sum(p.numel() for p in vgg19().parameters()) == 20_024_384 + 5_130
    )  # convolutions, and the linear layer
    assert vgg19()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.fixture(scope="module")
def seen():
    """What every optimizer was seen to do, in 8 iterations on a small network."""
    batch = torch.randn(4, 3, 32, 32), torch.arange(4)
    found = {}
    task = overhead.Constant(batch, width=0.03)
    for name in OPTIMIZERS:
        subject = overhead.Subject(task, name)
        for _ in range(2):
            subject.iterate()
        found[name] = overhead.observed(subject)
    return found


def test_forward_passes(seen):
    more = {"pal": 2, "lqa": 3, "gen": 1.5}
    for name, figures in seen.items():
        assert figures["forwards"] == more.get(name, 1), name


def test_memory_is_that_of_the_real_state(seen):
    wanted = {"sgd": 0, "pal": 1, "lqa": 0, "gen": 0, "cocob": 5, "dog": 1, "dowg": 1, "l4": 1}
    wanted |= {"sps": 0, "d-adaptation": 3, "adamw-cosine": 2, "schedule-free": 1}
    wanted |= {"zenith": 0, "sgd-cosine": 0, "ali-g": 0}
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


def test_the_command_prints_the_medians_of_paired_ratios(tmp_path, capsys):
    options = ["--batch", "2", "--repetitions", "3", "--width", "0.03", "--out", str(tmp_path)]
    main(["overhead", *options, "--optimizers", "zenith", "dog", "sgd-cosine"])
    document = json.loads((tmp_path / "overhead.json").read_text())
    assert list(document["optimizers"]) == ["sgd", "zenith", "dog", "sgd-cosine"]
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "overhead.md").read_text()
    assert (tmp_path / "overhead.png").read_bytes().startswith(b"\x89PNG")
    sgd = document["optimizers"]["sgd"]
    for line in printed.splitlines()[3:]:
        name, milliseconds, extra, within, paper, step, *_ = line.strip("| ").split(" | ")
        name = next(slug for slug, recipe in OPTIMIZERS.items() if recipe.label == name)
        own = document["optimizers"][name]
        median = statistics.median
        assert float(milliseconds) == pytest.approx(median(own["milliseconds"]), abs=0.051)
        pairs = zip(own["milliseconds"], sgd["milliseconds"], strict=True)
        wanted = median(100 * (ours / theirs - 1) for ours, theirs in pairs)
        assert float(extra.split()[0]) == pytest.approx(wanted, abs=0.051)
        pairs = list(zip(own["step milliseconds"], sgd["step milliseconds"], strict=True))
        over = 100 * median(a - b for a, b in pairs) / median(sgd["milliseconds"])
        assert float(within) == pytest.approx(over, abs=0.0051)
        assert float(step.split()[0]) == pytest.approx(median(a / b for a, b in pairs), abs=0.0051)
        assert paper == (f"{OPTIMIZERS[name].paper.extra:.1f}" if OPTIMIZERS[name].paper else "")


@pytest.mark.parametrize("name", ["keras", "optax"])
def test_another_framework_is_measured_by_its_benchmark(name, tmp_path, monkeypatch):
    seen = []
    module = types.SimpleNamespace(main=seen.append)
    monkeypatch.setitem(sys.modules, BENCHMARKS[name][0], module)
    main(["overhead", "--framework", name, "--batch", "4", "--out", str(tmp_path / "new")])
    file = tmp_path / "new" / f"overhead-{name}.json"
    rivals = ["--rivals"] if name == "optax" else []
    assert seen == [[*rivals, "--batch", "4", "--repetitions", "10", "--json", str(file)]]


def test_scaling(tmp_path, capsys):
    main(["scaling", "--repetitions", "2", "--largest", "1000", "--out", str(tmp_path)])
    document = json.loads((tmp_path / "scaling.json").read_text())
    rows = document["axes"]
    assert {axis: [row[axis] for row in rows[axis]] for axis in rows} == {
        "parameters": [],
        "tensors": [10, 50, 200, 1000],
        "window": [50, 500],
    }
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "scaling.md").read_text()
    last = printed.splitlines()[-1].strip("| ").split(" | ")
    sgd, ours = (statistics.median(rows["window"][-1][name]) for name in ("SGD", "ZENITH"))
    assert last[:3] == ["500", f"{sgd:.0f}", f"{ours:.0f}"]
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_tried_takes_the_steps_of_zenith(capsys):
    weights = {}
    inputs, labels = torch.randn(3, 100), torch.arange(3)
    for cls in (Zenith, tried.Hooked, tried.Reversed):
        model = tried.small()
        optimizer = cls(model.parameters(), lr=0.1, window=3)
        for shrinking in range(1, 8):
            optimizer.zero_grad()
            (torch.nn.functional.cross_entropy(model(inputs), labels) / shrinking).backward()
            optimizer.step()
        assert optimizer.get_last_lr()[0] < 0.07
        weights[cls] = torch.nn.utils.parameters_to_vector(model.parameters())
    torch.testing.assert_close(weights[tried.Hooked], weights[Zenith], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(weights[tried.Reversed], weights[Zenith], rtol=0, atol=0)

    names = ["Zenith", "Zenith, hooks"]
    tried.main(["--repetitions", "2", "--batch", "2", "--optimizers", *names])
    printed = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert printed == ["SGD", *names]
