"""The classify tasks: segments, validation, augmentation, and the desk tasks' table."""

import dataclasses
import gzip
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from _demo import tiny, tiny_data
from _idx import write_fashion
from torch.nn.functional import cross_entropy

from experiments.errors import UserError
from experiments.question import Question
from experiments.run import Run
from experiments.tasks import load
from experiments.tasks.idx import read_idx
from experiments.tasks.images import shifted
from experiments.train import train

DOCS = Path(__file__).resolve().parents[2] / "docs"


def validated():
    """A segment of two epochs, and 7 of the 12 test images to validate on."""
    data = tiny_data()
    held = data.test_images[:7], data.test_labels[:7]
    return dataclasses.replace(tiny(), data=data._replace(validation=held), epochs=2.0)


def drawn(task, seed, segment):
    return [labels.tolist() for _, labels in task.batches(seed, segment)]


def test_a_segment_is_as_many_shuffles_as_it_has_epochs():
    task = validated()
    numbered = dataclasses.replace(
        task, data=task.data._replace(train_labels=torch.arange(40)), batch=16
    )
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 1)
    orders = [torch.randperm(40, generator=generator) for _ in range(2)]
    expected = [order[start : start + 16].tolist() for order in orders for start in (0, 16)]
    assert numbered.steps == 4
    assert drawn(numbered, 3, 1) == expected
    assert not torch.equal(*orders)


@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_the_question_of_a_committed_record_is_what_is_asked_today(name):
    path = next((DOCS / name / "zenith").glob("seed-0.jsonl.gz"))
    committed = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    log_every = committed["log_every"]
    header = Run(load(name), Question("zenith", log_every=log_every)).header()
    asked = {key: value for key, value in committed.items() if key not in ("kind", "format")}
    assert json.dumps(header | {"made": 0}) == json.dumps(asked | {"made": 0})


def test_validation_images_are_measured_beside_the_test_images():
    task = validated()
    model = task.network()
    images, labels = task.data.validation
    scores = model(images)
    right = int((scores.argmax(1) == labels).sum())
    measures = task.evaluate(model)
    assert measures["validation_accuracy"] == pytest.approx(100 * right / 7)
    assert measures["test_accuracy"] == tiny().evaluate(model)["test_accuracy"]
    assert task.validation_loss(model) == pytest.approx(cross_entropy(scores, labels).item())
    assert task.described()["validation_images"] == 7
    assert tiny().validation_loss is None


def test_a_plateau_is_judged_once_an_epoch_by_the_validation_images(tmp_path, monkeypatch):
    asked = []

    def judged(_model):
        asked.append(run.steps)
        return 1.0

    task = validated()
    monkeypatch.setattr(type(task), "validation_loss", staticmethod(judged))
    run = Run(task, Question("sgd-plateau"))
    list(train(task, [run], tmp_path))
    assert asked == [5, 10, 15, 20]
    assert run.scheduler.num_bad_epochs == 3


@pytest.mark.parametrize(
    ("name", "count", "steps", "evaluations", "parameters"),
    [
        ("desk-a", 4096, 3200, 20, 65_994),
        ("desk-b", 2048, 7680, 20, 65_994 + 2 * (16 + 32 + 64 + 64)),
        ("desk-c", 4096, 8960, 20, 65_994),
    ],
)
def test_the_desk_tasks(name, count, steps, evaluations, parameters):
    task = load(name)
    assert task.data.counts == {"train": count, "test": 10_000, "validation": 6_000}
    assert (task.steps * task.segments, task.segments) == (steps, evaluations)
    assert (task.batch, task.threads, task.data.size) == (128, 1, 14)
    assert sum(p.numel() for p in task.network().parameters()) == parameters
    assert task.described().get("augmentation") == (None if name == "desk-a" else "shifted")


@pytest.mark.parametrize(
    ("epochs", "segment", "segments"), [(10, 5, 2), (5, 5, 1), (7, 1, 7), (2, 1, 2), (None, 5, 20)]
)
def test_segments_follow_the_epochs(tmp_path, epochs, segment, segments):
    task = load("desk-a", write_fashion(tmp_path), epochs, batch=4)
    assert (task.epochs, task.segments, task.steps) == (segment, segments, segment * 6)


def test_desk_images_are_means_of_four_and_a_tenth_is_held_back(tmp_path):
    task = load("desk-a", write_fashion(tmp_path, train=40))
    raw = read_idx(tmp_path / "train-images-idx3-ubyte.gz", 3).astype(float)
    corners = [raw[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    means = sum(corners) / 4
    expected = (means - means[:36].mean()) / means[:36].std()
    assert np.allclose(task.data.train_images.squeeze(1), expected[:36], atol=1e-6)
    assert np.allclose(task.data.validation[0].squeeze(1), expected[36:], atol=1e-6)
    assert task.data.validation[1].tolist() == [6, 7, 8, 9]
    assert task.data.counts == {"train": 36, "test": 10, "validation": 4}


def test_an_image_is_shifted_by_a_pixel_at_most_and_mirrored_or_not():
    image = torch.arange(1.0, 26).reshape(1, 1, 5, 5)
    padded = np.pad(image[0, 0].numpy(), 1, mode="edge")
    windows = [padded[i : i + 5, j : j + 5] for i in range(3) for j in range(3)]
    possible = {w.tobytes() for w in windows} | {w[:, ::-1].tobytes() for w in windows}
    generator = torch.Generator().manual_seed(5)
    seen = shifted(image.expand(3600, 1, 5, 5), generator)
    found = Counter(one.numpy().tobytes() for one in seen)
    assert seen.shape == (3600, 1, 5, 5)
    assert found.keys() == possible
    assert len(possible) == 18
    assert all(abs(count - 200) < 5 * 200**0.5 for count in found.values())  # five deviations


def test_augmentation_depends_on_seed_and_segment_alone(tmp_path):
    task = load("desk-c", write_fashion(tmp_path), epochs=4, batch=8)

    def images(seed, segment):
        return torch.stack([batch for batch, _ in task.batches(seed, segment)])

    first = images(1, 2)
    images(1, 0)
    torch.rand(3)
    assert torch.equal(images(1, 2), first)
    assert not torch.equal(images(1, 1), first)
    assert not torch.equal(images(2, 2), first)


def test_a_torchvision_of_another_torch_is_one_line(tmp_path, monkeypatch):
    text = "operator torchvision::nms does not exist"  # as torchvision itself has it
    (tmp_path / "timm.py").write_text(f"raise RuntimeError({text!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(UserError, match=rf"do not fit \({text}\): pip install -c constraints-vis"):
        load("cifar10-vgg19")
