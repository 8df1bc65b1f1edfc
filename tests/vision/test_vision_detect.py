"""Detection: the networks take real steps, by every optimizer of Table 5, and runs resume."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
import torch
from _coco import changed, document, write, write_shapes
from _commands import assert_one_line, environment
from torchvision.models import resnet50
from torchvision.ops import FrozenBatchNorm2d

from experiments.__main__ import main
from experiments.errors import UserError
from experiments.question import Question
from experiments.records import read
from experiments.run import Run
from experiments.tasks import DETECTION, SCENES, detect, detectors, length, load, scenes
from experiments.train import train

TABLE5 = ("pal", "gen", "cocob", "dog", "d-adaptation", "zenith", "sgd", "sgd-cosine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six scenes to train on, and two to test on."""
    at = tmp_path_factory.mktemp("scenes")
    return scenes.write(at / "scenes", write_shapes(at / "fashion"), 6, 2)


@pytest.fixture(params=SCENES)
def task(request, folder, monkeypatch):
    """Two epochs of three steps, evaluated after two and after three of them."""
    monkeypatch.setattr(detect, "EVERY", 2)
    return load(request.param, folder, epochs=2, batch=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as torchvision has it."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(resnet50().state_dict(), path)
    return path


def timeless(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "made")} for line in lines]


@pytest.mark.parametrize("name", TABLE5)
def test_every_optimizer_of_table_5_takes_steps(task, name):
    run = Run(task, Question(name))
    before = [p.detach().clone() for p in run.model.parameters()]
    for _ in range(2):  # so that GeN comes to measure its rate
        for batch in [batch for segment in (0, 1) for batch in task.batches(0, segment)]:
            assert run.step(batch)["loss"] > 0
    after = list(run.model.parameters())
    assert all(p.isfinite().all() for p in after)
    assert sum(not torch.equal(p, old) for p, old in zip(after, before, strict=True)) > 30


