"""The networks of the experiments; the caller seeds torch before it makes one."""

from torch import nn

from zenith.demo.model import network as small

__all__ = ["small", "vgg19"]

_VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels, and convolutions of them


def vgg19(width: float = 1.0) -> nn.Sequential:
    """Return VGG-19 for images of 3 x 32 x 32 and 10 classes: 20,029,514 parameters.

    Simonyan and Zisserman, arXiv 1409.1556, configuration E, without batch normalisation, and with
    one linear layer, as is usual for CIFAR.

    Args:
        width: a factor on the number of channels, for a quick run.
    """
    layers: list[nn.Module] = []
    channels = 3
    for size, count in _VGG19:
        for _ in range(count):
            out = max(1, round(size * width))
            convolution = nn.Conv2d(channels, out, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [convolution, nn.ReLU(inplace=True)]
            channels = out
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 10))
