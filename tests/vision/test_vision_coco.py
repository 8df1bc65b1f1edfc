"""COCO's format: what is read of it, what is said of a broken file, the flip and the evaluation."""

import json

import numpy as np
import pytest
import torch
from _coco import BOXES, HEIGHT, NAMES, WIDTH, annotation, changed, document, write
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from experiments.errors import UserError
from experiments.tasks.coco import read
from experiments.tasks.examples import Seen, drawing, flipped, pairs
from experiments.tasks.precision import SIGMA, map50, records

KINDS = ("instances", "keypoints")
FILES = {"instances": "instances", "keypoints": "person_keypoints"}
OWN = {"instances": "mask_map50", "keypoints": "keypoint_map50"}


def reading(folder, kind):
    file = folder / "annotations" / f"{FILES[kind]}_val2017.json"
    return read(file, folder / "val2017", kind)


@pytest.fixture(params=KINDS)
def source(request, tmp_path):
    return reading(write(tmp_path), request.param)


def found(source, boxes, score=0.9):
    """What a detector that finds just these boxes, by image, would put out, as COCO has it."""
    results = []
    for own, (x, y, width, height) in boxes.items():
        mask = torch.zeros(1, 1, HEIGHT, WIDTH)
        mask[..., y : y + height, x : x + width] = 1
        points = torch.tensor(annotation(1, 1, (x, y, width, height))["keypoints"]).reshape(1, 3, 3)
        output = {
            "boxes": torch.tensor([[x, y, x + width, y + height]]).float(),
            "labels": torch.tensor([1]),
            "scores": torch.tensor([score]),
            **({"masks": mask} if source.kind == "instances" else {"keypoints": points.float()}),
        }
        results += records(source, own, output)
    return results


def test_all_is_found(source):
    assert map50(source, found(source, BOXES)) == {"box_map50": 100, OWN[source.kind]: 100}


def test_nothing_is_found(source, capsys):
    nothing = {"box_map50": 0, OWN[source.kind]: 0}
    far = {own: [WIDTH - 9, 0, 8, 5] for own in BOXES}
    assert map50(source, found(source, far)) == nothing
    assert map50(source, []) == nothing
    assert capsys.readouterr().out == ""


def test_one_of_two_is_found(tmp_path):
    two = {own: BOXES[own] for own in (1, 2)}
    folder = write(tmp_path, document(two))
    for kind in KINDS:
        source = reading(folder, kind)
        half = map50(source, found(source, {1: BOXES[1]}))
        # precision is 1 at the recalls 0, 0.01, ..., 0.5 of 101, and then 0
        assert half == pytest.approx({"box_map50": 5100 / 101, OWN[kind]: 5100 / 101})
        # with something wrong that is surer, precision is one half up to there
        wrong = found(source, {2: [0, 0, 9, 9]}, score=0.95)
        half = map50(source, [*wrong, *found(source, {1: BOXES[1]})])
        assert half == pytest.approx({"box_map50": 2550 / 101, OWN[kind]: 2550 / 101})


def test_an_overlap_below_one_half_is_none(source):
    # three quarters of the width, and then less than one half
    for share, expected in ((0.75, 100), (0.45, 0)):
        boxes = {own: [x, y, round(share * w), h] for own, (x, y, w, h) in BOXES.items()}
        assert map50(source, found(source, boxes))["box_map50"] == expected


def test_a_keypoint_counts_by_its_distance_in_sizes_of_the_object(tmp_path):
    """All three keypoints d apart: the likeness is exp(-d^2 / (2 area (2 sigma)^2))."""
    source = reading(write(tmp_path, document({1: BOXES[1]})), "keypoints")
    limit = np.sqrt(2 * np.log(2) * 320 * (2 * SIGMA) ** 2)  # where it is one half
    for far, expected in ((limit - 0.01, 100), (limit + 0.01, 0)):
        (result,) = found(source, {1: BOXES[1]})
        result["keypoints"] = [x + far * (i % 3 == 0) for i, x in enumerate(result["keypoints"])]
        assert map50(source, [result])["keypoint_map50"] == pytest.approx(expected)


