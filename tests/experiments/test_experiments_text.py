"""The text: what is drawn of it, what the networks see, and that the shipped one is the one."""

import math
import random

import pytest
import torch
from test_experiments_run import timeless
from torch import nn

from experiments.errors import UserError
from experiments.probes import _points
from experiments.question import Question
from experiments.run import Run
from experiments.tasks import text as module
from experiments.tasks.text import LENGTH, NETWORKS, text
from experiments.train import train


@pytest.fixture
def written(tmp_path):
    """A text of 3,000 characters of five kinds, any window of which is in one place alone."""
    content = "".join(random.Random(0).choices("abcde", k=3000))
    path = tmp_path / "text.txt"
    path.write_text(content, encoding="utf-8")
    return path


def test_the_shipped_text_is_the_same_everywhere():
    task = text("text-gru", None, None, None)
    assert task.described() == {
        "train_images": 4274,
        "test_images": 534,
        "batch": 32,
        "length": 64,
        "vocabulary": 95,
        "text": "09da283bf60fee1d",
        "measure": "test_loss",
    }
    assert (task.steps, task.segments) == (133, 20)
    assert sum(map(len, task.parts.values())) == 341_925


def test_another_text_than_the_shipped_one_is_named(monkeypatch, written):
    monkeypatch.setattr(module, "DIGEST", "0" * 16)
    complaint = (
        r"must be `sklearn.cluster` of scikit-learn 1\.9\.1 \(SHA-256 0{16}...\), got that of"
    )
    with pytest.raises(UserError, match=complaint):
        text("text-gru", None, None, None)
    with pytest.raises(UserError, match="text must have 3040 characters or more for a batch of 37"):
        text("text-gru", written, None, 37)
    written.write_bytes(b"\xff" * 3000)
    with pytest.raises(UserError, match=r"text\.txt: not a text in UTF-8"):
        text("text-gru", written, None, 4)
    with pytest.raises(UserError, match="nowhere: cannot be read"):
        text("text-gru", written.parent / "nowhere", None, 4)


def test_windows_cover_the_text_once_an_epoch_and_are_followed_by_it(written):
    task = text("text-gru", written, 2, 4)
    whole = torch.cat(list(task.parts.values())).tolist()
    assert ["abcde"[i] for i in whole] == list(written.read_text())
    assert [len(part) for part in task.parts.values()] == [2400, 300, 300]
    learnt = whole[:2400]
    for segment in (0, 1):
        batches = list(task.batches(3, segment))
        assert len(batches) == task.steps == (2400 // LENGTH - 1) // 4
        places = []
        for inputs, targets in batches:
            assert inputs.shape == targets.shape == (4, LENGTH)
            assert torch.equal(inputs[:, 1:], targets[:, :-1])
            for window, after in zip(inputs.tolist(), targets.tolist(), strict=True):
                seen = [*window, after[-1]]
                places.append(next(i for i in range(2400) if learnt[i : i + LENGTH + 1] == seen))
        assert len({place % LENGTH for place in places}) == 1  # side by side
        assert len(set(places)) == len(places) == 4 * task.steps
    again = [inputs.tolist() for inputs, _ in task.batches(3, 1)]
    assert again == [inputs.tolist() for inputs, _ in batches]
    assert again != [inputs.tolist() for inputs, _ in task.batches(4, 1)]


def test_loss_and_accuracy_are_of_every_character(written):
    task = text("text-gru", written, 2, 4)

    class Sure(nn.Module):
        """Says the last letter with half of the probability, an eighth for each of the others."""

        def __init__(self):
            super().__init__()
            self.scores = nn.Parameter(torch.tensor([0.125] * 4 + [0.5]).log())

        def forward(self, characters):
            return self.scores.expand(*characters.shape, 5)

    found = task.evaluate(Sure())
    for part in ("test", "validation"):
        targets = task.parts[part][1 : 1 + 299 // LENGTH * LENGTH]
        share = (targets == 4).double().mean().item()
        loss = share * math.log(2) + (1 - share) * math.log(8)
        assert found[f"{part}_loss"] == pytest.approx(loss, rel=1e-6)
        assert found[f"{part}_accuracy"] == pytest.approx(100 * share)
    assert task.validation_loss(Sure()) == found["validation_loss"]
    batch = next(task.batches(0, 0))
    share = (batch[1] == 4).double().mean().item()
    wanted = share * math.log(2) + (1 - share) * math.log(8)
    assert task.loss(Sure(), batch).item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "parameters"), [("text-gru", 77_503), ("text-transformer", 83_423)]
)
def test_no_network_sees_what_is_to_come(name, parameters):
    torch.manual_seed(0)
    model = NETWORKS[name](95)
    assert sum(p.numel() for p in model.parameters()) == parameters
    characters = torch.randint(95, (2, LENGTH))
    other = characters.clone()
    other[:, 40:] = torch.randint(95, (2, LENGTH - 40))
    for training in (True, False):
        with torch.set_grad_enabled(training):
            scores, changed = (model.train(training)(x) for x in (characters, other))
        torch.testing.assert_close(scores[:, :40], changed[:, :40])
        assert not torch.allclose(scores[:, 40:], changed[:, 40:])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_on_a_text_resumes_and_can_be_probed(name, written, tmp_path, monkeypatch):
    monkeypatch.setattr(_points, "EXAMPLES", 4)
    task = text(name, written, 2, 4)
    question = Question("zenith", options={"window": 3}, probes=("noise", "sharpness"))
    list(train(task, [Run(task, question)], tmp_path / "whole"))
    cut = iter(range(task.steps + 2))
    stopped = {"stopped": lambda: next(cut, None) is None}
    list(train(task, [Run(task, question)], tmp_path / "cut", **stopped))
    list(train(task, [Run(task, question)], tmp_path / "cut", resume=True))
    path = question.path(name)
    lines = timeless(tmp_path / "cut" / path)
    assert lines == timeless(tmp_path / "whole" / path)
    assert lines[-2]["sharpness"] > 0
