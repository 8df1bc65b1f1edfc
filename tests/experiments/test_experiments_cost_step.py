"""A step alone, and as the work grows: what is run, what is printed of it. No time is judged."""

import json
import re
import statistics

import pytest
import torch

from experiments.__main__ import main
from experiments.cost import step, timed

FORMS = ["SGD fused", "ZENITH fused", "SGD default", "ZENITH default"]
NAMES = [
    *FORMS,
    "ZENITH fused, window 15,000",
    *(f"{name}, momentum" for name in FORMS),
    "ZENITH fused, momentum, window 15,000",
    "clip_grad_norm_ + SGD fused, cutting",
    "clip_grad_norm_ + ZENITH fused(grad_norm=), cutting",
    "ZENITH fused(max_grad_norm=), cutting",
    "clip_grad_norm_ + SGD fused, idle",
    "clip_grad_norm_ + ZENITH fused(grad_norm=), idle",
    "ZENITH fused(max_grad_norm=), idle",
    "ZENITH's norm alone",
    "get_total_norm alone",
]


def numbers(cell):
    return [float(part) for part in re.split(r"[\[\], ]+", cell) if part]


def test_every_variant_is_measured_and_compared(tmp_path, capsys):
    options = ["--models", "small", "--repetitions", "3", "--out", str(tmp_path)]
    assert main(["cost", "step", *options]) == 0
    document = json.loads((tmp_path / "step.json").read_text())
    assert document["made"]["threads"] == torch.get_num_threads()
    small = document["cases"]["small"]
    assert (small["parameters"], small["tensors"]) == (53_002, 8)
    assert list(small["variants"]) == NAMES
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "step.md").read_text()
    assert printed.startswith("| small: 53,002 parameters | ms | ratio | ms more | compared with |")
    for line, name in zip(printed.splitlines()[2:], NAMES, strict=True):
        shown, milliseconds, ratio, more, compared = line.removeprefix("| ").split(" | ")
        own = small["variants"][name]
        assert own["baseline"] == "SGD fused" + ", momentum" * (", momentum" in name)
        assert shown == name
        times, base = own["milliseconds"], small["variants"][own["baseline"]]["milliseconds"]
        assert float(milliseconds) == pytest.approx(statistics.median(times), rel=1e-3)
        if name == own["baseline"]:
            assert (ratio, more, compared) == ("", "", " |")
            continue
        assert compared == own["baseline"] + " |"
        ratios = sorted(a / b for a, b in zip(times, base, strict=True))
        found = numbers(ratio)
        assert found[0] == pytest.approx(ratios[1], abs=6e-4)
        assert found[1] == pytest.approx((ratios[0] + ratios[1]) / 2, abs=6e-4)
        assert found[2] == pytest.approx((ratios[1] + ratios[2]) / 2, abs=6e-4)
        differences = [a - b for a, b in zip(times, base, strict=True)]
        if float(milliseconds) < 100:
            assert numbers(more)[0] == pytest.approx(statistics.median(differences), abs=6e-4)


def test_the_variants_do_what_their_names_say():
    sub = step.subject([(3,), (2, 2)])
    norm = float(sub.norm())
    wanted = torch.nn.utils.parameters_to_vector(sub.originals).norm()
    assert norm == pytest.approx(float(wanted), rel=1e-6)
    variants = {v.name: v for v in [*step.optimizers(sub), *step.clippers(sub), *step.norms(sub)]}
    assert list(variants) == NAMES
    for variant in variants.values():
        variant.run()
        cut = "cutting" in variant.name
        assert float(sub.norm()) == pytest.approx(norm / 2 if cut else norm, rel=1e-4), variant
        variant.restore()
        assert float(sub.norm()) == norm
    told = variants["clip_grad_norm_ + ZENITH fused(grad_norm=), cutting"].run.args[1]
    last = told.zenith_metrics()["grad_norm"]  # of the whole gradient, not of what is left
    assert float(last) == pytest.approx(norm, rel=1e-6)


def test_the_steps_before_are_not_timed(monkeypatch):
    calls = []
    moments = iter([0.0, 9.0, 10.0, 11.0, 12.0, 15.0, 16.0, 18.0])
    monkeypatch.setattr(step, "stamp", lambda device: next(moments))
    variant = step.Variant("a", "a", lambda: calls.append("run"), lambda: calls.append("restore"))
    assert step.timed(variant, steps=3, before=1, device=torch.device("cpu"))() == 2000.0
    assert calls == ["run", "restore"] * 4


def test_a_window_is_full_from_the_start():
    sub = step.subject([(5,)])
    optimizer = step.filled(sub.params, window=3)
    optimizer.step()
    assert optimizer.zenith_state.count == 4
    mean = (2 + float(sub.norm())) / 3
    assert float(optimizer.zenith_metrics()["mean"]) == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("name", ["vgg19", "small"])
def test_a_network_on_noise_is_a_task(name):
    task = timed.constant(name, batch=2, width=0.1)
    batch = next(task.batches(seed=0, segment=0))
    loss = task.loss(task.network(), batch)
    assert loss.shape == ()
    assert task.evaluate(task.network()) == {}
    assert task.described() == {"batch": 2}


def test_scaling(tmp_path, capsys):
    options = ["--repetitions", "2", "--largest", "1000", "--out", str(tmp_path)]
    assert main(["cost", "scaling", *options]) == 0
    document = json.loads((tmp_path / "scaling.json").read_text())
    rows = document["axes"]
    assert {axis: [row[axis] for row in rows[axis]] for axis in rows} == {
        "parameters": [],
        "tensors": [10, 50, 200, 1000],
        "window": [50, 500],
    }
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "scaling.md").read_text()
    value, *medians, ratio, over = printed.splitlines()[-1].strip("| ").split(" | ")
    sgd, ours = (rows["window"][-1][name] for name in ("SGD", "ZENITH"))
    assert [value, *medians] == ["500", *(f"{statistics.median(x):.0f}" for x in (sgd, ours))]
    pairs = list(zip(ours, sgd, strict=True))
    assert numbers(ratio)[0] == pytest.approx(statistics.median(a / b for a, b in pairs), abs=6e-3)
    assert numbers(over)[0] == pytest.approx(statistics.median(a - b for a, b in pairs), abs=0.6)
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