def test_a_step_is_that_of_the_plain_loop(task):
    run = Run(task, Question("sgd", seed=3))
    batch = next(task.batches(3, 0))
    torch.manual_seed(3)
    model = task.network()
    torch.manual_seed(3 * 1_000_003)  # of the proposals that are drawn
    losses = model([image for image, _ in batch], [target for _, target in batch])
    loss = sum(losses.values())
    loss.backward()
    assert len(losses) == 5  # two of the proposals; class, box and mask or keypoints
    assert run.step(batch)["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for ours, p in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), p.detach() - 0.1 * p.grad)


def test_segments_are_parts_of_the_epochs_and_depend_on_seed_and_segment_alone(task):
    assert (task.ends, task.segments, length(task)) == ((2, 3), 4, 6)

    def seen(seed, segment):
        batches = list(task.batches(seed, segment))
        return [image.numpy().tobytes() for batch in batches for image, _ in batch]

    every = [seen(0, segment) for segment in range(4)]
    assert [len(own) for own in every] == [4, 2, 4, 2]
    assert len({*every[0], *every[1]}) == 6  # each image once
    assert seen(0, 2) == every[2]
    assert every[0] != every[2] != seen(1, 2)


def test_a_batch_is_filled_with_the_first_of_its_epoch(folder):
    task = load("scenes-instances", folder, batch=4)
    first, second = task.batches(0, 0)
    assert len(first) == len(second) == 4
    for (ours, _), (theirs, _) in zip(first[:2], second[2:], strict=True):
        assert torch.equal(ours, theirs) or torch.equal(ours.flip(-1), theirs)


@pytest.mark.parametrize("name", ["zenith", "sgd-cosine", "d-adaptation"])
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_records(name, task, tmp_path):
    question = Question(name, log_every=4)
    records = [r for _, r in train(task, [Run(task, question)], tmp_path / "whole")]
    cut = iter(range(3))  # in the third segment
    halted = {"stopped": lambda: next(cut, None) is None}
    list(train(task, [Run(task, question)], tmp_path / "cut", **halted))
    path = question.path(task.name)
    assert (tmp_path / "cut" / path).with_suffix(".pt").exists()
    list(train(task, [Run(task, question)], tmp_path / "cut", resume=True))
    assert timeless(tmp_path / "cut" / path) == timeless(tmp_path / "whole" / path)

    assert [r["step"] for r in records if r["kind"] == "step"] == [2, 3, 4, 5, 6]
    evaluated = [r for r in records if r["kind"] == "eval"]
    assert [r["step"] for r in evaluated] == [2, 3, 5, 6]
    assert [r["epoch"] for r in evaluated] == pytest.approx([2 / 3, 1, 5 / 3, 2], rel=1e-5)
    own = "mask_map50" if task.name == "scenes-instances" else "keypoint_map50"
    assert all(0 <= r[name] <= 100 for r in evaluated for name in ("box_map50", own))
    header = read(tmp_path / "whole" / path).header
    assert (header["ends"], header["steps"], header["segments"]) == ([2, 3], 1.5, 4)
    assert header["measures"] == ["box_map50", own]


def test_images_without_objects_are_learnt(task):
    run = Run(task, Question("sgd"))
    nothing = [
        (image, {k: v[:0] for k, v in own.items()}) for image, own in next(task.batches(0, 0))
    ]
    loss = run.step(nothing)["loss"]
    assert 0 < loss < 10
    assert all(p.grad.isfinite().all() for p in run.model.parameters())


def test_amp_is_a_step_in_bfloat16(task):
    batch = next(task.batches(0, 0))
    whole, half = (Run(task, Question("sgd", amp=amp)) for amp in (False, True))
    losses = [run.step(batch)["loss"] for run in (whole, half)]
    # to the 8 bits of bfloat16 the proposals are others, and so is what is drawn of them
    assert losses[1] == pytest.approx(losses[0], rel=0.2)
    assert half.model.backbone.body.layer1[0].weight.grad.isfinite().all()


def test_a_warm_up_ends_within_the_run(task):
    assert Run(task, Question("sgd", warm_up=6)).warm_up.total_iters == 6
    with pytest.raises(UserError, match=r"^`--warm-up` must be at most 6, all steps, got 7$"):
        Run(task, Question("sgd", warm_up=7))


def test_what_needs_examples_of_one_size_says_so(task):
    run = Run(task, Question("sgd", probes=("sharpness",)))
    run.step(next(task.batches(0, 0)))
    run.segment = task.segments
    with pytest.raises(UserError, match="`probes` line and sharpness need examples of one size"):
        run.finish_segment()


def test_halves_of_a_batch_are_its_examples(task):
    run = Run(task, Question("signal-halves"))
    run._batch = next(task.batches(0, 0))
    halves = [run.closure(half=half).item() for half in (0, 1)]
    alone = []
    for example in run._batch:
        torch.manual_seed(0)
        alone.append(task.loss(run.model, [example]).item())
    assert halves[0] == pytest.approx(alone[0], rel=1e-5)
    assert halves[1] > 0


def test_loss_and_evaluation_leave_the_mode_as_it_was(task):
    model = task.network().eval()
    assert task.loss(model, next(task.batches(0, 0))).requires_grad
    assert not model.training
    assert task.evaluate(model).keys() == {*task.described()["measures"]}


@pytest.mark.parametrize("name", ["coco-keypoints", "coco-instances"])
def test_a_real_step_of_the_papers_network(name, tmp_path, weights):
    task = load(name, write(tmp_path), batch=2, weights=weights)
    task = dataclasses.replace(task, row=task.row._replace(workers=0))
    run = Run(task, Question("zenith"))
    run.model.transform.min_size, run.model.transform.max_size = (64,), 96  # of 800 and 1333
    run.model.roi_heads.fg_bg_sampler.batch_size_per_image = 8  # of 512
    body = run.model.backbone.body
    state = torch.load(weights, weights_only=True)
    before = {name: p.detach().clone() for name, p in body.named_parameters()}
    assert all(torch.equal(p, state[name]) for name, p in before.items())
    assert len(before) == 53  # all convolutions, and no batch norm
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in body.modules()) == 53
    record = run.step(next(task.batches(0, 0)))
    assert 0 < record["loss"] < 100
    for own, p in body.named_parameters():
        torch.testing.assert_close(p.detach(), before[own] - 0.1 * p.grad)
        assert p.grad.any()
    assert run.model.roi_heads.box_predictor.cls_score.out_features == 2  # a cat, or none
    assert run.header()["hours"] == DETECTION[name].hours
    assert len(run.header()["weights"]) == 16


