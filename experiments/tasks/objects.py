"""An object as COCO's format has it: what its box, mask and keypoints must be."""

import json
import re
from collections.abc import Sequence
from math import isfinite
from typing import Any

__all__ = [
    "Record",
    "corners",
    "learnable",
    "mirrored",
    "names_only",
    "short",
    "size_of",
    "wrong_box",
    "wrong_mask",
    "wrong_names",
    "wrong_points",
]

Record = dict[str, Any]
_SIDES = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
_SIDES |= {right: left for left, right in _SIDES.items()}
_SIDED = re.compile("left|right|(?<![a-z])[lr](?![a-z])", re.IGNORECASE)  # `l_eye` too


def wrong_box(each: Record, image: Record) -> str:
    """Return what is wrong with an area or a box; "" where nothing is."""
    area: Any = each.get("area")
    box: Any = each.get("bbox")
    height, width = size_of(image)
    # An outline's is a real number: hence the thousandth. COCO's evaluation would not count an
    # object of another area as missed.
    if type(area) not in (int, float) or not 0 <= area <= 1.001 * width * height:
        return f"`area` must be a number in 0..{width * height}, got {short(area)}"
    if not isinstance(box, list) or not _finite(box, 4) or box[2] < 0 or box[3] < 0:
        return f"`bbox` must be x, y, width, height, got {short(box)}"
    beyond = box[0] >= width or box[1] >= height or box[0] + box[2] <= 0 or box[1] + box[3] <= 0
    return f"`bbox` {box} is outside image {image['id']}" if beyond and box[2] and box[3] else ""


def wrong_mask(each: Record, image: Record) -> str:
    """Return what is wrong with a mask; "" where nothing is."""
    shape, (height, width) = each.get("segmentation"), size_of(image)
    if isinstance(shape, dict):
        return _wrong_lengths(shape, [height, width])
    whole = isinstance(shape, list) and shape
    if not whole or not all(_finite(p) and len(p) >= 6 and len(p) % 2 == 0 for p in shape or ()):
        return f"`segmentation` must be run lengths, or polygons of x, y, ..., got {short(shape)}"
    for i, side in enumerate((width, height)):  # pycocotools takes memory for each pixel of a line
        ends = [end(p[i::2]) for p in shape or () for end in (min, max)]
        if min(ends) < -side or max(ends) > 2 * side:
            return f"`segmentation` must have {'xy'[i]} in {-side}..{2 * side}, got {short(ends)}"
    return ""


def _wrong_lengths(shape: Record, size: list[int]) -> str:
    """What is wrong with run lengths; "" where nothing is."""
    counts, pixels = shape.get("counts"), size[0] * size[1]
    if shape.get("size") != size or not isinstance(counts, str | list):
        return f"run lengths in `segmentation` must have `counts`, and the `size` {size}"
    lengths = _unpacked(counts) if isinstance(counts, str) else counts
    if not all(type(each) is int and each >= 0 for each in lengths):
        return f"`counts` must be integers >= 0, or COCO's text of them, got {short(counts)}"
    if sum(lengths) != pixels:
        return f"`counts` must come to {pixels} pixels, got {short(sum(lengths))}"
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


def wrong_points(each: Record, count: int) -> str:
    """Return what is wrong with so many keypoints; "" where nothing is."""
    points: Any = each.get("keypoints")
    if not _finite(points, 3 * count) or not {*points[2::3]} <= {0, 1, 2}:
        return f"`keypoints` must be {count} of x, y, visibility (0, 1 or 2), got {short(points)}"
    seen = sum(v > 0 for v in points[2::3])
    if each.get("num_keypoints") != seen:
        return f"`num_keypoints` must be {seen}, got {each.get('num_keypoints')!r}"
    return ""


def wrong_names(names: Sequence[str]) -> str:
    """Return what is wrong with the names of keypoints; "" where nothing is."""
    for name in names:
        if names.count(name) > 1:
            return f"`keypoints` has {name!r} twice"
        other = mirrored(name)
        if _SIDED.search(name) and (other == name or other not in names):
            return (
                f"`keypoints` must have left and right in pairs, as left_eye, right_eye: {name!r}"
            )
    return ""


def mirrored(name: str) -> str:
    """Return a keypoint's name in a mirror, word by word: `left_eye` is `right_eye`."""
    return "".join(_SIDES.get(word, word) for word in re.split("([_ -])", name))


def names_only(values: Any) -> bool:
    """Whether there is a list of one or more texts."""
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


def learnable(box: Sequence[float], image: Record) -> bool:
    """Whether a box has an area to learn.

    One that, cut at the edges, measures less than a millionth of its image may have none when it is
    mirrored in float32.
    """
    height, width = size_of(image)
    left, top, right, bottom = corners(box, (height, width))
    return min((right - left) / width, (bottom - top) / height) >= 1e-6


def size_of(image: Record) -> list[int]:
    """Return height and width."""
    return [image["height"], image["width"]]


def short(value: Any) -> str:
    """Return a value as an error shows it."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
