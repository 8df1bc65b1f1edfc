"""Table 2 of the paper at its scale: six data sets with a network each.

The paper names data sets, networks, batch (128), rate (0.1), hours and the kinds of augmentation.
What else has to be chosen is chosen here, once:

- **Networks.** Where images are small, the first convolution has stride 1 in place of 2, so that as
  much of the image is left for the layers after it as is of a larger one. All weights are random;
  there is no dropout and no auxiliary loss, as timm has it by default.
- **Augmentation.** A rotation by up to 15 degrees and a shift by up to a tenth of the image, then a
  crop, then a flip (of no digit). A small image is padded by an eighth for the crop, as He et al.
  (2016) do for CIFAR; a large one is shortened to 256 pixels and cropped to 224.
- **Validation.** A tenth of the training images, the same for every seed, is not trained on.
- **Epochs.** What a planned schedule ends with: 200 for CIFAR, 100 for the others. Where a machine
  is too slow for that, the paper's hours end a run before.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchvision.transforms import InterpolationMode, v2

from experiments.errors import UserError
from experiments.tasks import PAPER, Budget, networks, pictures
from experiments.tasks.classify import Network, Row
from experiments.tasks.images import Batch, Part

__all__ = ["ROWS", "Pictures", "View"]

WORKERS = min(6, os.cpu_count() or 1)  # the paper's six, or as many as there are cores
TEST_BATCH = 250  # of 224 x 224 pixels: 150 MB
_COLOURS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation over ImageNet


@dataclass(frozen=True)
class View:
    """How pictures become images of one size.

    Attributes:
        size: height and width of an image, in pixels.
        mean: of each channel, with black 0 and white 1.
        deviation: of each channel.
        flip: whether a mirrored picture is of the same class.
        shortened: what the shorter side of a picture is made first, in pixels; None leaves it.
    """

    size: int
    mean: Sequence[float] = _COLOURS[0]
    deviation: Sequence[float] = _COLOURS[1]
    flip: bool = True
    shortened: int | None = None

    def plain(self) -> Any:
        """Return what makes the image to test on."""
        return self._composed([v2.CenterCrop(self.size)])

    def augmented(self) -> Any:
        """Return what makes an image to train on, by draws from torch's own generator."""
        padding = None if self.shortened else self.size // 8
        bilinear = InterpolationMode.BILINEAR
        steps = [
            v2.RandomAffine(15, (0.1, 0.1), interpolation=bilinear),
            v2.RandomCrop(self.size, padding),
            *([v2.RandomHorizontalFlip()] if self.flip else []),
        ]
        return self._composed(steps)

    def _composed(self, steps: list[Any]) -> Any:
        first = [v2.Resize(self.shortened)] if self.shortened else []
        last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        return v2.Compose([*first, *steps, *last, v2.Normalize(self.mean, self.deviation)])

    def __str__(self) -> str:
        shortened = f"shorter side {self.shortened}, " if self.shortened else ""
        padded = "" if self.shortened else f" of {self.size} + {self.size // 8} a side"
        flip = ", flip" if self.flip else ""
        return f"{shortened}rotation 15, shift 0.1, crop {self.size}{padded}{flip}"


@dataclass(frozen=True)
class Pictures:
    """`Images` that are read as they are needed, by other processes.

    Attributes:
        parts: pictures to train on, a tenth of which is held back to validate on, and to test on.
        view: how they become images.
        workers: how many processes; 0 reads in this one. No batch depends on it.
    """

    parts: pictures.Parts
    view: View
    workers: int = WORKERS

    @property
    def size(self) -> int:
        """Height and width, in pixels."""
        return self.view.size

    @cached_property
    def _indices(self) -> dict[Part, Tensor]:
        count, test = map(len, self.parts)
        order = torch.randperm(count, generator=Generator().manual_seed(0))
        held = count // 10
        return {"train": order[held:], "test": torch.arange(test), "validation": order[:held]}

    @property
    def counts(self) -> dict[Part, int]:
        """How many pictures each part has."""
        return {part: len(indices) for part, indices in self._indices.items()}

    @property
    def augmentation(self) -> str:
        """What is done to the training images, in words."""
        return str(self.view)

    def drawn(self, batches: Iterable[Tensor], generator: Generator) -> Iterator[Batch]:
        """Yield the training images of each batch of indices, each augmented by a seed of its own.

        All seeds are drawn before the first image is read.
        """
        kept = self._indices["train"]
        keys = [(kept[b], torch.randint(2**62, b.shape, generator=generator)) for b in batches]
        return self._read(self.parts[0], self.view.augmented(), keys)

    def whole(self, part: Part) -> Iterator[Batch]:
        """Yield all images of a part, as they are, in batches."""
        keys = [(batch, batch) for batch in torch.split(self._indices[part], TEST_BATCH)]
        return self._read(self.parts[part == "test"], self.view.plain(), keys)

    def _read(
        self,
        source: pictures.Source,
        transform: Callable[[Any], Tensor],
        keys: Iterable[tuple[Tensor, Tensor]],
    ) -> Iterator[Batch]:
        together = [list(zip(*map(Tensor.tolist, pair), strict=True)) for pair in keys]
        seen = _Seen(source, transform)
        yield from map(tuple, pictures.loaded(seen, together, self.workers, default_collate))