def test_at_the_papers_scale_it_is_evaluated_when_the_paper_says(tmp_path):
    task = load("coco-keypoints", write(tmp_path), weights=detectors.SCRATCH)
    assert (task.hours, task.passes, task.weights) == (17, 12, (None, "none"))
    task = dataclasses.replace(task, images=range(118_287), batch=16)
    assert task.ends == (2500, 5000, 7393)
    assert (task.segments, length(task)) == (36, 12 * 7393)
    assert task.row.batch == 16


def test_without_weights_batch_norm_learns(tmp_path):
    task = load("coco-instances", write(tmp_path), weights=detectors.SCRATCH)
    kinds = {type(m) for m in task.network().backbone.body.modules()}
    assert torch.nn.BatchNorm2d in kinds
    assert FrozenBatchNorm2d not in kinds


def test_images_with_few_visible_keypoints_may_be_left_out(tmp_path, monkeypatch):
    def more(content):
        content["annotations"][0]["image_id"] = 2  # which now has six keypoints

    folder = write(tmp_path, changed(more))
    monkeypatch.setattr(detect, "VISIBLE", 4)
    every = {"coco-keypoints": [1, 2, 3, 4], "coco-keypoints-visible": [2]}
    for name, expected in every.items():
        assert load(name, folder, weights=detectors.SCRATCH).images == expected


