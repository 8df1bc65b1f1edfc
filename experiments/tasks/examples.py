"""What a detector is trained on: an image and what is in it, as it is or as a mirror has it."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as masks
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import pil_to_tensor

from experiments.errors import UserError
from experiments.tasks.coco import Annotations
from experiments.tasks.objects import Record, corners, learnable, mirrored
from experiments.tasks.pictures import opened
from experiments.terminal import say

__all__ = ["Example", "Seen", "Target", "drawing", "flipped", "pairs"]

Target = dict[str, Tensor]
Example = tuple[Tensor, Target]  # an image, and what is in it


class Seen(Dataset[Any]):
    """Examples by the id of an image and whether it is mirrored; or what is wrong with one.

    A crowd is not learnt, nor a box of no area, which is met in published files: it is named on
    stderr. Both are there to be found when it comes to an evaluation, as COCO has it.

    What is in an image is kept packed: a worker that only counts references to millions of numbers
    would come to have a copy of each.
    """

    def __init__(self, source: Annotations) -> None:
        self.source = source._replace(annotations=())
        learnt = (each for each in source.annotations if self._learnt(each))
        found = source._replace(annotations=list(learnt)).by_image
        self.packed = {own: pickle.dumps(each) for own, each in found.items()}
        self.pairs = pairs(source.keypoints)

    def _learnt(self, each: Record) -> bool:
        """Whether an annotation is one to learn."""
        there = learnable(each["bbox"], self.source.images[each["image_id"]])
        if not there:
            said = f"left out of training, for its `bbox` has no area: {each['bbox']}"
            say(f"{self.source.file}: annotation {each['id']}: {said}")
        return there and not each["iscrowd"]

    def __getitem__(self, key: tuple[int, bool]) -> Any:
        """Return an image, float32 in 0..1, and its target; a `UserError` is for who asked."""
        own, mirrored = key
        image = self.source.images[own]
        try:
            picture = pil_to_tensor(opened(self.source.folder / image["file_name"])) / 255
        except UserError as error:
            return UserError(f"{self.source.file}: image {own}: {error}")
        size = [image["height"], image["width"]]
        if (got := [*picture.shape[1:]]) != size:
            return UserError(f"{self.source.file}: image {own}: must have size {size}, got {got}")
        packed = self.packed.get(own)
        target = self._target(pickle.loads(packed) if packed else [], size)
        return flipped(picture, target, self.pairs) if mirrored else (picture, target)

    def visible(self, own: int) -> int:
        """Return how many keypoints there are in an image, hidden ones too."""
        packed = self.packed.get(own)
        return sum(a["num_keypoints"] for a in pickle.loads(packed)) if packed else 0

    def _target(self, own: Sequence[Record], size: Sequence[int]) -> Target:
        """Boxes as corners, cut at the edges; numbers of categories; masks or keypoints."""
        boxes = torch.tensor([corners(a["bbox"], size) for a in own]).reshape(-1, 4)
        labels = self.source.labels
        numbers = torch.tensor([labels[a["category_id"]] for a in own], dtype=torch.int64)
        found = {"boxes": boxes, "labels": numbers}
        if self.source.kind == "keypoints":
            points = torch.tensor([a["keypoints"] for a in own], dtype=torch.float32)
            return found | {"keypoints": points.reshape(len(own), len(self.pairs), 3)}
        drawn = [drawing(a["segmentation"], size) for a in own]
        empty = np.zeros((0, *size), np.uint8)
        return found | {"masks": torch.from_numpy(np.stack(drawn) if drawn else empty)}


def drawing(shape: Any, size: Sequence[int]) -> NDArray[np.uint8]:
    """Return a mask as 0 and 1, of polygons or run lengths; shape `size`, height and width."""
    if isinstance(shape, list) or isinstance(shape["counts"], list):
        shape = masks.frPyObjects(shape, *size)
    found = masks.decode(masks.merge(shape) if isinstance(shape, list) else shape)
    return np.ascontiguousarray(found, np.uint8)


def pairs(names: Sequence[str]) -> list[int]:
    """Return for each keypoint which one it is in a mirror: `left_eye` is `right_eye`.

    Examples:
        >>> pairs(["nose", "left_eye", "right_eye"])
        [0, 2, 1]
    """
    return [names.index(mirrored(name)) for name in names]


def flipped(image: Tensor, target: Target, swapped: Sequence[int]) -> Example:
    """Return an image and what is in it as a mirror has them, left and right keypoints swapped.

    A box ends at the edges of pixels and a keypoint names a pixel: so x becomes `width - x` of the
    one, and `width - 1 - x` of the other. Of a keypoint that is not there (visibility 0) all
    numbers stay 0.

    Args:
        image: shape `(channels, height, width)`.
        target: `boxes` (n, 4) as corners, and any `masks` (n, height, width) and `keypoints`
            (n, k, 3); whatever else is left as it is.
        swapped: for each keypoint, which one it is in a mirror; see `pairs`.
    """
    width = image.shape[-1]
    found = dict(target)
    left, top, right, bottom = target["boxes"].unbind(1)
    found["boxes"] = torch.stack([width - right, top, width - left, bottom], 1)
    if "masks" in target:
        found["masks"] = target["masks"].flip(-1)
    if "keypoints" in target:
        points = target["keypoints"][:, list(swapped)]
        there = points[..., 2] > 0
        points[..., 0] = torch.where(there, width - 1 - points[..., 0], points[..., 0])
        found["keypoints"] = points
    return image.flip(-1), found