def test_it_is_ap50_of_cocos_own_table(tmp_path, capsys):
    """On boxes that are near, far or doubled, beside COCO's own `summarize`."""
    folder = write(tmp_path)
    source = reading(folder, "instances")
    random = np.random.default_rng(1)
    results = []
    for _ in range(20):
        own = int(random.integers(1, 5))
        x, y, width, height = BOXES.get(own, [5, 5, 20, 20])
        box = [x + int(random.integers(-3, 4)), y, width, max(4, height - random.integers(12))]
        results += found(source, {own: list(map(int, box))}, score=float(random.uniform()))
    ours = map50(source, results)
    truth = COCO(str(source.file))
    theirs = {}
    for name, kind in (("box_map50", "bbox"), ("mask_map50", "segm")):
        evaluation = COCOeval(truth, truth.loadRes([dict(each) for each in results]), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        theirs[name] = 100 * evaluation.stats[1]
    assert ours == pytest.approx(theirs)
    assert 0 < ours["box_map50"] < 100


def test_a_crowd_is_not_learnt_and_not_counted_as_missed(tmp_path):
    def crowd(content):
        length = {"size": [HEIGHT, WIDTH], "counts": [0, 240, HEIGHT * WIDTH - 240]}
        more = {"iscrowd": 1, "segmentation": length, "area": 240, "bbox": [0, 0, 5, 48]}
        content["annotations"][1] |= more

    source = reading(write(tmp_path, changed(crowd)), "instances")
    assert len(Seen(source)[2, False][1]["boxes"]) == 0
    rest = {own: BOXES[own] for own in (1, 4)}
    assert map50(source, found(source, rest)) == {"box_map50": 100, "mask_map50": 100}


def test_an_object_of_no_area_counts_as_missed(tmp_path):
    source = reading(write(tmp_path, changed(first(bbox=[4, 6, 20, 0]))), "instances")
    rest = {own: BOXES[own] for own in (2, 4)}
    # precision is 1 at the recalls 0, 0.01, ..., 0.66 of 101, and then 0
    assert map50(source, found(source, rest))["box_map50"] == pytest.approx(6700 / 101)


def test_what_an_example_is(source):
    image, target = Seen(source)[2, False]
    assert (image.shape, image.dtype) == ((3, HEIGHT, WIDTH), torch.float32)
    assert target["boxes"].tolist() == [[30, 20, 54, 44]]
    assert target["labels"].tolist() == [1]
    if source.kind == "instances":
        mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8)
        mask[:, 20:44, 30:54] = 1
        assert torch.equal(target["masks"], mask)
    else:
        assert target["keypoints"].tolist() == [[[32, 22, 2], [31, 24, 1], [52, 24, 2]]]


def test_an_image_without_objects_is_one_to_learn_from(source):
    _, target = Seen(source)[3, True]
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    own = target["masks" if source.kind == "instances" else "keypoints"]
    assert own.shape == ((0, HEIGHT, WIDTH) if source.kind == "instances" else (0, 3, 3))


def test_a_box_is_cut_at_the_edges(tmp_path):
    def beyond(content):
        content["annotations"][0]["bbox"] = [-2.5, 40, 10, 10.25]

    source = reading(write(tmp_path / "a", changed(beyond)), "instances")
    assert Seen(source)[1, False][1]["boxes"].tolist() == [[0, 40, 7.5, 48]]
    source = reading(write(tmp_path / "b", changed(first(bbox=[0, 0, 2**70, 5]))), "instances")
    assert Seen(source)[1, False][1]["boxes"].tolist() == [[0, 0, 64, 5]]


def test_run_lengths_as_text_are_read_as_pycocotools_reads_them(tmp_path):
    random = np.random.default_rng(0)
    for share in (0, 0.001, 0.1, 0.5, 1):
        drawn = np.asfortranarray(random.uniform(size=(HEIGHT, WIDTH)) < share, np.uint8)
        packed = masks.encode(drawn) | {"size": [HEIGHT, WIDTH]}
        packed["counts"] = packed["counts"].decode()
        folder = tmp_path / str(share)
        source = reading(write(folder, changed(first(segmentation=packed))), "instances")
        assert np.array_equal(Seen(source)[1, False][1]["masks"][0], drawn)


