"""Pictures with what is in them, in COCO's format, read strictly.

A file of annotations is that of COCO (Lin et al., 2014): images, categories and annotations, each
with an id; boxes as x, y, width, height; masks as polygons or run lengths; keypoints as x, y and
visibility. Whatever is wrong in it ends in one line that names the file and the id.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import isfinite
from os import scandir
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.errors import UserError, explained
from experiments.terminal import say

__all__ = ["Annotations", "Kind", "Record", "corners", "read"]

Kind = Literal["instances", "keypoints"]
Record = dict[str, Any]


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
    been met in published files, and torchvision's own training drops it too.

    Args:
        file: of annotations, JSON.
        folder: of the pictures.
        kind: what there must be besides boxes: `instances` (masks) or `keypoints`.

    Raises:
        UserError: naming the file, and where it lies in one of them, the id: not sound JSON, a list
            that is missing or empty, an id that is no positive integer or there twice, a picture
            that is missing, an image or category that is unknown, a box outside its image, and
            masks or keypoints that are none.
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
    except ValueError as error:  # and where it is no UTF-8
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
            if type(image.get(side)) is not int or image[side] < 1:
                raise ValueError(f"image {own}: `{side}` must be pixels, got {image.get(side)}")
    named = [each.get("keypoints") for each in categories.values()]
    if empty.kind == "keypoints" and not (len(named) == 1 and _names(named[0])):
        raise ValueError("must have one category, with the names of its `keypoints`")
    found = empty._replace(images=images, categories=dict(sorted(categories.items())))
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
        if not isinstance(each.get(name), int) or each[name] not in known:
            raise ValueError(f"{said}: `{name}` {each.get(name)!r} is unknown")
    if each.get("iscrowd") not in (0, 1):
        raise ValueError(f"{said}: `iscrowd` must be 0 or 1, got {each.get('iscrowd')!r}")
    if not _finite([each.get("area")]):
        raise ValueError(f"{said}: `area` must be a number, got {each.get('area')!r}")
    image = beside.images[each["image_id"]]
    box: Any = each.get("bbox")
    if not _finite(box, 4) or box[2] < 0 or box[3] < 0:
        raise ValueError(f"{said}: `bbox` must be x, y, width, height, got {_short(box)}")
    if not box[2] or not box[3]:
        say(f"{beside.file}: {said}: left out, for its `bbox` has no area: {box}")
        return False
    left, top, right, bottom = corners(box)
    if left >= image["width"] or top >= image["height"] or right <= 0 or bottom <= 0:
        raise ValueError(f"{said}: `bbox` {box} is outside image {image['id']}")
    wrong = _wrong_mask(each, image) if beside.kind == "instances" else _wrong_points(each, beside)
    if wrong:
        raise ValueError(f"{said}: {wrong}")
    return True


def _wrong_mask(each: Record, image: Record) -> str:
    """What is wrong with a mask; "" where nothing is."""
    shape, size = each.get("segmentation"), [image["height"], image["width"]]
    if isinstance(shape, dict):
        counts = shape.get("counts")
        if shape.get("size") != size or not isinstance(counts, str | list):
            return f"run lengths in `segmentation` must have `counts`, and the `size` {size}"
        if isinstance(counts, list) and sum(counts) != size[0] * size[1]:
            return f"`counts` must come to {size[0] * size[1]} pixels, got {sum(counts)}"
        return ""
    whole = isinstance(shape, list) and shape
    if not whole or not all(_finite(p) and len(p) >= 6 and len(p) % 2 == 0 for p in shape or ()):
        return f"`segmentation` must be run lengths, or polygons of x, y, ..., got {_short(shape)}"
    return ""


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


def _names(values: Any) -> bool:
    """Whether there is a list of one or more names."""
    return isinstance(values, list) and bool(values) and all(isinstance(x, str) for x in values)


def _finite(values: Any, count: int | None = None) -> bool:
    """Whether there is a list of numbers, of so many."""
    try:
        return len(values) == (count or len(values)) and isfinite(sum(values))
    except (OverflowError, TypeError):
        return False


def corners(box: Sequence[float]) -> list[float]:
    """Return left, top, right and bottom of x, y, width and height."""
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _complete(found: Annotations) -> None:
    """Refuse what has no picture."""
    with explained(f"{found.folder}: cannot be read"):
        there = {entry.name for entry in scandir(found.folder)}
    for own, image in found.images.items():
        if image["file_name"] not in there:
            raise ValueError(f"image {own}: {found.folder / image['file_name']} is missing")
