"""The networks of the experiments in torch; the caller seeds torch before it makes one."""

from torch import nn

from experiments.tasks import shapes

__all__ = ["small", "vgg19"]


def small(size: int, classes: int = 10) -> nn.Sequential:
    """Return the small convolutional network for grey images of `size` x `size`."""
    return _built(shapes.small(size, classes))


def vgg19(width: float = 1.0) -> nn.Sequential:
    """Return VGG-19 for images of 3 x 32 x 32 and 10 classes, with a factor on its channels."""
    network = _built(shapes.vgg19(width))
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network


def _built(network: shapes.Network) -> nn.Sequential:
    layers: list[nn.Module] = []
    for kind, inputs, outputs, stride, relu in network.layers:
        if kind == "pool":
            layers.append(nn.MaxPool2d(2))
        elif kind == "flat":
            layers.append(nn.Flatten())
        elif kind == "conv":
            layers.append(nn.Conv2d(inputs, outputs, 3, stride, padding=1))
        else:
            layers.append(nn.Linear(inputs, outputs))
        if outputs and relu:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
