"""Pictures with what is in them, in COCO's format, read strictly.

A file of annotations is that of COCO (Lin et al., 2014): images, categories and annotations, each
with an id; boxes as x, y, width, height; masks as polygons or run lengths; keypoints as x, y and
visibility. Whatever is wrong in it ends in one line that names the file and the id.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import isfinite
from os import scandir
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.errors import UserError, explained
from experiments.terminal import say

__all__ = ["Annotations", "Kind", "Record", "corners", "mirrored", "read"]

Kind = Literal["instances", "keypoints"]
Record = dict[str, Any]
_SIDES = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
_SIDES |= {right: left for left, right in _SIDES.items()}


class Annotations(NamedTuple):
    """A file of annotations that was found to be sound, and the folder of its pictures."""

    file: Path
    folder: Path
    kind: Kind
    images: Mapping[int, Record]  # by id, in the order of the file
    categories: Mapping[int, Record]  # by id, in the order of the ids
    digest: str  # how the SHA-256 of the file begins
    annotations: Sequence[Record]

    @property
    def labels(self) -> dict[int, int]:
        """The number of each category, from 1: a detector's 0 is the background."""
        return {own: i for i, own in enumerate(self.categories, start=1)}

    @property
    def keypoints(self) -> list[str]:
        """The names of an object's keypoints; of instances there are none."""
        names: list[str] = next(iter(self.categories.values())).get("keypoints", [])
        return names if self.kind == "keypoints" else []

    @property
    def by_image(self) -> Mapping[int, list[Record]]:
        """The annotations of each image that has any."""
        found: dict[int, list[Record]] = defaultdict(list)
        for each in self.annotations:
            found[each["image_id"]].append(each)
        return found


def read(file: Path, folder: Path, kind: Kind) -> Annotations:
    """Return the annotations in a file.

    A box of no area is none to learn: its annotation is left out, and named on stderr, for it has
    been met in published files, and torchvision's own training drops it too. So is one that, cut at
    the edges, measures less than a millionth of its image: mirrored in float32 it may have none.

    Args:
        file: of annotations, JSON.
        folder: of the pictures.
        kind: what there must be besides boxes: `instances` (masks) or `keypoints`.

    Raises:
        UserError: naming the file, and where it lies in one of them, the id: not sound JSON, a list
            that is missing or empty, an id that is no positive integer or there twice, a picture
            that is missing, an image or category that is unknown, an area that no object in its
            image has, a box outside it, masks or keypoints that are none, and keypoints of which a
            mirror knows no name.
    """
    with explained(f"{file}: cannot be read"):
        content = file.read_bytes()
    digest = sha256(content).hexdigest()[:16]
    try:
        found = _checked(_document(content), Annotations(file, folder, kind, {}, {}, digest, []))
        _complete(found)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    return found


