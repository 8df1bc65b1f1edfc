"""What a run is asked besides its task's measures: by hand, and that it changes nothing."""

import math
from dataclasses import dataclass

import pytest
import torch
from _demo import tiny_data
from test_experiments_run import timeless
from torch import nn

from experiments import probes
from experiments.errors import UserError
from experiments.optimizers import OPTIMIZERS
from experiments.question import Question
from experiments.records import read
from experiments.run import Run
from experiments.tasks.classify import Classify
from experiments.train import train

ALL = tuple(probes.PROBES)
OWN = ("averaged", "cooldown", "full_norm", "line", "noise_share", "sharpness")


def network(size):
    layers = nn.Flatten(), nn.Linear(size**2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)
    return nn.Sequential(*layers)


class Graded(Classify):
    """With a measure that no two networks share."""

    def evaluate(self, model):
        with torch.no_grad():
            loss = self.loss(model, next(self.batches(99, 0))).item()
        return {**super().evaluate(model), "test_loss": loss}


def task(segments=3):
    """Epochs of five steps."""
    return Graded("digits", tiny_data(), network, batch=8, segments=segments)


def assessed(model, segment):
    """The loss of weights that have statistics of the batches of a segment."""
    for images, _ in task().batches(0, segment):
        model.train()(images)
    return task().evaluate(model.eval())["test_loss"]


def plain(record):
    return {name: x for name, x in record.items() if not name.startswith((*OWN, "probes"))}


def trained(question, folder, segments=3):
    run = Run(task(segments), question)
    list(train(run.task, [run], folder))
    return run, folder / question.path("digits")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_as_if_nobody_had_asked(name, tmp_path):
    run, path = trained(Question(name), tmp_path)
    random = torch.get_rng_state()
    asked, other = trained(Question(name, probes=ALL), tmp_path / "probes")
    assert torch.equal(torch.get_rng_state(), random)
    assert [plain(line) for line in timeless(other)] == timeless(path)
    for key, value in run.model.state_dict().items():
        assert torch.equal(asked.model.state_dict()[key], value)
    first, *_, last = read(other).evals
    assert {"averaged_accuracy", "noise_share", "sharpness", "line_-1.0", "line_0.0"} <= set(last)
    has_rate = name not in ("pal", "gen", "gen-same-batch", "cocob", "dowg", "l4", "sps-smooth")
    assert ("cooldown_accuracy" in first) == ("cooldown_averaged_accuracy" in first) == has_rate


@pytest.mark.parametrize("name", ["zenith", "schedule-free", "signal-ema-0.99", "dog-averaged"])
def test_a_run_that_is_resumed_measures_the_same(name, tmp_path):
    question = Question(name, probes=ALL)
    whole = trained(question, tmp_path / "whole")[1]
    cut = iter(range(8))  # in the second segment
    stopped = {"stopped": lambda: next(cut, None) is None}
    list(train(task(), [Run(task(), question)], tmp_path / "cut", **stopped))
    list(train(task(), [Run(task(), question)], tmp_path / "cut", resume=True))
    assert timeless(tmp_path / "cut" / question.path("digits")) == timeless(whole)


def test_each_probe_is_due_at_its_points(tmp_path, monkeypatch):
    monkeypatch.setattr(probes.landscape, "LEVELS", (2.2, 1.9))
    path = trained(Question("sgd", probes=ALL), tmp_path, segments=20)[1]
    evals = read(path).evals

    def at(name):
        return [line["segment"] for line in evals if name in line]

    assert at("averaged_accuracy") == list(range(1, 21))
    assert at("cooldown_accuracy") == [2, 6, 10, 14, 18]
    assert at("noise_share") == at("full_norm") == [3, 5, 8, 10, 13, 15, 18, 20]
    assert at("line_0.0") == [20]
    below = [next(e["segment"] for e in evals if e["train_loss"] < loss) for loss in (2.2, 1.9)]
    assert at("sharpness") == at("sharpness_loss") == sorted({*below, 20})
    assert len(at("sharpness")) == 3


