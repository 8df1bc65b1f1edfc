"""The paper's data sets: what is read of the published layout, and what is said of a broken one."""

import json
import shutil

import pytest
import torch
from _commands import assert_one_line
from _published import FOOD, WORDS, WRITERS, imagenet100, mnist, reading
from PIL import Image

from experiments.__main__ import main
from experiments.errors import UserError
from experiments.tasks import PAPER, load, pictures

PICTURES = {  # of each part; a tenth of those to train on is held back
    "mnist-efficientnet": {"train": 27, "test": 10, "validation": 3},
    "cifar10-vgg19": {"train": 45, "test": 10, "validation": 5},
    "cifar100-resnet50": {"train": 90, "test": 100, "validation": 10},
    "food101-dla": {"train": 182, "test": 101, "validation": 20},
    "tinyimagenet-inception": {"train": 360, "test": 200, "validation": 40},
    "imagenet100-densenet121": {"train": 180, "test": 100, "validation": 20},
}
SIZES = dict(zip(PAPER, (28, 32, 32, 224, 64, 224), strict=True))


@pytest.fixture
def written(tmp_path, monkeypatch):
    return lambda name: WRITERS[name](tmp_path, monkeypatch)


def greys(images, view):
    """The grey in the middle, between 0 and 255."""
    middle = images[:, :, images.shape[2] // 2, images.shape[3] // 2]
    return 255 * (middle * torch.tensor(view.deviation) + torch.tensor(view.mean))


@pytest.mark.parametrize("name", PAPER)
def test_pictures_come_with_their_class(name, written):
    task = reading(load(name, written(name), batch=9))
    channels = 1 if name.startswith("mnist") else 3
    images, labels = next(task.batches(0, 0))
    size = SIZES[name]
    assert task.data.counts == PICTURES[name]
    assert (images.shape, images.dtype) == ((9, channels, size, size), torch.float32)
    assert labels.dtype == torch.int64
    if channels == 3:  # those of MNIST are noise
        expected = labels[:, None].expand(9, 3).float()
        torch.testing.assert_close(greys(images, task.data.view), expected, atol=1.01, rtol=0)
    tested = list(task.data.whole("test"))
    labels = torch.cat([labels for _, labels in tested]).tolist()
    assert labels == sorted(labels)
    assert len(labels) == PICTURES[name]["test"]
    assert tested[0][0].shape[1:] == (channels, size, size)


def test_the_tenth_to_validate_on_is_the_same_for_all_and_apart(written):
    folder = written("cifar100-resnet50")
    first, second = (load("cifar100-resnet50", folder, batch=9).data._indices for _ in range(2))
    assert torch.equal(first["validation"], second["validation"])
    both = torch.cat([first["train"], first["validation"]])
    assert both.sort().values.tolist() == list(range(100))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker")
def test_batches_depend_on_seed_and_segment_alone_and_on_no_number_of_workers(written):
    task = load("cifar100-resnet50", written("cifar100-resnet50"), batch=30)
    here, by_two = reading(task), reading(task, workers=2)

    def images(task, seed, segment):
        return torch.stack([images for images, _ in task.batches(seed, segment)])

    resumed = images(here, 1, 2)
    torch.rand(5)
    before = torch.get_rng_state()
    whole = [images(by_two, 1, segment) for segment in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(whole[2], resumed)
    assert not torch.equal(whole[1], resumed)
    assert not torch.equal(images(here, 2, 2), resumed)


def test_the_same_picture_is_augmented_anew_in_each_epoch_and_not_for_the_test(written):
    task = reading(load("cifar10-vgg19", written("cifar10-vgg19"), batch=45))
    nines = [images[labels == 9] for s in (0, 1) for images, labels in task.batches(0, s)]
    assert len({image.numpy().tobytes() for image in torch.cat(nines)}) > 4
    (tested, labels), *_ = task.data.whole("test")
    assert (tested[labels == 9].amax((2, 3)) == tested[labels == 9].amin((2, 3))).all()


@pytest.mark.parametrize(
    ("name", "first", "crop", "last"),
    [
        ("mnist-efficientnet", [], (28, [3] * 4), []),
        ("cifar10-vgg19", [], (32, [4] * 4), ["RandomHorizontalFlip"]),
        ("tinyimagenet-inception", [], (64, [8] * 4), ["RandomHorizontalFlip"]),
        ("food101-dla", ["Resize"], (224, None), ["RandomHorizontalFlip"]),
    ],
)
def test_what_is_done_to_a_picture(name, first, crop, last, written):
    steps = load(name, written(name), batch=1).data.view.augmented().transforms
    made = ["ToImage", "ToDtype", "Normalize"]
    names = [*first, "RandomAffine", "RandomCrop", *last, *made]
    assert [type(step).__name__ for step in steps] == names
    affine, cropped = steps[len(first) : len(first) + 2]
    assert (affine.degrees, affine.translate, affine.scale) == ([-15, 15], (0.1, 0.1), None)
    assert (cropped.size, cropped.padding) == ((crop[0],) * 2, crop[1])


def damage(name, folder, what):
    """Break what lies in the folder; return the place that the complaint must name."""
    place = folder / what.partition(" ")[0]
    if what.endswith(" gone"):
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    if what.endswith(" cut"):
        place.write_bytes(place.read_bytes()[:-20])
    if what.endswith(" mislaid"):
        place.rename(folder / "elsewhere")
    return place


@pytest.mark.parametrize(
    ("name", "what", "complaint"),
    [
        ("mnist-efficientnet", "train-images-idx3-ubyte.gz gone", "cannot be read (No such file"),
        ("mnist-efficientnet", "t10k-labels-idx1-ubyte.gz cut", "the gzip data is cut short"),
        ("cifar10-vgg19", "cifar-10-batches-py/data_batch_3 gone", "missing"),
        ("cifar10-vgg19", "cifar-10-batches-py/test_batch cut", "not as published"),
        ("cifar10-vgg19", "cifar-10-batches-py/batches.meta cut", "not as published"),
        ("cifar100-resnet50", "cifar-100-python/train cut", "not as published"),
        ("food101-dla", "food-101/meta/test.json gone", "cannot be read (No such file"),
        ("food101-dla", "food-101/meta/train.json cut", "not sound JSON"),
        ("food101-dla", "food-101/images mislaid", "missing"),
        ("tinyimagenet-inception", "tiny-imagenet-200/train gone", "cannot be read (No such file"),
        (
            "tinyimagenet-inception",
            "tiny-imagenet-200/val/val_annotations.txt gone",
            "cannot be read (No such file",
        ),
        ("imagenet100-densenet121", "classes.txt gone", "cannot be read (No such file"),
    ],
)
def test_what_is_missing_or_cut_short_is_named_with_where_it_comes_from(
    written, name, what, complaint
):
    folder = written(name)
    place = damage(name, folder, what)
    source = {
        "mnist": "yann.lecun.com",
        "cifar": "www.cs.toronto.edu",
        "food1": "vision.ee.ethz.ch",
    }
    source |= {"tinyi": "cs231n.stanford.edu", "image": "image-net.org"}
    with pytest.raises(UserError) as caught:
        load(name, folder)
    text = str(caught.value)
    assert text.startswith(f"{place}: {complaint}")
    assert "; needed: " in text
    assert source[name[:5]] in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("cifar100-resnet50", "cifar-100-python mislaid"),
        ("food101-dla", "food-101 mislaid"),
        ("tinyimagenet-inception", "tiny-imagenet-200 mislaid"),
        ("imagenet100-densenet121", "val mislaid"),
    ],
)
def test_a_layout_that_is_another_is_one_line(written, name, what):
    folder = written(name)
    damage(name, folder, what)
    with pytest.raises(UserError, match=f"^{folder}.*; needed: ") as caught:
        load(name, folder)
    assert "\n" not in str(caught.value)
    assert "download" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", PAPER)
