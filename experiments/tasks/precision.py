"""The mean average precision of what a detector found, by pycocotools."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from experiments.tasks.coco import Annotations, Kind, Record

__all__ = ["OWN", "SIGMA", "map50", "records"]

SIGMA = 0.08  # of a keypoint's place, in sizes of its object, where there are not COCO's 17
OWN: Mapping[Kind, str] = {"instances": "mask", "keypoints": "keypoint"}
_TYPES = {"box": "bbox", "mask": "segm", "keypoint": "keypoints"}


def records(source: Annotations, own: int, output: Mapping[str, Tensor]) -> Iterator[Record]:
    """Yield what was found in an image as COCO's results have it.

    Args:
        source: what there is to find.
        own: the id of the image.
        output: of torchvision's detectors: `boxes` (n, 4) as corners, `labels` and `scores` (n),
            and `masks` (n, 1, height, width) in 0..1 or `keypoints` (n, k, 3).
    """
    categories, parts = list(source.categories), {k: each.cpu() for k, each in output.items()}
    for i, (left, top, right, bottom) in enumerate(parts["boxes"].tolist()):
        record = {
            "image_id": own,
            "category_id": categories[int(parts["labels"][i]) - 1],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(parts["scores"][i]),
        }
        if source.kind == "keypoints":
            yield record | {"keypoints": parts["keypoints"][i].flatten().tolist()}
        else:
            drawn = np.asfortranarray(parts["masks"][i, 0].numpy() > 0.5, np.uint8)
            yield record | {"segmentation": masks.encode(drawn)}


def map50(source: Annotations, found: Sequence[Record]) -> dict[str, float]:
    """Return the mean average precision at an overlap of 0.5, in percent, by pycocotools.

    It is over all categories and sizes, with the most detections in an image that COCO counts (100,
    or 20 with keypoints): `AP50` of its table.

    Args:
        source: what there is to find.
        found: what was found, see `records`.

    Returns:
        `box_map50`, and `mask_map50` or `keypoint_map50`.
    """
    names = ("box", OWN[source.kind])
    if not found:
        return {f"{name}_map50": 0.0 for name in names}
    with redirect_stdout(StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": list(source.images.values()),
            "categories": list(source.categories.values()),
            "annotations": [dict(each) for each in source.annotations],  # COCO adds to them
        }
        truth.createIndex()
        results = truth.loadRes([dict(each) for each in found])
        return {f"{name}_map50": _precision(truth, results, name, source) for name in names}


def _precision(truth: COCO, results: COCO, name: str, source: Annotations) -> float:
    evaluation = COCOeval(truth, results, _TYPES[name])
    evaluation.params.iouThrs = np.array([0.5])
    if name == "keypoint" and len(source.keypoints) != len(evaluation.params.kpt_oks_sigmas):
        evaluation.params.kpt_oks_sigmas = np.full(len(source.keypoints), SIGMA)
    evaluation.evaluate()
    evaluation.accumulate()
    # by overlap, recall, category, size (all of them first) and most detections
    precision = evaluation.eval["precision"][0, :, :, 0, -1]
    known = precision[precision > -1]  # which stands where there is nothing to find
    return 100 * float(known.mean()) if known.size else 0.0