def test_a_question_without_probes_is_as_it_was():
    assert "probes" not in Run(task(), Question("sgd")).header()
    assert Run(task(), Question("sgd", probes=("line",))).header()["probes"] == ["line"]
    assert Question("sgd", l2=0.5, probes=("line", "noise")).name == "sgd,l2=0.5"
    with pytest.raises(UserError, match=r"`probes` must be of average, cooldown, .*, got 'edges'"):
        Run(task(), Question("sgd", probes=("edges",)))


def test_the_average_is_that_of_the_weights_with_statistics_of_its_own():
    run = Run(task(), Question("sgd", probes=("average",)))
    weights = []
    for batch in run.task.batches(0, 0):
        run.step(batch)
        weights.append(run.model[1].weight.detach().clone())
    mean = weights[0]
    for weight in weights[1:]:
        mean = 0.998 * mean + 0.002 * weight
    torch.testing.assert_close(run.average.module[1].weight, mean)
    found = run.finish_segment()
    model = network(8)
    model.load_state_dict(run.average.module.state_dict())
    assert found["averaged_loss"] == assessed(model, segment=1)
    assert found["averaged_loss"] != found["test_loss"]
    assert "averaged_accuracy" in found


def test_a_cooldown_is_the_plain_loop_at_a_rate_that_falls():
    run = Run(task(segments=6), Question("sgd-cosine", probes=("average", "cooldown")))
    for segment in range(2):
        for batch in run.task.batches(0, segment):
            run.step(batch)
        found = run.finish_segment()
    rate = 0.05 * (1 + math.cos(math.pi * 9 / 30))  # of the last step: the scheduler rests
    model, mean = network(8), network(8)
    model.load_state_dict(run.model.state_dict())
    mean.load_state_dict(run.average.module.state_dict())
    for i, (images, labels) in zip(range(3), run.task.batches(0, 2), strict=False):
        model.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        with torch.no_grad():
            for p, q in zip(model.parameters(), mean.parameters(), strict=True):
                p -= rate * (1 - i / 3) * p.grad
                q += 0.002 * (p - q)
    for ours, theirs in zip(mean.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)
    of_mean = assessed(mean, segment=2)
    assert found["cooldown_loss"] == pytest.approx(run.task.evaluate(model.eval())["test_loss"])
    assert found["cooldown_averaged_loss"] == pytest.approx(of_mean, rel=1e-6)


def test_zenith_scales_the_rate_that_falls(monkeypatch):
    run = Run(task(segments=10), Question("zenith", options={"window": 2}, probes=("cooldown",)))
    for batch in run.task.batches(0, 0):
        run.step(batch)
    seen, step = [], Run.step

    def watched(branch, batch):
        step(branch, batch)
        metrics = branch.optimizer.zenith_metrics()
        seen.append((metrics["lr"], metrics["scale"], branch.optimizer.zenith_state.count.item()))

    monkeypatch.setattr(Run, "step", watched)
    run.finish_segment()
    assert [count for *_, count in seen] == [6, 7, 8, 9, 10]
    scales = [scale for _, scale, _ in seen]
    assert min(scales) < 1
    falling = [0.1 * (1 - i / 5) * scale for i, scale in enumerate(scales)]
    assert [lr for lr, *_ in seen] == pytest.approx(falling, rel=1e-6)
    assert run.optimizer.param_groups[0]["lr"] == 0.1


@dataclass(frozen=True)
class Bowl:
    """Half of x A x, of x = (W, b), around what each batch has in the place of 0."""

    name: str = "bowl"
    steps: int = 4
    segments: int = 1
    epochs: float = 1.0
    threads: int | None = 1
    spread: float = 0.0

    def network(self):
        model = nn.Linear(2, 2).double()
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
            model.bias.copy_(torch.tensor([2.0, 0.0]))
        return model

    def batches(self, seed, segment):
        for shift in (-1.0, 1.0, -1.0, 1.0):
            yield torch.full((300,), shift * self.spread).double(), torch.zeros(300)

    def loss(self, model, batch):
        curved = torch.tensor([[0.5, 7.0], [-3.0, 2.0]]).double()
        around = model.weight - batch[0].mean()
        return ((curved * around.square()).sum() + model.bias.square().sum()) / 2

    def evaluate(self, model):
        return {}

    def described(self):
        return {}


