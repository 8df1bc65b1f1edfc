"""Pictures with what is in them, in COCO's format, read strictly.

A file of annotations is that of COCO (Lin et al., 2014): images, categories and annotations, each
with an id; boxes as x, y, width, height; masks as polygons or run lengths; keypoints as x, y and
visibility. Whatever is wrong in it ends in one line that names the file and the id.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from os import scandir
from pathlib import Path
from typing import Literal, NamedTuple

from experiments.errors import UserError, explained
from experiments.tasks.objects import (
    Record,
    names_only,
    short,
    wrong_box,
    wrong_mask,
    wrong_names,
    wrong_points,
)

__all__ = ["Annotations", "Kind", "Record", "read"]

Kind = Literal["instances", "keypoints"]


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
    if empty.kind == "keypoints" and not (len(named) == 1 and names_only(named[0])):
        raise ValueError("must have one category, with the names of its `keypoints`")
    found = empty._replace(images=images, categories=dict(sorted(categories.items())))
    if wrong := wrong_names(found.keypoints):
        raise ValueError(f"category {next(iter(categories))}: {wrong}")
    for each in annotations.values():
        _refuse(each, found)
    return found._replace(annotations=list(annotations.values()))


def _by_id(document: Record, name: str) -> dict[int, Record]:
    """The records of a list by their ids."""
    records, one = document.get(name), {"categories": "category"}.get(name, name[:-1])
    if not isinstance(records, list) or not records:
        raise ValueError(f"`{name}` must be a list of one or more, got {short(records)}")
    found: dict[int, Record] = {}
    for i, record in enumerate(records):
        own = record.get("id") if isinstance(record, dict) else None
        if type(own) is not int or own < 1:  # to an evaluation 0 is none
            raise ValueError(f"`{name}`, number {i}: `id` must be an integer >= 1, got {own!r}")
        if own in found:
            raise ValueError(f"{one} {own}: `id` is there twice")
        found[own] = record
    return found


def _refuse(each: Record, beside: Annotations) -> None:
    """Raise what is wrong in an annotation."""
    said = f"annotation {each['id']}"
    for name, known in (("image_id", beside.images), ("category_id", beside.categories)):
        if type(each.get(name)) is not int or each[name] not in known:
            raise ValueError(f"{said}: `{name}` {each.get(name)!r} is unknown")
    if each.get("iscrowd") not in (0, 1):
        raise ValueError(f"{said}: `iscrowd` must be 0 or 1, got {each.get('iscrowd')!r}")
    image = beside.images[each["image_id"]]
    wrong = wrong_box(each, image) or (
        wrong_mask(each, image)
        if beside.kind == "instances"
        else wrong_points(each, len(beside.keypoints))
    )
    if wrong:
        raise ValueError(f"{said}: {wrong}")


def _complete(found: Annotations) -> None:
    """Refuse what has no picture."""
    with explained(f"{found.folder}: cannot be read"):
        there = {entry.name for entry in scandir(found.folder)}
        for own, image in found.images.items():
            name = image["file_name"]
            if name not in there and not (found.folder / name).is_file():
                raise ValueError(f"image {own}: {found.folder / name} is missing")
