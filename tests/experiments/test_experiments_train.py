"""The task and the training loop: what is drawn, who goes when, and which records come of it."""

import statistics

import pytest
import torch
from _demo import NAMES, TRAIN, questions, recorded, tiny, tiny_data

from experiments import run as running
from experiments.question import Question
from experiments.run import Run
from experiments.tasks import images, networks
from experiments.tasks.classify import Classify
from experiments.train import train


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def of(found, name, kind):
    return [record for other, record in found if other == name and record["kind"] == kind]


@pytest.fixture
def watched(monkeypatch):
    """The name and the images of each step."""
    seen = []
    step = Run.step

    def watch(run, batch):
        seen.append((run.question.optimizer, batch[0].sum().item()))
        return step(run, batch)

    monkeypatch.setattr(Run, "step", watch)
    return seen


@pytest.mark.parametrize(("size", "parameters"), [(8, 53_002), (28, 421_642)])
def test_network_for_either_size_of_image(size, parameters):
    model = networks.small(size)
    assert model(torch.zeros(3, 1, size, size)).shape == (3, 10)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_all_optimizers_start_from_the_same_weights_and_every_seed_from_its_own():
    first, second, third = (weights(Run(tiny(), q).model) for q in questions(seed=1))
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert not torch.equal(first, weights(Run(tiny(), Question("sgd", seed=0)).model))


def test_all_optimizers_see_the_same_batches(tmp_path, watched):
    recorded(tmp_path, seeds=1)
    seen = {name: [images for other, images in watched if other == name] for name in NAMES}
    assert len(seen["sgd"]) == 10
    assert seen["zenith"] == seen["sgd"] == seen["sgd-cosine"]


def test_who_goes_first_rotates(tmp_path, watched):
    recorded(tmp_path, seeds=1)
    turns = [name for name, _ in watched]
    assert [turns[3 * step] for step in range(5)] == [NAMES[step % 3] for step in range(5)]
    assert all(set(turns[3 * step : 3 * step + 3]) == set(NAMES) for step in range(10))


def test_batches_cover_each_epoch_once_in_an_order_that_the_seed_sets():
    numbered = torch.arange(10.0).reshape(10, 1, 1, 1)
    data = tiny_data()._replace(train_images=numbered, train_labels=torch.arange(10))
    task = Classify("digits", data, networks.small, batch=3, segments=2)

    def drawn(seed, segment):
        return [labels.tolist() for _, labels in task.batches(seed, segment)]

    assert [len(batch) for batch in drawn(4, 0)] == [3] * 3
    assert len({i for batch in drawn(4, 0) for i in batch}) == 9  # the tenth is left out
    assert drawn(4, 0) != drawn(4, 1)
    assert drawn(4, 0) == drawn(4, 0)
    assert drawn(4, 0) != drawn(5, 0)
    for batch, labels in task.batches(4, 1):
        assert batch.flatten().tolist() == labels.tolist()


def test_which_records_come_and_when(tmp_path):
    found = recorded(tmp_path, ("zenith", "sgd"), seeds=2, log_every=4)
    for name in ("zenith", "sgd"):
        assert [r["step"] for r in of(found, name, "step")] == [4, 5, 8, 10] * 2
        evals = of(found, name, "eval")
        assert [(r["segment"], r["step"], r["epoch"]) for r in evals] == [(1, 5, 1), (2, 10, 2)] * 2
        assert of(found, name, "end") == [{"kind": "end", "outcome": "finished", "step": 10}] * 2
    assert "scale" not in of(found, "sgd", "step")[0]


def test_losses_are_means_over_what_they_stand_for(tmp_path):
    each = [r["loss"] for r in of(recorded(tmp_path / "a", ["sgd"], 1), "sgd", "step")]
    found = recorded(tmp_path / "b", ["sgd"], 1, log_every=4)
    means = [statistics.fmean(part) for part in (each[:4], each[4:5], each[5:8], each[8:])]
    assert [r["loss"] for r in of(found, "sgd", "step")] == pytest.approx(means, rel=1e-5)
    means = [statistics.fmean(each[:5]), statistics.fmean(each[5:])]
    assert [r["train_loss"] for r in of(found, "sgd", "eval")] == pytest.approx(means, rel=1e-5)


def test_the_clock_counts_steps_and_no_evaluation(tmp_path, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(running.time, "process_time", lambda: next(ticks) * 0.5)
    found = recorded(tmp_path, seeds=1, log_every=5)
    for name in NAMES:
        assert [r["seconds"] for r in of(found, name, "step")] == [2.5, 5.0]
        assert [r["seconds"] for r in of(found, name, "eval")] == [2.5, 5.0]


def test_the_budget_in_hours_ends_a_run_after_a_segment(tmp_path, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(running.time, "process_time", lambda: next(ticks) * 3600)
    run = Run(tiny(segments=9), Question("sgd", hours=6))
    list(train(run.task, [run], tmp_path))
    assert (run.segment, run.steps) == (2, 10)


def test_accuracy_is_a_share_of_all_test_images(monkeypatch):
    task = tiny()
    right = torch.nn.functional.one_hot(task.data.test_labels, 10).float()
    right[:3] = right[:3].roll(1, dims=1)  # three of twelve wrong

    class Oracle(torch.nn.Module):
        def forward(self, images):
            return right

    assert task.evaluate(Oracle()) == {"test_accuracy": 75.0}
    model = networks.small(8)
    whole = task.evaluate(model)
    monkeypatch.setattr(images, "TEST_BATCH", 5)
    assert task.evaluate(model) == whole


def test_the_models_stay_apart():
    first, second = (Run(tiny(), question) for question in questions(("zenith", "sgd")))
    before = weights(second.model)
    first.step(next(tiny().batches(0, 0)))
    assert torch.equal(weights(second.model), before)
    assert not torch.equal(weights(first.model), before)
    assert len(before) > TRAIN


def test_runs_of_two_seeds_are_not_trained_together(tmp_path):
    runs = [Run(tiny(), Question("sgd", seed)) for seed in (0, 1)]
    with pytest.raises(ValueError, match="`runs` must be of one seed"):
        next(train(tiny(), runs, tmp_path))