class _Seen(Dataset[Any]):
    """Images by the index of a picture and the seed of its augmentation."""

    def __init__(self, source: pictures.Source, transform: Callable[[Any], Tensor]) -> None:
        self.source, self.transform = source, transform

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """Return an image and its class; or what is wrong with it, which no process can raise."""
        index, seed = key
        try:
            picture, label = self.source[index]
        except UserError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.transform(picture), label


def efficientnet(_size: int, classes: int) -> nn.Module:
    """Return EfficientNet-B0 (Tan and Le, 2019) for MNIST, with stride 1 in its first layer."""
    return _unstrided(_timm("efficientnet_b0", classes, channels=1), "conv_stem")


def vgg19(_size: int, _classes: int) -> nn.Module:
    """Return VGG-19 (Simonyan and Zisserman, 2014) for CIFAR, the one that costs are measured on.

    It has batch normalisation, as it mostly has for CIFAR; the paper does not say.
    """
    return networks.vgg19(batch_norm=True)


def resnet50(_size: int, classes: int) -> nn.Module:
    """Return ResNet-50 (He et al., 2016) for CIFAR: 3 x 3 and stride 1 at first, no pooling."""
    network = _timm("resnet50", classes)
    first = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")  # as timm's own
    network.set_submodule("conv1", first)
    network.set_submodule("maxpool", nn.Identity())
    return network


def dla(_size: int, classes: int) -> nn.Module:
    """Return DLA-34 (Yu et al., 2018), the plain one of its authors' table."""
    return _timm("dla34", classes)


def inception(_size: int, classes: int) -> nn.Module:
    """Return Inception-v3 (Szegedy et al., 2016) for 64 x 64: stride 1, and no first pooling.

    Its blocks begin at 28 x 28, where those of 299 x 299 begin at 35 x 35.
    """
    network = _unstrided(_timm("inception_v3", classes), "Conv2d_1a_3x3.conv")
    network.set_submodule("Pool1", nn.Identity())
    return network


def densenet(_size: int, classes: int) -> nn.Module:
    """Return DenseNet-121 (Huang et al., 2017)."""
    return _timm("densenet121", classes)


def _timm(name: str, classes: int, channels: int = 3) -> nn.Module:
    network: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels)
    return network


def _unstrided(network: nn.Module, place: str) -> nn.Module:
    convolution: Any = network.get_submodule(place)
    convolution.stride = (1, 1)
    return network


# Means and deviations over the training images; where a photograph has any size, ImageNet's.
_DIGITS = View(28, (0.1307,), (0.3081,), flip=False)
_CIFAR10 = View(32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100 = View(32, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_PHOTOGRAPHS = View(224, shortened=256)

_PARTS: dict[str, tuple[Callable[[Path | None], pictures.Parts], View, Network, int]] = {
    "mnist-efficientnet": (pictures.mnist, _DIGITS, efficientnet, 10),
    "cifar10-vgg19": (pictures.cifar10, _CIFAR10, vgg19, 10),
    "cifar100-resnet50": (pictures.cifar100, _CIFAR100, resnet50, 100),
    "food101-dla": (pictures.food101, _PHOTOGRAPHS, dla, 101),
    "tinyimagenet-inception": (pictures.tiny_imagenet, View(64), inception, 200),
    "imagenet100-densenet121": (pictures.imagenet100, _PHOTOGRAPHS, densenet, 100),
}


def _row(name: str, budget: Budget) -> Row:
    load, view, network, classes = _PARTS[name]

    def data(folder: Path | None) -> Pictures:
        return Pictures(load(folder), view)

    hours, epochs = budget
    return Row(data, network, 128, epochs, threads=None, hours=hours, classes=classes)


ROWS = {name: _row(name, budget) for name, budget in PAPER.items()}
