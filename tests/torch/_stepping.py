"""What the tests of ZenithLR share: norms, their scales, and the rate that a step was made at."""

import torch

NORMS = [4.0, 6.0, 5.0, 2.0, 1.0, 3.0, 0.5, 0.25]
SCALES = [1, 1, 1, 13 / 15, 8 / 15, 2 / 5, 3 / 10, 1 / 4]  # means 5, 13/3, 8/3, 2, 3/2, 5/4


def scalar(value=0.0):
    return torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))


def sgd(lr=0.1, kind=torch.optim.SGD):
    weight = scalar()
    return kind([weight], lr=lr), weight


def take(optimizer, weight, norm, **keywords):
    """Make a step of SGD, and return the rate that it was made at: how far it went."""
    before = weight.item()
    weight.grad = torch.full_like(weight, norm)
    optimizer.step(**keywords)
    return (before - weight.item()) / norm