def test_sharpness_is_the_top_eigenvalue():
    run = Run(Bowl(), Question("sgd"))
    batches = [batch[0:2] for batch in Bowl().batches(0, 0)]
    assert probes.landscape.top_eigenvalue(run.task, run.model, batches) == pytest.approx(7.0)
    with torch.no_grad():
        run.model.weight.fill_(math.nan)
    found = probes.landscape.top_eigenvalue(run.task, run.model, batches)
    assert found == pytest.approx(7.0)  # a quadratic has one Hessian, wherever


def test_sharpness_comes_with_the_loss_of_the_weights_it_is_taken_at():
    run = Run(Bowl(), Question("sgd", probes=("sharpness",)))
    run.segment, run.train_losses = 1, [0.5]  # whatever the mean of the segment is
    found = probes.measured(run)
    assert found["sharpness_loss"] == (0.5 * 9 + 7 * 16 + 2 * 1 + 4) / 2
    assert found["sharpness"] == pytest.approx(7.0)


def test_sharpness_of_a_classifier_is_that_of_its_whole_hessian():
    model, data = nn.Linear(4, 3).double(), torch.randn(20, 4).double()
    labels = torch.arange(20) % 3

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def of(vector):
        weights = {"weight": vector[:12].reshape(3, 4), "bias": vector[12:]}
        return nn.functional.cross_entropy(torch.func.functional_call(model, weights, data), labels)

    whole = torch.autograd.functional.hessian(of, nn.utils.parameters_to_vector(model.parameters()))
    batches = [(data[:12], labels[:12]), (data[12:], labels[12:])]
    one = type("Task", (), {"loss": staticmethod(loss)})
    found = probes.landscape.top_eigenvalue(one, model, batches)
    assert found == pytest.approx(torch.linalg.eigvalsh(whole)[-1].item(), rel=1e-3)


def test_a_line_goes_as_far_as_each_filter_is_long():
    run = Run(Bowl(), Question("sgd", probes=("line",)))
    run.segment = 1
    found = probes.measured(run)
    assert list(found) == [f"line_{i / 10:.1f}" for i in range(-10, 11)]
    at = {float(name.removeprefix("line_")): loss for name, loss in found.items()}
    assert at[0.0] == (0.5 * 9 + 7 * 16 + 2 * 1 + 4) / 2
    # A quadratic rises by the same to both sides: by half of d A d, d of rows as long as 5 and 1.
    torch.manual_seed(0)
    drawn = torch.randn(2, 2, dtype=torch.float64)
    drawn *= torch.tensor([[5.0], [1.0]]) / drawn.norm(dim=1, keepdim=True)
    curved = torch.tensor([[0.5, 7.0], [-3.0, 2.0]])
    rise = (curved * drawn.square()).sum().item() / 2
    assert (at[0.5] + at[-0.5]) / 2 - at[0.0] == pytest.approx(0.25 * rise)


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_the_share_of_noise(spread):
    run = Run(Bowl(spread=spread), Question("sgd", probes=("noise",)))
    run.segment = 1
    found = probes.measured(run)
    # The full gradient is (1.5, 28, 0, 2) and (2, 0); the noise -+ spread * (0.5, 7, -3, 2).
    full = 1.5**2 + 28**2 + 2**2 + 2**2
    noise = spread**2 * (0.5**2 + 7**2 + 3**2 + 2**2)
    assert found["full_norm"] == pytest.approx(math.sqrt(full))
    assert found["noise_share"] == pytest.approx(noise / (full + noise), abs=1e-12)
