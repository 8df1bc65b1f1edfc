"""Train with FSDP2, the parameters sharded over the ranks, and resume from a checkpoint.

    pip install "zenith-optim[torch]" scikit-learn
    torchrun --nproc-per-node 2 examples/torch_fsdp2.py --checkpoint digits-ckpt
    torchrun --nproc-per-node 2 examples/torch_fsdp2.py --checkpoint digits-ckpt    # goes on

The norm is that of the whole gradient, at the cost of one all-reduce of a number. The checkpoint
holds the schedule, and may be resumed on another number of ranks.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from zenith.torch import Zenith

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--checkpoint", type=Path, required=True, help="folder: resumed if it is there")
parser.add_argument("--epochs", type=int, default=10, help="more of them")
parser.add_argument("--window", type=int, default=200, help="gradient norms in the mean")
options = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
dist.init_process_group("nccl" if device == "cuda" else "gloo")
rank, ranks = dist.get_rank(), dist.get_world_size()
if device == "cuda":
    torch.cuda.set_device(rank % torch.cuda.device_count())
mesh = dist.device_mesh.init_device_mesh(device, (ranks,))

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32, device=device)
labels = torch.tensor(digits, device=device)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
for layer in (model[0], model[2], model):
    fully_shard(layer, mesh=mesh)
optimizer = Zenith(model.parameters(), lr=0.1, window=options.window, momentum=0.9)

first = 1
if options.checkpoint.exists():
    weights, state = get_state_dict(model, optimizer)
    saved = {"model": weights, "optimizer": state, "epoch": 0}
    dcp.load(saved, checkpoint_id=options.checkpoint)
    set_state_dict(
        model, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"]
    )
    first = saved["epoch"] + 1

for epoch in range(first, first + options.epochs):
    torch.manual_seed(epoch)
    for batch in torch.randperm(1347)[: 1347 // 32 * 32].split(32):  # the same on every rank
        rows = batch[rank::ranks]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    accuracy = (model(images[1347:]).argmax(1) == labels[1347:]).float().mean().item()
    if rank == 0:
        (rate,) = optimizer.get_last_lr()
        seen = int(optimizer.zenith_state.count)
        print(
            f"epoch {epoch}: {seen} norms, rate {rate:.4f}, test accuracy {100 * accuracy:.2f} %",
            flush=True,
        )

weights, state = get_state_dict(model, optimizer)
dcp.save({"model": weights, "optimizer": state, "epoch": epoch}, checkpoint_id=options.checkpoint)
dist.destroy_process_group()