def test_a_picture_may_lie_in_a_folder_of_the_folder(tmp_path):
    folder = write(tmp_path)
    at = folder / "val2017"
    (at / "sub").mkdir()
    (at / "000000000003.jpg").rename(at / "sub" / "a.jpg")
    file = folder / "annotations" / "instances_val2017.json"
    for name in ("sub/a.jpg", "./sub/a.jpg", str(at / "sub" / "a.jpg")):
        file.write_text(json.dumps(changed(lambda c, n=name: c["images"][2].update(file_name=n))))
        assert Seen(reading(folder, "instances"))[3, False][0].shape == (3, HEIGHT, WIDTH)


def test_the_pairs_of_cocos_keypoints():
    parts = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    names = ["nose", *(f"{side}_{part}" for part in parts for side in ("left", "right"))]
    # as torchvision's reference for detection has them
    expected = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    assert pairs(names) == expected
    assert pairs(["Left eye", "eye-right", "eye-left", "Right eye"]) == [3, 2, 1, 0]


def test_the_flip_by_hand():
    image = torch.arange(8.0).reshape(1, 2, 4)
    drawn = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0]]])
    points = torch.tensor([[[1.0, 0, 2], [0, 1, 1], [0, 0, 0]]])  # the last is not there
    target = {"boxes": torch.tensor([[0.0, 0, 2, 2]]), "masks": drawn, "keypoints": points}
    mirrored, other = flipped(image, target, pairs(NAMES))
    assert mirrored.tolist() == [[[3, 2, 1, 0], [7, 6, 5, 4]]]
    assert other["boxes"].tolist() == [[2, 0, 4, 2]]
    assert other["masks"].tolist() == [[[0, 0, 1, 1], [0, 0, 0, 1]]]
    # the nose moves; the left eye is the right one now, and there is no left one
    assert other["keypoints"].tolist() == [[[2, 0, 2], [0, 0, 0], [3, 1, 1]]]
    assert target["keypoints"].tolist() == [[[1, 0, 2], [0, 1, 1], [0, 0, 0]]]
    # what a keypoint names is the same pixel, and twice is never
    assert mirrored[0, 0, 2] == image[0, 0, 1]
    again, back = flipped(mirrored, other, pairs(NAMES))
    assert torch.equal(again, image)
    assert all(torch.equal(back[name], target[name]) for name in target)


def test_a_mask_is_the_same_as_polygon_and_as_run_lengths():
    x, y, width, height = 3, 2, 4, 5
    outline = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    counts = [x * 10 + y, height, 5, height, 5, height, 5, height, 10 * 13 + 3]
    lengths = {"size": [10, 20], "counts": counts}
    expected = np.zeros((10, 20), np.uint8)
    expected[y : y + height, x : x + width] = 1
    assert np.array_equal(drawing(outline, [10, 20]), expected)
    assert np.array_equal(drawing(lengths, [10, 20]), expected)


def first(**more):
    return lambda content: content["annotations"][0].update(more)


def names(*three):
    return lambda content: content["categories"][0].update(keypoints=list(three))


def again(name):
    return lambda content: content[name].append(content[name][0])


