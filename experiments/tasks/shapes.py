"""The networks that more than one framework builds: their layers, without a framework."""

import math
from typing import Literal, NamedTuple

__all__ = ["Layer", "Network", "desk", "small", "vgg19"]

_VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels, and convolutions of them


class Layer(NamedTuple):
    """One layer: a 3 x 3 convolution, a 2 x 2 max pooling, a flattening, or a dense layer.

    Attributes:
        kind: which of the four.
        inputs: channels, or entries.
        outputs: channels, or entries.
        stride: of the convolution, which pads by 1.
        relu: whether a ReLU follows.
    """

    kind: Literal["conv", "pool", "flat", "dense"]
    inputs: int = 0
    outputs: int = 0
    stride: int = 1
    relu: bool = True

    @property
    def weight(self) -> tuple[int, ...]:
        """The shape of the weight, inputs before outputs, as Keras and JAX have it."""
        return (*((3, 3) if self.kind == "conv" else ()), self.inputs, self.outputs)


class Network(NamedTuple):
    """A network: the images that it takes, and its layers."""

    size: int  # height and width, in pixels
    channels: int
    layers: tuple[Layer, ...]

    @property
    def learnt(self) -> tuple[Layer, ...]:
        """The layers that have a weight, and a bias."""
        return tuple(layer for layer in self.layers if layer.outputs)

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(math.prod(layer.weight) + layer.outputs for layer in self.learnt)


def small(size: int = 28, classes: int = 10) -> Network:
    """Return a small convolutional network for grey images of `size` x `size`.

    Two 3 x 3 convolutions that halve the image, one hidden layer: 421,642 parameters for 28 x 28,
    53,002 for 8 x 8. The stride halves the image, not a pooling layer, which on a CPU costs more
    time than the convolutions; there is no batch norm, so the gradient is that of the plain loss.

    Args:
        size: the images' height and width in pixels; a multiple of 4.
        classes: how many classes to tell apart.
    """
    layers = (
        Layer("conv", 1, 32, stride=2),
        Layer("conv", 32, 64, stride=2),
        Layer("flat"),
        Layer("dense", 64 * (size // 4) ** 2, 128),
        Layer("dense", 128, classes, relu=False),
    )
    return Network(size, 1, layers)


def desk(size: int = 14, classes: int = 10) -> Network:
    """Return a convolutional network for short runs on grey images: 65,994 parameters for 14 x 14.

    Two convolutions of 16 and 32 channels, each before a pooling, two of 64, and one linear layer.

    Args:
        size: the images' height and width in pixels; at least 4.
        classes: how many classes to tell apart.
    """
    layers = (
        Layer("conv", 1, 16),
        Layer("pool"),
        Layer("conv", 16, 32),
        Layer("pool"),
        Layer("conv", 32, 64),
        Layer("conv", 64, 64),
        Layer("flat"),
        Layer("dense", 64 * (size // 4) ** 2, classes, relu=False),
    )
    return Network(size, 1, layers)


def vgg19(width: float = 1.0) -> Network:
    """Return VGG-19 for images of 3 x 32 x 32 and 10 classes: 20,029,514 parameters.

    Simonyan and Zisserman, arXiv 1409.1556, configuration E, without batch normalisation, and with
    one linear layer, as is usual for CIFAR.

    Args:
        width: a factor on the number of channels, for a quick run.
    """
    layers: list[Layer] = []
    inputs = 3
    for channels, count in _VGG19:
        outputs = max(1, round(channels * width))
        for _ in range(count):
            layers.append(Layer("conv", inputs, outputs))
            inputs = outputs
        layers.append(Layer("pool"))
    return Network(32, 3, (*layers, Layer("flat"), Layer("dense", inputs, 10, relu=False)))