def refused(folder, name="coco-instances"):
    with pytest.raises(UserError) as caught:
        load(name, folder, weights=detectors.SCRATCH if name in DETECTION else None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_train_and_val_must_mean_the_same(tmp_path):
    """Another id, and left and right the other way round: each would be scored as another."""
    changes = {
        "instances": lambda own: own | {"id": 8},
        "person_keypoints": lambda own: own | {"keypoints": ["nose", "right_eye", "left_eye"]},
    }
    folder = write(tmp_path)
    for prefix, change in changes.items():
        file = folder / "annotations" / f"{prefix}_val2017.json"
        content = json.loads(file.read_text())
        content["categories"] = [change(own) for own in content["categories"]]
        for each in content["annotations"]:
            each["category_id"] = content["categories"][0]["id"]
        file.write_text(json.dumps(content))
    train = folder / "annotations" / "instances_train2017.json"
    assert refused(folder) == (
        f"{train.with_name('instances_val2017.json')}: `categories` must be those of {train}, "
        '[[7, "cat"]], got [[8, "cat"]]'
    )
    said = refused(folder, "coco-keypoints")
    assert "person_keypoints_val2017.json: `keypoints` must be those of " in said
    assert said.endswith('["nose", "left_eye", "right_eye"], got ["nose", "right_eye", "left_eye"]')


def test_there_must_be_something_to_learn(tmp_path):
    def nothing(content):
        wrong = ({"iscrowd": 1}, {"bbox": [4, 6, 0, 9]}, {"iscrowd": 1})
        for each, more in zip(content["annotations"], wrong, strict=True):
            each |= more

    folder = write(tmp_path / "some")
    assert refused(folder, "coco-keypoints-visible").endswith(
        "person_keypoints_train2017.json: must have an image with 10 visible keypoints"
    )
    folder = write(tmp_path / "none", changed(nothing))
    assert refused(folder).endswith(
        "instances_train2017.json: must have an object to learn, with a box and no crowd"
    )


def test_an_image_that_would_be_made_to_nothing(folder, tmp_path):
    """Of 97 x 1 pixels, which are to be 96 at the most."""
    data = tmp_path / "scenes"
    shutil.copytree(folder, data)
    file = data / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    image = content["images"][0]
    image |= {"width": 97, "height": 1}
    own = image["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != own]
    file.write_text(json.dumps(content))
    rule = "must have sides of which none is 96 times the other, got 97 x 1"
    assert refused(data, "scenes-instances") == f"{file}: image {own}: {rule}"


def test_a_test_image_that_is_not_sound_is_found_before_the_first_step(tmp_path):
    broken = write(tmp_path) / "val2017" / "000000000003.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    said = refused(tmp_path)
    assert said.startswith(f"{tmp_path}/annotations/instances_val2017.json: image 3: {broken}: ")


def test_what_is_wrong_with_the_weights_is_one_line(tmp_path, weights):
    def complaint(path):
        with pytest.raises(UserError) as caught:
            detectors.weights(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "`--weights` must be a file with ResNet-50's weights of ImageNet" in complaint(None)
    assert "cannot be read (No such file" in complaint(tmp_path / "none.pth")
    path = tmp_path / "mine.pth"
    for content in (
        b"PK\3\4 not a checkpoint",
        b"",
        b"hello",
        b"G\1",
        b"X\1\0\0\0\xff.",
        b"\x80\2e",
    ):
        path.write_bytes(content)
        assert complaint(path) == f"{path}: not a state dict that torch.save has written"
    torch.save({1: torch.ones(1)}, path)
    assert complaint(path) == f"{path}: must hold a state dict, whose keys are names, got 1"
    torch.save([1, 2], path)
    assert complaint(path) == f"{path}: must hold a state dict, got list"
    state = torch.load(weights, weights_only=True)
    torch.save(state | {"layer1.0.bn1.bias": torch.full((64,), torch.nan)}, path)
    assert complaint(path) == f"{path}: layer1.0.bn1.bias must be finite numbers"
    del state["layer4.2.conv3.weight"]
    torch.save(state, path)
    assert complaint(path).startswith(f'{path}: not of ResNet-50: Missing key(s) in state_dict: "l')


def test_mistakes_on_the_command_line(tmp_path, capsys, weights):
    def complaint(*arguments):
        out = ["--optimizer", "zenith", "--out", str(tmp_path / "out")]
        assert main(["run", *arguments, *out]) == 2
        text = capsys.readouterr().err
        assert_one_line(text, "", "experiments")
        return text

    data = ["--data", str(tmp_path)]
    assert "train2017, val2017 and annotations, of cocodataset.org, got None" in complaint(
        "coco-instances", "--weights", str(weights)
    )
    assert "`--weights` must be a file" in complaint("coco-instances", *data)
    assert "person_keypoints_train2017.json: cannot be read" in complaint(
        "coco-keypoints", *data, "--weights", "none"
    )
    assert "scenes, see `python -m experiments scenes`, got" in complaint(
        "scenes-instances", "--data", str(tmp_path / "none")
    )
    assert "`--weights` is of coco-" in complaint("digits", "--weights", "none")
    write(tmp_path / "data", document())
    more = ["--data", str(tmp_path / "data"), "--weights", "none", "--batch-size", "5"]
    assert "`--batch-size` must be at most 4, all images, got 5" in complaint(
        "coco-instances", *more
    )
    assert not (tmp_path / "out").exists()


def test_two_processes_of_torchrun_take_half_of_each_batch(folder, tmp_path):
    own = ["run", "scenes-instances", "--optimizer", "zenith", "--epochs", "1", "--batch-size"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["-m", "experiments", *own, "2", "--data", str(folder), "--out", str(tmp_path)]
    quiet = environment("experiments", PYTHONWARNINGS="ignore")
    done = subprocess.run(torchrun, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("*.jsonl")
    assert read(path).outcome == "finished"
    assert [line["step"] for line in read(path).evals] == [3]


def test_a_run_from_the_command_line(folder, tmp_path, capsys):
    own = ["run", "scenes-keypoints", "--optimizer", "sgd", "--epochs", "1", "--data", str(folder)]
    own += ["--warm-up", "1", "--amp", "--momentum", "0.9", "--out", str(tmp_path)]
    assert main(own) == 0
    assert "box_map50" in capsys.readouterr().out
    (path,) = tmp_path.rglob("*.jsonl")
    assert path.parent.name == "sgd,momentum=0.9,epochs=1,warm_up=1,amp"
    assert read(path).header["warm_up"] == 1
