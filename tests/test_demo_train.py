import copy
import math
import statistics

import pytest
import torch
from _demo import TRAIN, tiny, tiny_data, tiny_records
from torch.nn.functional import cross_entropy

import zenith
from zenith.demo import train as training
from zenith.demo.model import network
from zenith.demo.optimizers import build
from zenith.demo.records import of_kind
from zenith.demo.settings import OPTIMIZERS, Plan
from zenith.demo.train import accuracy, batches, make_lanes, overhead, train


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def plain_loop(settings, plan, data, seed):
    """What anybody would write for SGD: the losses and the trained model."""
    torch.manual_seed(seed)
    model = network(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.lr, momentum=settings.momentum)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(plan.epochs):
        order = torch.randperm(TRAIN, generator=generator)
        for start in range(0, plan.steps_per_epoch * plan.batch_size, plan.batch_size):
            batch = order[start : start + plan.batch_size]
            optimizer.zero_grad()
            loss = cross_entropy(model(data.train_images[batch]), data.train_labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, model


@pytest.mark.parametrize(("size", "parameters"), [(8, 53_002), (28, 421_642)])
def test_network_for_either_size_of_image(size, parameters):
    model = network(size)
    assert model(torch.zeros(3, 1, size, size)).shape == (3, 10)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_all_optimizers_start_from_the_same_weights_and_every_seed_from_its_own():
    options = tiny()
    first, second, third = (weights(lane.model) for lane in make_lanes(*options, seed=1))
    assert torch.equal(first, second)
    assert torch.equal(first, third)
    assert not torch.equal(first, weights(make_lanes(*options, seed=0)[0].model))


def test_all_optimizers_see_the_same_batches(monkeypatch):
    seen = {name: [] for name in OPTIMIZERS}

    def watched(lane, images, labels, step=training.Lane.step):
        seen[lane.name].append(images.sum().item())
        step(lane, images, labels)

    monkeypatch.setattr(training.Lane, "step", watched)
    tiny_records(seeds=1)
    assert len(seen["sgd"]) == 10
    assert seen["zenith"] == seen["sgd"] == seen["sgd-cosine"]


def test_batches_cover_each_epoch_once_in_an_order_that_the_seed_sets():
    plan = Plan(epochs=2, batch_size=3, steps_per_epoch=3, steps=6, log_every=1)
    drawn = [batch.tolist() for batch in batches(plan, 10, seed=4)]
    assert [len(batch) for batch in drawn] == [3] * 6
    assert len({i for batch in drawn[:3] for i in batch}) == 9  # the tenth is left out
    assert drawn[:3] != drawn[3:]
    assert drawn == [batch.tolist() for batch in batches(plan, 10, seed=4)]
    assert drawn != [batch.tolist() for batch in batches(plan, 10, seed=5)]


def test_who_goes_first_rotates(monkeypatch):
    turns = []

    def watched(lane, images, labels, step=training.Lane.step):
        turns.append(lane.name)
        step(lane, images, labels)

    monkeypatch.setattr(training.Lane, "step", watched)
    tiny_records(seeds=1, epochs=1)
    assert [turns[3 * step] for step in range(5)] == [
        OPTIMIZERS[(step + 1) % 3] for step in range(5)
    ]
    assert all(set(turns[3 * step : 3 * step + 3]) == set(OPTIMIZERS) for step in range(5))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_in_step_with_others_is_the_plain_loop_bit_for_bit(monkeypatch, momentum):
    settings, plan, data = tiny(momentum=momentum, seeds=2, log_every=1)
    kept = {}

    def keeping(*arguments, make=training.make_lanes):
        lanes = make(*arguments)
        kept[arguments[-1]] = lanes
        return lanes

    monkeypatch.setattr(training, "make_lanes", keeping)
    records = list(train(settings, plan, data))
    for seed in (0, 1):
        losses, model = plain_loop(settings, plan, data, seed)
        lane = next(lane for lane in kept[seed] if lane.name == "sgd")
        assert lane.losses == losses
        assert torch.equal(weights(lane.model), weights(model))
        steps = [r for r in of_kind(records, "step", "sgd") if r["seed"] == seed]
        assert [r["loss"] for r in steps] == losses


def test_the_rates_in_force():
    records = tiny_records(seeds=1, log_every=1)
    assert [r["lr"] for r in of_kind(records, "step", "sgd")] == [0.1] * 10
    cosine = [r["lr"] for r in of_kind(records, "step", "sgd-cosine")]
    assert cosine[0] == 0.1
    assert cosine[5] == pytest.approx(0.05)
    expected = [0.05 * (1 + math.cos(math.pi * step / 10)) for step in range(10)]
    assert cosine == pytest.approx(expected)


def test_the_cosine_is_at_0_when_the_run_is_over():
    settings, plan, _ = tiny()
    optimizer, scheduler = build("sgd-cosine", network(8).parameters(), settings, plan.steps)
    for _ in range(plan.steps):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_the_numbers_of_zenith_follow_the_core():
    steps = of_kind(tiny_records(seeds=1, log_every=1), "step", "zenith")
    state = zenith.init(window=3)
    for record in steps:
        state = zenith.update(state, record["grad_norm"])
        for name in ("mean", "zenith", "scale"):
            assert record[name] == pytest.approx(getattr(state, name), rel=1e-5)
        assert record["lr"] == pytest.approx(0.1 * state.scale, rel=1e-5)
    assert len({record["scale"] for record in steps}) > 3


def test_momentum_reaches_every_optimizer():
    settings, _, _ = tiny(momentum=0.5, lr=0.3, window=7)
    for name in OPTIMIZERS:
        optimizer = build(name, network(8).parameters(), settings, 10).optimizer
        assert optimizer.param_groups[0]["momentum"] == 0.5
        assert optimizer.param_groups[0]["lr"] == 0.3
    assert (
        len(build("zenith", network(8).parameters(), settings, 10).optimizer.zenith_state.norms)
        == 7
    )


def test_which_records_come_and_when():
    records = tiny_records(seeds=2, log_every=4, optimizers=("zenith", "sgd"))
    for name in ("zenith", "sgd"):
        steps = of_kind(records, "step", name)
        assert [(r["seed"], r["step"], r["epoch"]) for r in steps] == [
            *[(0, 4, 1), (0, 8, 2), (0, 10, 2)],
            *[(1, 4, 1), (1, 8, 2), (1, 10, 2)],
        ]
        epochs = of_kind(records, "epoch", name)
        assert [(r["seed"], r["epoch"]) for r in epochs] == [(0, 1), (0, 2), (1, 1), (1, 2)]
        results = of_kind(records, "result", name)
        assert [(r["seed"], r["epoch"]) for r in results] == [(0, 2), (1, 2)]
        assert results[1]["train_loss"] == epochs[3]["train_loss"]
    assert "scale" not in of_kind(records, "step", "sgd")[0]


def test_losses_are_means_over_what_they_stand_for():
    every = [r["loss"] for r in of_kind(tiny_records(seeds=1, log_every=1), "step", "sgd")]
    records = tiny_records(seeds=1, log_every=4)
    fours = [r["loss"] for r in of_kind(records, "step", "sgd")]
    assert fours == [statistics.fmean(part) for part in (every[:4], every[4:8], every[8:])]
    epochs = [r["train_loss"] for r in of_kind(records, "epoch", "sgd")]
    assert epochs == [statistics.fmean(every[:5]), statistics.fmean(every[5:])]


def test_times_and_overhead_come_from_the_step_times(monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(training, "perf_counter", lambda: next(clock) * 0.5)
    for result in (r for r in tiny_records(seeds=1) if r["kind"] == "result"):
        assert result["seconds"] == 5.0  # ten steps of half a second
        assert result["step_ms"] == 500.0
        assert result["overhead_percent"] == {"q1": 0.0, "median": 0.0, "q3": 0.0}


def test_overhead_is_the_median_of_paired_ratios():
    # Ratios 1.5, 1.1, 3 and 1.3: their median is 1.4, while the ratio of the sums is 1.69.
    quartiles = overhead([3.0, 1.1, 6.0, 1.3], [2.0, 1.0, 2.0, 1.0])
    assert quartiles == pytest.approx({"q1": 25.0, "median": 40.0, "q3": 87.5})
    assert overhead([3.0], [2.0]) == {"q1": 50.0, "median": 50.0, "q3": 50.0}


def test_without_sgd_there_is_no_overhead():
    records = tiny_records(seeds=1, optimizers=("zenith", "sgd-cosine"))
    results = [r for r in records if r["kind"] == "result"]
    assert [r["overhead_percent"] for r in results] == [None, None]


def test_accuracy_is_a_share_of_all_test_images():
    data = tiny_data()
    right = torch.nn.functional.one_hot(data.test_labels, 10).float()
    right[:3] = right[:3].roll(1, dims=1)  # three of twelve wrong

    class Oracle(torch.nn.Module):
        def forward(self, images):
            return right

    assert accuracy(Oracle(), data) == 75.0


def test_accuracy_in_several_batches(monkeypatch):
    model, data = network(8), tiny_data()
    whole = accuracy(model, data)
    monkeypatch.setattr(training, "TEST_BATCH", 5)
    assert accuracy(model, data) == whole


def test_a_run_that_diverges_ends_and_says_so():
    records = tiny_records(seeds=1, lr=1e30, optimizers=("sgd",))
    result = records[-1]
    assert result["kind"] == "result"
    assert math.isnan(result["train_loss"])


def test_stopped_in_the_second_seed_the_first_is_whole():
    steps = iter([*[False] * 10, False, *[False] * 6, True, True])
    records = list(train(*tiny(seeds=5), stopped=lambda: next(steps)))
    results = of_kind(records, "result", "zenith")
    assert [(r["seed"], r["epoch"]) for r in results] == [(0, 2), (1, 1)]


def test_stopped_before_the_first_epoch_there_is_no_result():
    records = list(train(*tiny(), stopped=lambda: True))
    assert {r["kind"] for r in records} <= {"step"}


def test_the_models_stay_apart():
    lanes = make_lanes(*tiny(), seed=0)
    before = copy.deepcopy(lanes[1].model.state_dict())
    data = tiny_data()
    lanes[0].step(data.train_images, data.train_labels)
    assert all(torch.equal(a, before[name]) for name, a in lanes[1].model.state_dict().items())
