"""Small scenes in COCO's format: clothes and digits on textured grounds.

A run on them takes minutes. What is learnt is what COCO has: objects of several sizes that overlap
and are cut off at the edges, in boxes, with masks, and with keypoints that are seen, hidden by
another object, or not there.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contourpy import FillType, contour_generator
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pycocotools import mask as masks

from experiments.errors import UserError, explained
from experiments.tasks.examples import drawing
from experiments.tasks.images import pair
from experiments.tasks.sources import (
    FASHION_MNIST_DIR,
    FASHION_MNIST_FILES,
    SCENES_TEST,
    SCENES_TRAIN,
)

__all__ = ["CATEGORIES", "KEYPOINTS", "SIZE", "made", "write"]

SIZE = 96  # pixels a side
SEED = 0
CATEGORIES = ("top", "trouser", "dress", "shoe", "bag", "digit")
# The ten classes of Fashion-MNIST: those that hardly differ in outline are one here.
_CLOTHES = ("top", "trouser", "top", "dress", "top", "shoe", "top", "shoe", "bag", "shoe")
KEYPOINTS = ("left_top", "right_top", "left_bottom", "right_bottom", "centre")
_OBJECTS = (0, 6)  # from the first to one below the last
_SIDES = (18, 60)  # of an object, in pixels
_SEEN = 0.4  # the least part of an object that stays in sight
Mask = NDArray[np.bool_]
Grey = NDArray[np.uint8]
_Record = dict[str, Any]


class Thing(NamedTuple):
    """An object that has its place in a scene.

    Attributes:
        category: its name.
        whole: which pixels are its own, on a ground that goes beyond the scene by `SIZE` each way.
        seen: which of the scene's are, without what hides them.
    """

    category: str
    whole: Mask
    seen: Mask


def made(source: Path | None = None) -> Path:
    """Return the folder of scenes that is kept for all runs; it is written at the first call."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "zenith-experiments" / f"scenes-{SIZE}-{SCENES_TRAIN}-{SCENES_TEST}-{SEED}"
    if folder.is_dir():
        return folder
    return write(folder, source, SCENES_TRAIN, SCENES_TEST, SEED)


