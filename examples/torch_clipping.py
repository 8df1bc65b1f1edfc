"""Clipping and Zenith: the trap, and three ways around it.

    pip install "zenith-optim[torch]" scikit-learn
    python examples/torch_clipping.py

A gradient that is clipped before Zenith sees it has a constant norm: the mean stays at its zenith,
and the rate at `lr`. Zenith must measure first, or be told the norm.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils import clip_grad_norm_

from zenith.torch import Zenith

MAX_NORM = 0.2

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--window", type=int, default=100, help="gradient norms in the mean")
options = parser.parse_args()

pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)


def train(name: str, max_grad_norm: float | None, step) -> None:
    """Train from the same weights with the same batches, and print the rate at the end."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = Zenith(
        model.parameters(), lr=0.1, window=options.window, max_grad_norm=max_grad_norm
    )
    for _ in range(options.epochs):
        for rows in torch.randperm(1347).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            step(model, optimizer)
    print(f"{name:<45} rate {optimizer.get_last_lr()[0]:.4f}")


def trap(model: nn.Module, optimizer: Zenith) -> None:
    """Clip first, and say nothing."""
    clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()


def told(model: nn.Module, optimizer: Zenith) -> None:
    """Clip first, and hand over the norm that clipping has taken anyway."""
    norm = clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step(grad_norm=norm)


train("clip_grad_norm_, then step(): the trap", None, trap)
train("clip_grad_norm_, then step(grad_norm=norm)", None, told)
train("Zenith(max_grad_norm=...)", MAX_NORM, lambda model, optimizer: optimizer.step())
train("no clipping", None, lambda model, optimizer: optimizer.step())
