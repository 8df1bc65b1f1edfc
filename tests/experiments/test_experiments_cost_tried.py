"""What was tried: it takes the steps of ZENITH, and is measured beside it."""

import json

import pytest
import torch

from experiments.__main__ import main
from experiments.cost import tried
from experiments.tasks.networks import small
from zenith.torch import Zenith


@pytest.mark.parametrize(
    ("cls", "tolerance"), [(tried.Hooked, 1e-5), (tried.Reversed, 0.0), (tried.Compiled, 1e-5)]
)
def test_it_takes_the_steps_of_zenith(cls, tolerance):
    images, labels = torch.randn(3, 1, 8, 8), torch.arange(3)
    weights = []
    for make in (Zenith, cls):
        torch.manual_seed(0)
        model = small(8)
        optimizer = make(model.parameters(), lr=0.1, window=3)
        if make is tried.Compiled:  # the compiler itself is not what is tested
            assert "Zenith.step" in optimizer._compiled.__qualname__
            optimizer._compiled = super(tried.Compiled, optimizer).step
        for shrinking in range(1, 8):
            weight = 1 / shrinking

            def closure(model=model, optimizer=optimizer, weight=weight):
                optimizer.zero_grad()
                loss = weight * torch.nn.functional.cross_entropy(model(images), labels)
                loss.backward()
                return loss

            assert optimizer.step(closure) > 0
        assert optimizer.get_last_lr()[0] < 0.07
        weights.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    torch.testing.assert_close(weights[1], weights[0], rtol=tolerance, atol=tolerance / 100)


def test_iterations_and_steps_are_compared_with_sgd(tmp_path, capsys):
    names = ["ZENITH", "ZENITH, hooks"]
    options = ["--repetitions", "2", "--models", "small", "--out", str(tmp_path)]
    assert main(["cost", "tried", *options, "--optimizers", *names]) == 0
    case = json.loads((tmp_path / "tried.json").read_text())["cases"]["small"]
    assert (case["parameters"], case["tensors"], case["batch"]) == (53_002, 8, 16)
    assert list(case["variants"]) == ["SGD", *names]
    for figures in case["variants"].values():
        assert figures["baseline"] == "SGD"
        pairs = zip(figures["milliseconds"], figures["step milliseconds"], strict=True)
        assert all(0 < within < whole for whole, within in pairs)
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in head.split("|")[2:8]] == [
        *("ms", "ratio", "ms more"),
        *("step: ms", "step: ratio", "step: ms more"),
    ]
    assert [row.split(" | ")[0] for row in rows] == ["| SGD", *(f"| {name}" for name in names)]
