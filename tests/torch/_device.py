"""Parameters, gradients and options that the tests of the form for a device share."""

import pytest
import torch

SHAPES = [(4, 3), (5,), ()]
FORMS = {"default": {}, "for-loop": {"foreach": False}, "foreach": {"foreach": True}}
OPTIONS = {
    "plain": {},
    "propagate": {"nonfinite": "propagate"},
    "momentum": {"momentum": 0.9, "dampening": 0.5},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "decay_in_norm": True},
    "maximize": {"maximize": True, "weight_decay": 0.1, "momentum": 0.9},
    "clipped": {"max_grad_norm": 1.0},
}


def parameters(seed=0, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(s, generator=generator).to(device, dtype)) for s in SHAPES
    ]


def set_gradients(params, step, size=1.0):
    generator = torch.Generator().manual_seed(1000 + step)
    for param in params:
        gradient = torch.randn(param.shape, generator=generator) * size
        param.grad = gradient.to(param.device, param.dtype)


def run(optimizer, params, steps):
    """Make steps of gradients that shrink, and return the rates in force."""
    rates = []
    for step in range(steps):
        set_gradients(params, step, 1 / (1 + step))
        optimizer.step()
        rates.append(optimizer.get_last_lr()[0])
    return rates


def negative():
    return pytest.raises(ValueError, match=r"`grad_norm` must be >= 0, got -1\.0")
