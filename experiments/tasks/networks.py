"""The networks of the experiments; the caller seeds torch before it makes one."""

from torch import nn

__all__ = ["small", "vgg19"]

_VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels, and convolutions of them


def small(size: int, classes: int = 10) -> nn.Sequential:
    """Return a small convolutional network for grey images of `size` x `size`.

    Two 3 x 3 convolutions that halve the image, one hidden layer: 421,642 parameters for 28 x 28,
    53,002 for 8 x 8. The stride halves the image, not a pooling layer, which on a CPU costs more
    time than the convolutions; there is no batch norm, so the gradient is that of the plain loss.

    Args:
        size: the images' height and width in pixels; a multiple of 4.
        classes: how many classes to tell apart.
    """
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (size // 4) ** 2, 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


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
