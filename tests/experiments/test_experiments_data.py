import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from _idx import idx, write_fashion

from experiments.errors import UserError
from experiments.tasks.idx import read_idx
from experiments.tasks.images import digits, fashion_mnist

CUBE = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
RIGHT = idx(CUBE)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("array", [CUBE, np.array([9, 0, 255], np.uint8), CUBE[:0]])
def test_idx_reads_what_was_written(tmp_path, array):
    path = write(tmp_path / "a.gz", gzip.compress(idx(array)))
    read = read_idx(path, array.ndim)
    assert read.dtype == np.uint8
    assert np.array_equal(read, array)


def test_idx_layout_is_that_of_the_format(tmp_path):
    by_hand = bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7])  # unsigned bytes, 1 dimension, of 2: 5 and 7
    assert read_idx(write(tmp_path / "a.gz", gzip.compress(by_hand)), 1).tolist() == [5, 7]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "an IDX header has 16 bytes, got 0"),
        (RIGHT, "not a sound gzip file"),
        (gzip.compress(RIGHT)[:-12], "the gzip data is cut short"),
        (gzip.compress(RIGHT)[:10] + b"\xff" * 30, "not a sound gzip file"),
        (gzip.compress(RIGHT)[:-8] + b"\0" * 8, "not a sound gzip file"),
        (gzip.compress(RIGHT[:15]), "an IDX header has 16 bytes, got 15"),
        (gzip.compress(idx(CUBE, magic=0x0D03)), "must be 0x00000803, got 0x00000d03"),
        (gzip.compress(idx(CUBE.reshape(6, 4)) + b"\0" * 4), "must be 0x00000803, got 0x00000802"),
        (gzip.compress(RIGHT[:-1]), "2 x 3 x 4 asks for 24 bytes, got 23"),
        (gzip.compress(RIGHT + b"\0"), "2 x 3 x 4 asks for 24 bytes, got 25"),
        (
            gzip.compress(idx(CUBE, shape=(2**32 - 1,) * 3)),
            "asks for 79228162458924105385300197375",
        ),
    ],
)
def test_idx_refuses_a_corrupt_file_and_names_it(tmp_path, content, complaint):
    path = write(tmp_path / "a.gz", content)
    with pytest.raises(UserError) as caught:
        read_idx(path, 3)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)


def test_idx_names_a_file_that_is_missing_or_unreadable(tmp_path):
    with pytest.raises(UserError, match=r"a\.gz: cannot be read \(No such file"):
        read_idx(tmp_path / "a.gz", 3)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_idx(tmp_path, 3)


def test_digits_are_split_by_class_and_always_alike():
    data = digits()
    assert data.train_images.shape == (1347, 1, 8, 8)
    assert data.test_images.shape == (450, 1, 8, 8)
    shares = data.train_labels.bincount() / data.test_labels.bincount()
    assert torch.all((shares - 1347 / 450).abs() < 0.1)
    assert all(torch.equal(a, b) for a, b in zip(data[:4], digits()[:4], strict=True))


def test_the_training_images_alone_set_the_scale():
    data = digits()
    assert data.train_images.mean().item() == pytest.approx(0, abs=1e-6)
    assert data.train_images.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert abs(data.test_images.mean().item()) > 1e-4


def test_fashion_mnist_from_four_files(tmp_path):
    data = fashion_mnist(write_fashion(tmp_path))
    assert data.train_images.shape == (30, 1, 28, 28)
    assert data.test_labels.tolist() == list(range(10))
    raw = read_idx(tmp_path / "t10k-images-idx3-ubyte.gz", 3).astype(float)
    train = read_idx(tmp_path / "train-images-idx3-ubyte.gz", 3).astype(float)
    expected = (raw - train.mean()) / train.std()
    assert np.allclose(data.test_images.squeeze(1), expected, atol=1e-6)


def test_images_all_alike_are_no_division_by_zero(tmp_path):
    write_fashion(tmp_path)
    grey = gzip.compress(idx(np.full((30, 28, 28), 5, np.uint8)))
    write(tmp_path / "train-images-idx3-ubyte.gz", grey)
    assert fashion_mnist(tmp_path).train_images.eq(0).all()


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("train-labels-idx1-ubyte.gz", np.zeros(29, np.uint8), "29 labels for 30 images"),
        ("t10k-labels-idx1-ubyte.gz", np.full(10, 10, np.uint8), "must be below 10, got 10"),
        ("t10k-images-idx3-ubyte.gz", np.zeros((10, 28, 27), np.uint8), "must hold images of 28 x"),
        ("train-images-idx3-ubyte.gz", np.zeros((0, 28, 28), np.uint8), "must hold images of 28 x"),
    ],
)
def test_fashion_mnist_refuses_files_that_do_not_match(tmp_path, name, array, complaint):
    write_fashion(tmp_path)
    path = write(tmp_path / name, gzip.compress(idx(array)))
    with pytest.raises(UserError) as caught:
        fashion_mnist(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)


def test_fashion_mnist_names_the_folder_that_is_missing(tmp_path):
    with pytest.raises(
        UserError,
        match=r"nowhere: must be a folder with the four .* dataset-fashion-mnist .* github.com",
    ):
        fashion_mnist(tmp_path / "nowhere")