def _document(content: bytes) -> Record:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:  # where it is no UTF-8, or too deep
        raise ValueError(f"not sound JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError("must hold an object, as COCO's files do")
    return document


def _checked(document: Record, empty: Annotations) -> Annotations:
    images, categories, annotations = (
        _by_id(document, name) for name in ("images", "categories", "annotations")
    )
    for own, image in images.items():
        if not isinstance(image.get("file_name"), str):
            raise ValueError(f"image {own}: `file_name` must be text")
        for side in ("width", "height"):
            if type(image.get(side)) is not int or not 1 <= image[side] < 2**31:
                raise ValueError(f"image {own}: `{side}` must be pixels, got {image.get(side)}")
    named = [each.get("keypoints") for each in categories.values()]
    if empty.kind == "keypoints" and not (len(named) == 1 and _names(named[0])):
        raise ValueError("must have one category, with the names of its `keypoints`")
    found = empty._replace(images=images, categories=dict(sorted(categories.items())))
    if wrong := _wrong_names(found.keypoints):
        raise ValueError(f"category {next(iter(categories))}: {wrong}")
    kept = [each for each in annotations.values() if _sound(each, found)]
    return found._replace(annotations=kept)


def _by_id(document: Record, name: str) -> dict[int, Record]:
    """The records of a list by their ids."""
    records, one = document.get(name), {"categories": "category"}.get(name, name[:-1])
    if not isinstance(records, list) or not records:
        raise ValueError(f"`{name}` must be a list of one or more, got {_short(records)}")
    found: dict[int, Record] = {}
    for i, record in enumerate(records):
        own = record.get("id") if isinstance(record, dict) else None
        if type(own) is not int or own < 1:  # to an evaluation 0 is none
            raise ValueError(f"`{name}`, number {i}: `id` must be an integer >= 1, got {own!r}")
        if own in found:
            raise ValueError(f"{one} {own}: `id` is there twice")
        found[own] = record
    return found


def _sound(each: Record, beside: Annotations) -> bool:
    """Whether an annotation is one to keep; what is wrong in it is raised."""
    said = f"annotation {each['id']}"
    for name, known in (("image_id", beside.images), ("category_id", beside.categories)):
        if type(each.get(name)) is not int or each[name] not in known:
            raise ValueError(f"{said}: `{name}` {each.get(name)!r} is unknown")
    if each.get("iscrowd") not in (0, 1):
        raise ValueError(f"{said}: `iscrowd` must be 0 or 1, got {each.get('iscrowd')!r}")
    image = beside.images[each["image_id"]]
    if wrong := _wrong_box(each, image):
        raise ValueError(f"{said}: {wrong}")
    left, top, right, bottom = corners(each["bbox"], _size(image))
    if min((right - left) / image["width"], (bottom - top) / image["height"]) < 1e-6:
        say(f"{beside.file}: {said}: left out, for its `bbox` has no area: {each['bbox']}")
        return False
    wrong = _wrong_mask(each, image) if beside.kind == "instances" else _wrong_points(each, beside)
    if wrong:
        raise ValueError(f"{said}: {wrong}")
    return True


def _wrong_box(each: Record, image: Record) -> str:
    """What is wrong with an area or a box; "" where nothing is."""
    area: Any = each.get("area")
    box: Any = each.get("bbox")
    height, width = _size(image)
    # An outline's is a real number: hence the thousandth. COCO's evaluation would not count an
    # object of another area as missed.
    if type(area) not in (int, float) or not 0 <= area <= 1.001 * width * height:
        return f"`area` must be a number in 0..{width * height}, got {_short(area)}"
    if not isinstance(box, list) or not _finite(box, 4) or box[2] < 0 or box[3] < 0:
        return f"`bbox` must be x, y, width, height, got {_short(box)}"
    beyond = box[0] >= width or box[1] >= height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0
    return f"`bbox` {box} is outside image {image['id']}" if beyond and box[2] and box[3] else ""


def _wrong_mask(each: Record, image: Record) -> str:
    """What is wrong with a mask; "" where nothing is."""
    shape, (height, width) = each.get("segmentation"), _size(image)
    if isinstance(shape, dict):
        return _wrong_lengths(shape, [height, width])
    whole = isinstance(shape, list) and shape
    if not whole or not all(_finite(p) and len(p) >= 6 and len(p) % 2 == 0 for p in shape or ()):
        return f"`segmentation` must be run lengths, or polygons of x, y, ..., got {_short(shape)}"
    for i, side in enumerate((width, height)):  # pycocotools takes memory for each pixel of a line
        ends = [end(p[i::2]) for p in shape or () for end in (min, max)]
        if min(ends) < -side or max(ends) > 2 * side:
            return f"`segmentation` must have {'xy'[i]} in {-side}..{2 * side}, got {_short(ends)}"
    return ""


def _wrong_lengths(shape: Record, size: list[int]) -> str:
    """What is wrong with run lengths; "" where nothing is."""
    counts, pixels = shape.get("counts"), size[0] * size[1]
    if shape.get("size") != size or not isinstance(counts, str | list):
        return f"run lengths in `segmentation` must have `counts`, and the `size` {size}"
    lengths = _unpacked(counts) if isinstance(counts, str) else counts
    if not all(type(each) is int and each >= 0 for each in lengths):
        return f"`counts` must be integers >= 0, or COCO's text of them, got {_short(counts)}"
    if sum(lengths) != pixels:
        return f"`counts` must come to {pixels} pixels, got {_short(sum(lengths))}"
    return ""


def _unpacked(text: str) -> list[int]:
    """The run lengths in COCO's text, as pycocotools' `rleFrString` has them; [-1] if it is none.

    A character less 48 has five bits, the lowest first, and a sixth where more follow; the highest
    is the sign. From the fourth on a number is what is added to the last but one.
    """
    found: list[int] = []
    number = bits = 0
    for value in (ord(character) - 48 for character in text):
        if not 0 <= value < 64 or bits > 25:  # of more bits pycocotools would lose some
            return [-1]
        number, bits = number | (value & 31) << bits, bits + 5
        if value < 32:
            number -= (value & 16) << (bits - 4)
            found.append(number + (found[-2] if len(found) > 2 else 0))
            number = bits = 0
    return [-1] if bits else found


def _wrong_points(each: Record, beside: Annotations) -> str:
    """What is wrong with keypoints; "" where nothing is."""
    points: Any = each.get("keypoints")
    count = len(beside.keypoints)
    if not _finite(points, 3 * count) or not {*points[2::3]} <= {0, 1, 2}:
        return f"`keypoints` must be {count} of x, y, visibility (0, 1 or 2), got {_short(points)}"
    seen = sum(v > 0 for v in points[2::3])
    if each.get("num_keypoints") != seen:
        return f"`num_keypoints` must be {seen}, got {each.get('num_keypoints')!r}"
    return ""


def _wrong_names(names: Sequence[str]) -> str:
    """What is wrong with the names of keypoints; "" where nothing is."""
    for name in names:
        if names.count(name) > 1:
            return f"`keypoints` has {name!r} twice"
        other = mirrored(name)
        if re.search("left|right", name, re.IGNORECASE) and (other == name or other not in names):
            return (
                f"`keypoints` must have left and right in pairs, as left_eye, right_eye: {name!r}"
            )
    return ""


def mirrored(name: str) -> str:
    """Return a keypoint's name in a mirror, word by word: `left_eye` is `right_eye`."""
    return "".join(_SIDES.get(word, word) for word in re.split("([_ -])", name))


def _names(values: Any) -> bool:
    """Whether there is a list of one or more names."""
    return isinstance(values, list) and bool(values) and all(isinstance(x, str) for x in values)


def _finite(values: Any, count: int | None = None) -> bool:
    """Whether there is a list of numbers, of so many."""
    try:
        return len(values) == (count or len(values)) and all(map(isfinite, values))
    except (OverflowError, TypeError):
        return False


def corners(box: Sequence[float], size: Sequence[int]) -> list[float]:
    """Return left, top, right and bottom of x, y, width and height, cut at the image's edges.

    Args:
        box: in pixels.
        size: of the image, height and width.
    """
    x, y, width, height = map(float, box)
    ends = ((x, size[1]), (y, size[0]), (x + width, size[1]), (y + height, size[0]))
    return [min(max(end, 0.0), float(side)) for end, side in ends]


def _size(image: Record) -> list[int]:
    return [image["height"], image["width"]]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _complete(found: Annotations) -> None:
    """Refuse what has no picture."""
    with explained(f"{found.folder}: cannot be read"):
        there = {entry.name for entry in scandir(found.folder)}
        for own, image in found.images.items():
            name = image["file_name"]
            if name not in there and not (found.folder / name).is_file():
                raise ValueError(f"image {own}: {found.folder / name} is missing")
