"""Scenes: what the generator writes, read back by pycocotools."""

import json

import numpy as np
import pytest
from _coco import write_shapes
from _commands import assert_one_line
from PIL import Image
from pycocotools.coco import COCO

from experiments.__main__ import main
from experiments.tasks import scenes
from experiments.tasks.coco import read
from experiments.tasks.examples import drawing

TRAIN, TEST = 40, 6
FULL = np.ones((6, 8), bool)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("fashion") / "files")


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    return scenes.write(tmp_path_factory.mktemp("scenes") / "new", source, TRAIN, TEST)


@pytest.fixture(scope="module")
def instances(folder):
    return COCO(str(folder / "annotations" / "instances_train.json"))


@pytest.fixture(scope="module")
def keypoints(folder):
    return COCO(str(folder / "annotations" / "keypoints_train.json"))


def test_a_file_is_sound_and_has_a_picture_for_each_image(folder):
    for part, count in (("train", TRAIN), ("val", TEST)):
        for kind in ("instances", "keypoints"):
            found = read(folder / "annotations" / f"{kind}_{part}.json", folder / part, kind)
            assert list(found.images) == list(range(1, count + 1))
            assert [a["id"] for a in found.annotations] == list(
                range(1, len(found.annotations) + 1)
            )
        with Image.open(folder / part / "000001.png") as picture:
            assert (picture.size, picture.mode) == ((96, 96), "RGB")


def test_boxes_and_areas_are_those_of_the_masks_by_pycocotools(instances):
    kinds = set()
    for each in instances.anns.values():
        mask = instances.annToMask(each)
        rows, columns = np.nonzero(mask)
        assert each["area"] == mask.sum() >= 30
        x, y, width, height = each["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        kinds.add(type(each["segmentation"]))
    assert kinds == {list, dict}  # polygons, and run lengths


def test_some_images_have_nothing_and_sizes_differ(instances):
    counts = [len(instances.getAnnIds([own])) for own in instances.imgs]
    assert min(counts) == 0
    assert max(counts) >= 3
    sides = [max(each["bbox"][2:]) for each in instances.anns.values()]
    assert min(sides) < 24
    assert max(sides) > 40


def test_masks_do_not_overlap(instances):
    for own in instances.imgs:
        masks = [instances.annToMask(instances.anns[i]) for i in instances.getAnnIds([own])]
        assert np.sum([np.zeros((96, 96)), *masks], axis=0).max() <= 1


def test_keypoints_are_seen_hidden_or_not_there(instances, keypoints):
    seen = {0: 0, 1: 0, 2: 0}
    outlines = {}
    for each in instances.anns.values():
        outlines[each["image_id"], *each["bbox"]] = instances.annToMask(each)
    for each in keypoints.anns.values():
        points = np.reshape(each["keypoints"], (5, 3))
        assert each["num_keypoints"] == (points[:, 2] > 0).sum()
        mask = outlines[each["image_id"], *each["bbox"]]
        for x, y, visible in points.tolist():
            seen[visible] += 1
            if visible == 0:
                assert (x, y) == (0, 0)
            elif visible == 2:  # a mask as polygons may leave out the tip of a corner
                assert mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].any()
        if (points[:, 2] == 2).all():
            left_top, right_top, left_bottom, right_bottom, centre = points[:, :2].tolist()
            assert left_top[0] <= right_top[0]
            assert left_bottom[0] <= right_bottom[0]
            assert left_top[1] <= centre[1] <= left_bottom[1]
    assert min(seen.values()) > 0
    digits = instances.getCatIds(["digit"])
    clothes = len(instances.anns) - len(instances.getAnnIds(catIds=digits))
    assert len(keypoints.anns) == clothes < len(instances.anns)


def test_a_seed_is_the_same_scenes_and_another_is_not(source, folder, tmp_path):
    def content(at):
        paths = sorted(path for path in at.rglob("*") if path.is_file())
        return {path.relative_to(at): path.read_bytes() for path in paths}

    again = scenes.write(tmp_path / "again", source, TRAIN, TEST)
    assert content(again) == content(folder)
    other = scenes.write(tmp_path / "other", source, TRAIN, TEST, seed=1)
    assert content(other) != content(folder)


def test_outlines_and_run_lengths_are_the_mask():
    mask = np.zeros((6, 8), bool)
    mask[1:5, 2:7] = True
    (outline,) = scenes.polygons(mask)
    assert abs(drawing([outline], mask.shape).astype(int) - mask).sum() <= 4  # the corners
    mask[2:4, 3:5] = False
    assert scenes.polygons(mask) == []
    assert np.array_equal(drawing(scenes.run_lengths(mask), mask.shape), mask)


@pytest.mark.parametrize(
    ("mask", "counts"),
    [(FULL, [0, 48]), (~FULL, [48]), (np.arange(48).reshape(8, 6).T % 5 == 0, None)],
)
def test_run_lengths_by_hand(mask, counts):
    lengths = scenes.run_lengths(mask)
    assert counts in (None, lengths["counts"])
    assert np.array_equal(drawing(lengths, mask.shape), mask)


def test_the_command(source, tmp_path, capsys):
    asked = ["scenes", str(tmp_path / "new"), "--data-dir", str(source), "--train", "2"]
    assert main([*asked, "--val", "1"]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["new"]  # nothing half-written beside it
    written = json.loads((tmp_path / "new" / "annotations" / "instances_train.json").read_text())
    assert [image["file_name"] for image in written["images"]] == ["000001.png", "000002.png"]
    capsys.readouterr()
    assert main([*asked, "--val", "1"]) == 2
    said = f"{tmp_path / 'new'}: is there; scenes are written into a new folder"
    assert_one_line(capsys.readouterr().err, said, "experiments")
    assert main(["scenes", str(tmp_path / "other"), "--data-dir", str(tmp_path)]) == 2
    assert_one_line(capsys.readouterr().err, "train-images-idx3-ubyte.gz", "experiments")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


def test_the_scenes_of_all_runs_are_made_once(source, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(scenes, "SCENES_TRAIN", 2)
    monkeypatch.setattr(scenes, "SCENES_TEST", 1)
    folder = scenes.made(source)
    assert folder.parent.parent == tmp_path
    before = (folder / "annotations" / "instances_train.json").stat()
    assert scenes.made() == folder
    assert (folder / "annotations" / "instances_train.json").stat() == before
