"""A DDP run for torchrun that saves itself every third step, and can kill one of its ranks."""

import argparse
import json
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn  # imported later, by DDP, it would hold the process group for ever
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import zenith
from zenith.torch import Zenith

STEPS, WINDOW = 14, 4


def train(options: argparse.Namespace) -> None:
    rank, restarts = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    replica = DistributedDataParallel(model)
    optimizer = Zenith(replica.parameters(), lr=0.1, window=WINDOW, momentum=0.9)
    checkpoint, first, scales = options.folder / "last.pt", 0, []
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first, scales = saved["step"], saved["scales"]

    for step in range(first, STEPS):
        if rank == 1 and restarts == 0 and step == options.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 5, generator=generator), torch.randn(8, 1, generator=generator)
        optimizer.zero_grad()
        size = (1.0, 3.0, 0.3)[step % 3]
        (replica(x[rank::2]) - size * y[rank::2]).square().mean().backward()
        optimizer.step()
        scales.append(optimizer.zenith_state.scale.item())
        if (step + 1) % 3 == 0 and rank == 0:
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**saved, "step": step + 1, "scales": scales}, f"{checkpoint}.part")
            Path(f"{checkpoint}.part").replace(checkpoint)
        dist.barrier()

    document = {
        "restarts": restarts,
        "resumed at": first,
        "scales": scales,
        "state": zenith.to_dict(optimizer.zenith_state),
        "weights": [p.tolist() for p in model.parameters()],
    }
    (options.folder / f"rank{rank}.json").write_text(json.dumps(document))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-rank-1-at-step", type=int, default=-1, dest="kill")
    dist.init_process_group("gloo")
    train(parser.parse_args())
    dist.destroy_process_group()  # which no model holds any more: see examples/torch_ddp.py
