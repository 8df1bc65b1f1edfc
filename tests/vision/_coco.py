"""COCO 2017 in small, in its own layout: pictures of 64 x 48 with boxes that are known."""

import copy
import gzip
import json

import numpy as np
from _idx import idx
from PIL import Image

WIDTH, HEIGHT = 64, 48
NAMES = ["nose", "left_eye", "right_eye"]  # three in place of COCO's 17
BOXES = {1: [4, 6, 20, 16], 2: [30, 20, 24, 24], 4: [10, 10, 12, 30]}  # by image; 3 has none


def annotation(own, image, box, **more):
    x, y, width, height = box
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    points = [x + 2, y + 2, 2, x + 1, y + 4, 1, x + width - 2, y + 4, 2]
    return {
        "id": own,
        "image_id": image,
        "category_id": 7,
        "bbox": list(box),
        "area": width * height,
        "iscrowd": 0,
        "segmentation": [outline],
        "keypoints": points,
        "num_keypoints": 3,
        **more,
    }


def document(boxes=BOXES):
    """One category, whose id is 7, as COCO's ids are not without gaps."""
    images = [
        {"id": own, "file_name": f"{own:012}.jpg", "width": WIDTH, "height": HEIGHT}
        for own in range(1, 5)
    ]
    annotations = [annotation(i, own, box) for i, (own, box) in enumerate(boxes.items(), start=1)]
    return {
        "images": images,
        "categories": [{"id": 7, "name": "cat", "keypoints": NAMES, "skeleton": []}],
        "annotations": annotations,
    }


def write(folder, content=None):
    """Write train2017 and val2017 with the same pictures and annotations; return the folder."""
    content = content or document()
    (folder / "annotations").mkdir(parents=True)
    random = np.random.default_rng(0)
    for part in ("train2017", "val2017"):
        (folder / part).mkdir()
        for image in content["images"]:
            pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / part / image["file_name"])
        for prefix in ("instances", "person_keypoints"):
            path = folder / "annotations" / f"{prefix}_{part}.json"
            path.write_text(json.dumps(content))
    return folder


def changed(change):
    """A document after `change`, which is handed a copy."""
    content = copy.deepcopy(document())
    change(content)
    return content


def write_shapes(folder):
    """Fashion-MNIST's four files, with a shape for each class: a bar, a block or a ring."""
    folder.mkdir()
    for part, count in (("train", 20), ("t10k", 10)):
        images = np.zeros((count, 28, 28), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2:26, 6 + label // 2 : 22 - label // 2] = 200
            if label == 8:  # a bag, with a hole
                image[10:18, 12:16] = 0
        for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return folder
