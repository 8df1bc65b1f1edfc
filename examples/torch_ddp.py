"""Train on the handwritten digits with DistributedDataParallel: nothing changes for Zenith.

    pip install "zenith-optim[torch]" scikit-learn
    torchrun --nproc-per-node 2 examples/torch_ddp.py

DDP leaves the same gradient on every rank, and so every rank has the same norm and rate, those of a
single process with the whole batch.
"""

import argparse

import torch
import torch.distributed as dist
import torch.distributed.nn  # imported later, by DDP, it would hold the process group for ever
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from zenith.torch import Zenith


def train(epochs: int, window: int, device: str) -> None:
    """Train this rank's part of each batch; the model and its optimizer are gone afterwards."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if device == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())

    torch.manual_seed(0)
    pixels, digits = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32, device=device)
    labels = torch.tensor(digits, device=device)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
    model = DistributedDataParallel(model)
    optimizer = Zenith(model.parameters(), lr=0.1, window=window)

    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(1347)[: 1347 // 32 * 32].split(32):  # the same on every rank
            rows = batch[rank::ranks]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        if rank == 0:
            right = (model.module(images[1347:]).argmax(1) == labels[1347:]).float()
            accuracy, (rate,) = 100 * right.mean().item(), optimizer.get_last_lr()
            print(f"epoch {epoch}: rate {rate:.4f}, test accuracy {accuracy:.2f} %", flush=True)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
dist.init_process_group("nccl" if device == "cuda" else "gloo")
train(options.epochs, options.window, device)
# No model holds the group any more, so that gloo's threads end here: one that still lets go of a
# collective while Python ends would abort the process.
dist.destroy_process_group()