def test_without_a_folder_there_is_nothing_to_read(name, tmp_path, capsys):
    out = ["--optimizer", "zenith", "--out", str(tmp_path / "out")]
    for data, got in (([], "None"), (["--data", "/nowhere"], "/nowhere")):
        assert main(["run", name, *out, *data]) == 2
        text = capsys.readouterr().err
        assert_one_line(text, "`--data` must be a folder with ", "experiments")
        assert text.endswith(f", got {got}\n")


def test_classes_that_are_too_few(written):
    folder = written("food101-dla")
    listing = folder / "food-101" / "meta" / "train.json"
    listing.write_text(json.dumps({name: [f"{name}/0"] for name in FOOD[1:]}))
    with pytest.raises(UserError, match=f"^{listing}: must have 101 classes, got 100; needed"):
        load("food101-dla", folder)


def test_an_annotation_that_is_none(written):
    folder = written("tinyimagenet-inception")
    listing = folder / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    listing.write_text(listing.read_text() + "val_7.JPEG\tn99999999\t0\t0\t1\t1\n")
    with pytest.raises(UserError, match=r"val_annotations\.txt, line 201: must be a file and a "):
        load("tinyimagenet-inception", folder)


def test_the_list_of_a_hundred_classes(tmp_path):
    folder = imagenet100(tmp_path, None)
    by_default = pictures.imagenet100(folder)[0].samples
    assert [label for _, label in by_default[:5]] == [0, 0, 1, 1, 2]
    assert WORDS[1] in by_default[0][0]
    (folder / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"classes\.txt: cannot be read"):
        pictures.imagenet100(folder)
    (folder / "Labels.json").write_text(json.dumps(dict.fromkeys(WORDS[1:101], "a thing")))
    assert pictures.imagenet100(folder)[0].samples == by_default
    named = folder / "mine.txt"
    named.write_text("\n".join(WORDS[2:102]))
    assert WORDS[2] in pictures.imagenet100(named)[0].samples[0][0]
    named.write_text("\n".join(WORDS[2:101]))
    with pytest.raises(UserError, match=r"mine\.txt: must have 100 classes, got 99"):
        pictures.imagenet100(named)
    named.write_text("\n".join(WORDS[3:103]))
    with pytest.raises(UserError, match=f"no valid file for the classes {WORDS[102]}"):
        pictures.imagenet100(named)


def test_torchvisions_own_place_of_mnist_is_found(tmp_path):
    mnist(tmp_path / "MNIST" / "raw", None)
    assert len(pictures.mnist(tmp_path)[0]) == 30


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "png"), ("I", "tiff"), ("F", "tiff")])
def test_a_picture_whose_greys_would_be_lost_is_named(mode, kind, tmp_path):
    path = tmp_path / f"mine.{kind}"
    Image.new(mode, (3, 2), 99).save(path)
    with pytest.raises(UserError, match=f"^{path}: must be of a mode in 1, L, .*, got {mode}$"):
        pictures.opened(path)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_is_named(written, workers):
    task = reading(load("food101-dla", written("food101-dla"), batch=4), workers)
    broken = task.data.parts[1]._image_files[3]
    broken.write_bytes(broken.read_bytes()[:-200])
    gone = task.data.parts[1]._image_files[7]
    with pytest.raises(UserError) as caught:
        list(task.data.whole("test"))
    assert str(caught.value).startswith(f"{broken}: ")
    assert str(caught.value).endswith("; not a sound picture: unpack the archive anew")
    gone.rename(broken)
    with pytest.raises(UserError, match=f"^{gone}: cannot be read .No such file or directory.; "):
        list(task.data.whole("test"))
