"""The networks of the experiments in torch; the caller seeds torch before it makes one."""

import torch
from torch import Tensor, nn

from experiments.tasks import shapes

__all__ = ["desk", "small", "vgg19"]


def small(size: int, classes: int = 10) -> nn.Sequential:
    """Return the small convolutional network for grey images of `size` x `size`."""
    return _built(shapes.small(size, classes))


def desk(size: int, classes: int = 10, batch_norm: bool = False) -> nn.Sequential:
    """Return the network of the desk tasks for grey images of `size` x `size`."""
    network = _built(shapes.desk(size, classes), batch_norm)
    return _kaiming(nn.Sequential(_ChannelsLast(), *network))


def vgg19(width: float = 1.0, batch_norm: bool = False) -> nn.Sequential:
    """Return VGG-19 for images of 3 x 32 x 32 and 10 classes, with a factor on its channels."""
    return _kaiming(_built(shapes.vgg19(width), batch_norm))


def _kaiming(network: nn.Sequential) -> nn.Sequential:
    """Draw the convolutions anew, so that they keep the size of what passes through them."""
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network


class _ChannelsLast(nn.Module):
    """Lays the images out with channels last, on which a CPU pools several times as fast."""

    def forward(self, images: Tensor) -> Tensor:
        return images.to(memory_format=torch.channels_last)


def _built(network: shapes.Network, batch_norm: bool = False) -> nn.Sequential:
    """Build it in torch, and if wanted normalise what each convolution gives."""
    layers: list[nn.Module] = []
    for kind, inputs, outputs, stride, relu in network.layers:
        if kind == "pool":
            layers.append(nn.MaxPool2d(2))
        elif kind == "flat":
            layers.append(nn.Flatten())
        elif kind == "conv":
            layers.append(nn.Conv2d(inputs, outputs, 3, stride, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
        else:
            layers.append(nn.Linear(inputs, outputs))
        if outputs and relu:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