WRONG = [
    (lambda c: c.pop("images"), "`images` must be a list of one or more, got null"),
    (lambda c: c.update(annotations=[]), "`annotations` must be a list of one or more, got []"),
    (again("annotations"), "annotation 1: `id` is there twice"),
    (again("images"), "image 1: `id` is there twice"),
    (again("categories"), "category 7: `id` is there twice"),
    (first(id=0), "`annotations`, number 0: `id` must be an integer >= 1, got 0"),
    (first(id="1"), "`annotations`, number 0: `id` must be an integer >= 1, got '1'"),
    (first(image_id=9), "annotation 1: `image_id` 9 is unknown"),
    (first(category_id=1), "annotation 1: `category_id` 1 is unknown"),
    (first(iscrowd=None), "annotation 1: `iscrowd` must be 0 or 1, got None"),
    (first(image_id=True), "annotation 1: `image_id` True is unknown"),
    (first(area=10**400), "annotation 1: `area` must be a number in 0..3072, got 1000"),
    (first(area="x"), 'annotation 1: `area` must be a number in 0..3072, got "x"'),
    (first(area=True), "annotation 1: `area` must be a number in 0..3072, got true"),
    (first(area=-1), "annotation 1: `area` must be a number in 0..3072, got -1"),
    (first(area=3076), "annotation 1: `area` must be a number in 0..3072, got 3076"),
    (first(area=float("nan")), "annotation 1: `area` must be a number in 0..3072, got NaN"),
    (first(bbox=[10**400, -(10**400), 3, 4]), "annotation 1: `bbox` must be x, y, width, height"),
    (first(bbox=[1, 2, 3]), "annotation 1: `bbox` must be x, y, width, height, got [1, 2, 3]"),
    (first(bbox=[1, 2, -3, 4]), "annotation 1: `bbox` must be x, y, width, height, got [1, 2, -3"),
    (first(bbox=[1, 2, 3, float("nan")]), "annotation 1: `bbox` must be x, y, width, height, got"),
    (first(bbox=[70, 2, 3, 4]), "annotation 1: `bbox` [70, 2, 3, 4] is outside image 1"),
    (first(bbox=[-4, 2, 3, 4]), "annotation 1: `bbox` [-4, 2, 3, 4] is outside image 1"),
    (lambda c: c["images"][2].update(width=0), "image 3: `width` must be pixels, got 0"),
    (lambda c: c["images"][2].update(width=2**31), "image 3: `width` must be pixels, got 21474836"),
    (lambda c: c["images"][2].pop("file_name"), "image 3: `file_name` must be text"),
    (lambda c: c["images"][2].update(file_name="a.jpg"), "image 3: "),
]
NONE = "annotation 1: `counts` must be integers >= 0, or COCO's text of them, got "
COUNTS = [
    ("", "annotation 1: `counts` must come to 3072 pixels, got 0"),
    ("zzz", f'{NONE}"zzz"'),  # all three say that more follows
    ("ü", f'{NONE}"'),
    ("O0", f'{NONE}"O0"'),  # -1 and 0
    ("PPPPPPP0", f'{NONE}"PPPPPPP0"'),  # more bits than a length has
    ("11111111", "annotation 1: `counts` must come to 3072 pixels, got 17"),  # 1 1 1 2 2 3 3 4
    (["a"], f'{NONE}["a"]'),
    ([None], f"{NONE}[null]"),
    ([True, 3071], f"{NONE}[true, 3071]"),
    ([[3072]], f"{NONE}[[3072]]"),
    ([3080, -8], f"{NONE}[3080, -8]"),
    ([1536.5, 1535.5], f"{NONE}[1536.5, 1535.5]"),
]
INSTANCES = [
    (first(segmentation=[]), "annotation 1: `segmentation` must be run lengths, or polygons of"),
    (first(segmentation=[[1, 2, 3, 4, 5]]), "annotation 1: `segmentation` must be run lengths, or"),
    (first(segmentation={"counts": "x"}), "annotation 1: run lengths in `segmentation` must have"),
    (
        first(segmentation={"size": [48, 64], "counts": [1, 2]}),
        "annotation 1: `counts` must come to 3072 pixels, got 3",
    ),
    *((first(segmentation={"size": [48, 64], "counts": c}), said) for c, said in COUNTS),
    (
        first(segmentation=[[0, 0, 64, 0, 1e7, 9]]),
        "annotation 1: `segmentation` must have x in -64..128, got [0, 1",
    ),
    (
        first(segmentation=[[0, 0, 64, 0, 9, -49]]),
        "annotation 1: `segmentation` must have y in -48..96, got [-49, 0]",
    ),
]
PAIRS = "category 7: `keypoints` must have left and right in pairs, as left_eye, right_eye: "
UNPAIRED = [
    ("leftEye", "rightEye"),
    ("Left_eye", "right_eye"),
    ("left_eye", "right_ear"),
    ("lefteye", "tail"),
    ("l_eye", "r_eye"),
    ("eye-R", "eye-L"),
]
KEYPOINTS = [
    (first(keypoints=[1, 2, 3]), "annotation 1: `keypoints` must be 3 of x, y, visibility (0, 1"),
    (first(num_keypoints=2), "annotation 1: `num_keypoints` must be 3, got 2"),
    (
        lambda c: c["categories"][0].update(keypoints=[]),
        "must have one category, with the names of its `keypoints`",
    ),
    (names("nose", "ear", "ear"), "category 7: `keypoints` has 'ear' twice"),
    *((names("nose", *both), f"{PAIRS}{both[0]!r}") for both in UNPAIRED),
    (
        lambda c: c["categories"].append({"id": 8, "name": "dog"}),
        "must have one category, with the names of its `keypoints`",
    ),
]
CASES = [(kind, *case) for kind in KINDS for case in WRONG]
CASES += [("instances", *case) for case in INSTANCES] + [("keypoints", *case) for case in KEYPOINTS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("kind", "change", "complaint"), CASES)
def test_what_is_wrong_is_one_line_with_file_and_id(kind, change, complaint, whole, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(changed(change)))
    with pytest.raises(UserError) as caught:
        read(file, whole / "val2017", kind)
    assert str(caught.value).startswith(f"{file}: {complaint}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"images": [', "not sound JSON (Expecting value: line 1 column 13 (char 12))"),
        (b"\xff\xfe{}\x80", "not sound JSON ("),
        (b"[" * 10**5, "not sound JSON (maximum recursion depth exceeded"),
        (b"[1, 2]", "must hold an object, as COCO's files do"),
    ],
)
def test_a_file_that_is_no_json_object(content, complaint, whole, tmp_path):
    file = tmp_path / "mine.json"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(file, whole / "val2017", "instances")
    assert str(caught.value).startswith(f"{file}: {complaint}")


