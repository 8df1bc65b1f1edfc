"""The paper's data sets in small, each in the layout that its authors publish.

A picture of class `n` has the grey `n` all over, so that an image tells its own class.
"""

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
from _idx import write_fashion
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100

TRAIN, TEST = 2, 1  # pictures of a class, where each is a file
FOOD = [f"dish_{n:03}" for n in range(101)]
WORDS = [f"n{n:08}" for n in range(200)]  # as WordNet numbers them


def reading(task, workers=0):
    """The task whose pictures so many processes read; 0 for this one."""
    return dataclasses.replace(task, data=dataclasses.replace(task.data, workers=workers))


def mnist(folder, _monkeypatch):
    return write_fashion(folder)


def cifar10(folder, monkeypatch):
    files = [f"data_batch_{n}" for n in range(1, 6)], ["test_batch"]
    return _cifar(folder, monkeypatch, CIFAR10, "labels", files, 10)


def cifar100(folder, monkeypatch):
    return _cifar(folder, monkeypatch, CIFAR100, "fine_labels", (["train"], ["test"]), 100)


def _cifar(folder, monkeypatch, kind, key, files, classes):
    """Each file a pickle with a picture of every class; the checksums become those of these."""
    inside = folder / kind.base_folder
    inside.mkdir()

    def written(name, content):
        (inside / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((inside / name).read_bytes()).hexdigest()

    labels = list(range(classes))
    data = np.repeat(np.arange(classes, dtype=np.uint8), 3072).reshape(classes, 3072)
    for attribute, names in zip(("train_list", "test_list"), files, strict=True):
        found = [[name, written(name, {"data": data, key: labels})] for name in names]
        monkeypatch.setattr(kind, attribute, found)
    meta = {kind.meta["key"]: [str(n) for n in labels]}
    md5 = written(kind.meta["filename"], meta)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5})
    return folder


def food101(folder, _monkeypatch):
    meta, images = folder / "food-101" / "meta", folder / "food-101" / "images"
    meta.mkdir(parents=True)
    for part, numbers in (("train", range(TRAIN)), ("test", range(TRAIN, TRAIN + TEST))):
        listing = {name: [f"{name}/{n}" for n in numbers] for name in FOOD}
        (meta / f"{part}.json").write_text(json.dumps(listing))
    for grey, name in enumerate(FOOD):
        for n in range(TRAIN + TEST):
            _picture(images / name / f"{n}.jpg", grey, (48, 32))
    return folder


def tiny_imagenet(folder, _monkeypatch):
    inside = folder / "tiny-imagenet-200"
    lines = []
    for grey, name in enumerate(WORDS):
        for n in range(TRAIN):
            _picture(inside / "train" / name / "images" / f"{name}_{n}.JPEG", grey, (64, 64))
        _picture(inside / "val" / "images" / f"val_{grey}.JPEG", grey, (64, 64))
        lines.append(f"val_{grey}.JPEG\t{name}\t0\t32\t44\t62\n")
    (inside / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def imagenet100(folder, _monkeypatch):
    """102 classes, of which the first and the last are not in the list."""
    for grey, name in enumerate(WORDS[:102]):
        for part, count in (("train", TRAIN), ("val", TEST)):
            for n in range(count):
                _picture(folder / part / name / f"{name}_{n}.JPEG", max(grey - 1, 0), (32, 48))
    (folder / "classes.txt").write_text("".join(f"{name} a thing\n" for name in WORDS[100:0:-1]))
    return folder


def _picture(path: Path, grey: int, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey,) * 3).save(path, "jpeg")


WRITERS = {
    "mnist-efficientnet": mnist,
    "cifar10-vgg19": cifar10,
    "cifar100-resnet50": cifar100,
    "food101-dla": food101,
    "tinyimagenet-inception": tiny_imagenet,
    "imagenet100-densenet121": imagenet100,
}
