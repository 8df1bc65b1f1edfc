"""The paper's tasks: each network takes a real step, and each has its budget."""

import math

import pytest
import torch
from _published import WRITERS, reading

from experiments.question import Question
from experiments.run import Run
from experiments.tasks import PAPER, load
from experiments.tasks.vision import ROWS
from experiments.train import train

CLASSES = dict(zip(PAPER, (10, 10, 100, 101, 200, 100), strict=True))
# parameters, and the size at which a layer sees an image: as their authors have it, or larger
NETWORKS = {
    "mnist-efficientnet": (4_019_782, {"blocks": 28, "conv_head": 2}),
    "cifar10-vgg19": (20_024_384 + 5_130 + 2 * 5_504, {"0": 32, "52": 2}),
    "cifar100-resnet50": (23_705_252, {"layer1": 32, "layer4": 8}),
    "food101-dla": (15_280_917, {"level2": 112, "level5": 14}),
    "tinyimagenet-inception": (22_195_368, {"Mixed_5b": 28, "Mixed_7c": 6}),
    "imagenet100-densenet121": (7_056_356, {"features.denseblock1": 56, "features.norm5": 7}),
}


@pytest.fixture(params=PAPER)
def task(request, tmp_path, monkeypatch):
    folder = WRITERS[request.param](tmp_path, monkeypatch)
    return reading(load(request.param, folder, batch=2))


def test_a_real_step_of_zenith(task):
    run = Run(task, Question("zenith"))
    parameters, sizes = NETWORKS[task.name]
    seen = {}
    for name in sizes:
        layer = run.model.get_submodule(name)
        layer.register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0].shape[-1]}))
    before = [p.detach().clone() for p in run.model.parameters()]
    record = run.step(next(task.batches(0, 0)))

    assert sum(p.numel() for p in before) == parameters
    assert seen == sizes
    assert abs(record["loss"] - math.log(CLASSES[task.name])) < 2
    norm = torch.stack([p.grad.double().norm() for p in run.model.parameters()]).norm()
    assert record["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert (record["lr"], record["scale"]) == (0.1, 1.0)  # the window is not yet full
    for old, p in zip(before, run.model.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), old - 0.1 * p.grad)


def test_the_budget_is_the_papers_hours_and_epochs_enough(tmp_path, monkeypatch):
    hours = [ROWS[name].hours for name in PAPER]
    assert hours == [1, 1, 1, 5, 5, 10]
    assert {row.batch for row in ROWS.values()} == {128}
    folder = WRITERS["cifar10-vgg19"](tmp_path, monkeypatch)
    task = load("cifar10-vgg19", folder)
    assert (task.segments, task.epochs, task.hours) == (200, 1.0, 1)
    assert Run(task, Question("sgd")).header()["hours"] == 1
    assert Run(task, Question("sgd", hours=2)).header()["hours"] == 2
    chosen = load("cifar10-vgg19", folder, epochs=3)
    assert (chosen.segments, chosen.hours) == (3, None)
    assert Run(chosen, Question("sgd")).header()["hours"] is None


def test_a_run_of_a_paper_task_from_end_to_end(tmp_path, monkeypatch):
    folder = WRITERS["mnist-efficientnet"](tmp_path / "data", monkeypatch)
    task = reading(load("mnist-efficientnet", folder, epochs=2, batch=9))
    run = Run(task, Question("zenith"))
    records = [record for _, record in train(task, [run], tmp_path)]
    kinds = [record["kind"] for record in records]
    assert kinds == ["step", "step", "step", "eval"] * 2 + ["end"]
    measures = [record for record in records if record["kind"] == "eval"]
    assert all({"validation_accuracy", "test_accuracy"} < record.keys() for record in measures)
    assert run.header()["augmentation"] == "rotation 15, shift 0.1, crop 28 of 28 + 3 a side"
    assert run.header()["validation_images"] == 3