def write(
    folder: Path,
    source: Path | None = None,
    train: int = SCENES_TRAIN,
    test: int = SCENES_TEST,
    seed: int = SEED,
) -> Path:
    """Write scenes in COCO's format, whole or not at all; return the folder.

    There are `train` and `val`, folders of PNG files, and for each of them in `annotations` two
    files: `instances_PART.json`, with masks as polygons, or as run lengths where there is a hole,
    and `keypoints_PART.json`, of the clothes alone: digits have none.

    Args:
        folder: that is not there yet.
        source: of Fashion-MNIST's files; by default, where Debian's package puts them.
        train: scenes to train on, of Fashion-MNIST's training images.
        test: scenes to test on, of its test images.
        seed: of all that is drawn.

    Raises:
        UserError: if the folder is there or cannot be written, or the source is not sound.
    """
    source = source or FASHION_MNIST_DIR
    if not source.is_dir():
        raise UserError(f"{source}: must be a folder with {FASHION_MNIST_FILES}")
    if folder.exists():
        raise UserError(f"{folder}: is there; scenes are written into a new folder")
    with explained(f"{folder}: cannot be written"):
        unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
        unfinished.mkdir(parents=True)
        try:
            for part, name, count in (("train", "train", train), ("val", "t10k", test)):
                random = np.random.default_rng([seed, part == "val"])
                _write_part(unfinished, part, _items(source, name), count, random)
            _moved(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _moved(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:  # another process, which writes the same, was faster
        if not folder.is_dir():
            raise


def _items(source: Path, name: str) -> dict[str, list[Grey]]:
    """Pictures of each category, grey on black; of the digits the first 1,347 train."""
    from sklearn.datasets import load_digits

    found: dict[str, list[Grey]] = {category: [] for category in CATEGORIES}
    images, labels = pair(source, name)
    for image, label in zip(images, labels, strict=True):
        found[_CLOTHES[int(label)]].append(image.astype(np.uint8))
    digits = (load_digits().images * 255 / 16).astype(np.uint8)
    found["digit"] = list(digits[:1347] if name == "train" else digits[1347:])
    return {category: items for category, items in found.items() if items}


def _write_part(
    folder: Path, part: str, items: dict[str, list[Grey]], count: int, random: Generator
) -> None:
    (folder / part).mkdir()
    (folder / "annotations").mkdir(exist_ok=True)
    images, things = [], []
    for own in range(1, count + 1):
        picture, seen = scene(items, random)
        name = f"{own:06}.png"
        Image.fromarray(picture).save(folder / part / name)
        images.append({"id": own, "file_name": name, "width": SIZE, "height": SIZE})
        things += [(own, thing) for thing in seen]
    for kind, document in _documents(images, things):
        path = folder / "annotations" / f"{kind}_{part}.json"
        path.write_text(json.dumps(document), encoding="utf-8")


def scene(items: dict[str, list[Grey]], random: Generator) -> tuple[Grey, list[Thing]]:
    """Return a picture, shape `(SIZE, SIZE, 3)`, and what is in it, what lies below first."""
    canvas = ground(random)
    things: list[Thing] = []
    for _ in range(random.integers(*_OBJECTS)):
        category = str(random.choice(list(items)))
        item = items[category][random.integers(len(items[category]))]
        grey, whole = _placed(item, random)
        seen = _within(whole)
        below = [thing._replace(seen=thing.seen & ~seen) for thing in things]
        if not all(map(_in_sight, (*below, Thing(category, whole, seen)))):
            continue
        things = [*below, Thing(category, whole, seen)]
        colour = random.uniform(0.45, 1.0, 3)
        shaded = (80 + grey[..., None] * (175 / 255)) * colour
        canvas = np.where(seen[..., None], shaded, canvas)
    noisy = canvas + random.normal(0, 4, canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8), things


def ground(random: Generator) -> NDArray[np.float64]:
    """Return a texture: blurred noise of a random grain, between two dark colours."""
    noise = Image.fromarray(random.integers(0, 256, (SIZE, SIZE), dtype=np.uint8))
    blurred = np.array(noise.filter(ImageFilter.GaussianBlur(random.uniform(1, 8))), np.float64)
    share = (blurred - blurred.min()) / max(np.ptp(blurred), 1)
    one, other = random.uniform(0, 110, (2, 3))
    texture: NDArray[np.float64] = one + share[..., None] * (other - one)
    return texture


def _placed(item: Grey, random: Generator) -> tuple[Grey, Mask]:
    """An item of a random size at a random place: its grey in the scene, and all its pixels."""
    side = int(random.integers(*_SIDES))
    scaled = np.array(Image.fromarray(item).resize((side, side), Image.Resampling.BILINEAR))
    top, left = random.integers(SIZE - side // 4, 2 * SIZE - 3 * side // 4, 2)
    wide = np.zeros((3 * SIZE, 3 * SIZE), np.uint8)
    wide[top : top + side, left : left + side] = scaled
    return _within(wide), wide > 40


def _within(wide: NDArray[Any]) -> NDArray[Any]:
    return wide[SIZE:-SIZE, SIZE:-SIZE]


def _in_sight(thing: Thing) -> bool:
    return bool(thing.seen.sum() >= max(40, _SEEN * thing.whole.sum()))


def _documents(
    images: Sequence[_Record], things: Sequence[tuple[int, Thing]]
) -> Iterator[tuple[str, _Record]]:
    """Both files of a part, by their kinds."""
    numbers = {name: i for i, name in enumerate(CATEGORIES, start=1)}
    named = [{"id": i, "name": name} for name, i in numbers.items()]
    drawn = [
        {"image_id": own, "category_id": numbers[thing.category], **_outlined(thing)}
        for own, thing in things
    ]
    yield "instances", _document(images, named, drawn)
    item = {"id": 1, "name": "clothes", "keypoints": list(KEYPOINTS), "skeleton": []}
    clothes = [
        each | {"category_id": 1, **_pointed(thing)}
        for each, (_, thing) in zip(drawn, things, strict=True)
        if thing.category != "digit"
    ]
    yield "keypoints", _document(images, [item], clothes)


def _document(
    images: Sequence[_Record], categories: Sequence[_Record], annotations: Sequence[_Record]
) -> _Record:
    numbered = [{"id": i, **each} for i, each in enumerate(annotations, start=1)]
    return {"images": images, "categories": categories, "annotations": numbered}


def _outlined(thing: Thing) -> _Record:
    """Its mask, and the area and box that pycocotools makes of that."""
    shape = polygons(thing.seen) or run_lengths(thing.seen)
    encoded = masks.encode(np.asfortranarray(drawing(shape, thing.seen.shape)))
    box = [float(x) for x in masks.toBbox(encoded)]
    area = int(masks.area(encoded))
    return {"segmentation": shape, "area": area, "bbox": box, "iscrowd": 0}


def polygons(mask: Mask) -> list[list[float]]:
    """Return the outlines of a mask, x and y in turn, a pixel being one wide; none with a hole."""
    padded = np.pad(mask.astype(float), 1)
    contours: Any = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    points, offsets = contours.filled(0.5, 2.0)
    if any(len(each) > 2 for each in offsets):
        return []
    # the middle of pixel (0, 0) is at 1, 1 there, and at 0.5, 0.5 here
    return [[round(float(x), 2) for x in (each[:-1] - 0.5).ravel()] for each in points]


def run_lengths(mask: Mask) -> _Record:
    """Return a mask as COCO has run lengths: down the columns, of 0 first."""
    flat = mask.T.ravel()
    turns = np.flatnonzero(np.diff(flat, prepend=False, append=~flat[-1]))
    counts = np.diff(turns, prepend=0)
    return {"size": list(mask.shape), "counts": [int(n) for n in counts]}


def _pointed(thing: Thing) -> _Record:
    """The keypoints: the outermost pixels along the diagonals, and the middle of all of them."""
    rows, columns = np.nonzero(thing.whole)
    corners = [int(np.argmin(side * columns + end * rows)) for end in (1, -1) for side in (1, -1)]
    places = [(columns[i], rows[i]) for i in corners] + [(columns.mean(), rows.mean())]
    points = [value for x, y in places for value in _point(thing, int(x) - SIZE, int(y) - SIZE)]
    return {"keypoints": points, "num_keypoints": sum(v > 0 for v in points[2::3])}


def _point(thing: Thing, x: int, y: int) -> tuple[int, int, int]:
    """A place with its visibility: 0 beyond the edges, 1 hidden, 2 seen."""
    if not (0 <= x < SIZE and 0 <= y < SIZE):
        return 0, 0, 0
    return x, y, 2 if thing.seen[y, x] else 1