def test_files_that_are_missing(whole, tmp_path):
    file = whole / "annotations" / "instances_val2017.json"
    with pytest.raises(UserError, match=r"none\.json: cannot be read \(No such file"):
        read(whole / "none.json", whole / "val2017", "instances")
    with pytest.raises(UserError, match=f"^{tmp_path / 'none'}: cannot be read"):
        read(file, tmp_path / "none", "instances")
    picture = whole / "train2017" / "000000000003.jpg"
    moved = picture.rename(tmp_path / "moved.jpg")
    with pytest.raises(UserError, match=f"^{file}: image 3: {picture} is missing$"):
        read(file, whole / "train2017", "instances")
    moved.rename(picture)


@pytest.mark.parametrize(
    "box", [[4, 6, 20, 0], [60, 10, 1e-7, 5], [63.9999999, 10, 1, 5], [-1, 10, 1 + 1e-7, 5]]
)
def test_a_box_of_no_area_is_not_learnt_and_named_but_is_there_to_be_found(box, tmp_path, capsys):
    folder = write(tmp_path, changed(first(bbox=box)))
    source = reading(folder, "instances")
    assert [each["id"] for each in source.annotations] == [1, 2, 3]
    assert [own in Seen(source).packed for own in (1, 2, 4)] == [False, True, True]
    said = capsys.readouterr().err
    assert f"{source.file}: annotation 1: left out of training, for its `bbox` has no area" in said


def test_a_picture_that_cannot_be_read_or_has_another_size(tmp_path):
    source = reading(write(tmp_path), "instances")
    broken = source.folder / "000000000002.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    wrong = Seen(source)[2, False]
    assert isinstance(wrong, UserError)
    assert str(wrong).startswith(f"{source.file}: image 2: {broken}: ")
    source.images[3]["width"] = 65
    assert str(Seen(source)[3, False]).endswith("must have size [48, 65], got [48, 64]")
