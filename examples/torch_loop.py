"""Train a network on scikit-learn's handwritten digits with Zenith, in a plain PyTorch loop.

    pip install "zenith-optim[torch,plot]" scikit-learn
    python examples/torch_loop.py

Every step's numbers go into torch_loop.csv, and from there into torch_loop.png.
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

from zenith.logs import MetricLog, to_csv
from zenith.plot import plot
from zenith.torch import Zenith

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
parser.add_argument("--out", type=Path, default=Path())
options = parser.parse_args()

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
model = nn.Sequential(
    nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
)
optimizer = Zenith(model.parameters(), lr=0.1, window=options.window)

record = options.out / "torch_loop.csv"
record.unlink(missing_ok=True)
with MetricLog(to_csv(record)) as log:
    for epoch in range(1, options.epochs + 1):
        for rows in torch.randperm(1347).split(32):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            loss.backward()
            optimizer.step()
            log(optimizer, loss=loss.detach())
        accuracy = (model(images[1347:]).argmax(1) == labels[1347:]).float().mean().item()
        (rate,) = optimizer.get_last_lr()
        print(f"epoch {epoch}: rate {rate:.4f}, test accuracy {100 * accuracy:.2f} %")

plot(record).savefig(options.out / "torch_loop.png")
