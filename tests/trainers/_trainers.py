"""What the trainers' tests share: a model of handwritten digits' size, and what a run leaves."""

import torch
from torch import nn

from zenith.torch import Zenith, ZenithLR

STEPS, CUT, BATCH, WINDOW = 20, 10, 8, 4
SIZES = (1.0, 3.0, 0.3, 2.0, 0.1)  # of the targets: they move the scale


class Network(nn.Module):
    """Returns the loss and the output, as Hugging Face's Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, x, labels):
        output = self.layers(x)
        return {"loss": (output - labels).square().mean(), "logits": output}


class Rows(torch.utils.data.Dataset):
    """`STEPS` batches, in a fixed order."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(STEPS * BATCH, 5, generator=generator)
        self.y = torch.randn(STEPS * BATCH, 2, generator=generator)
        steps = torch.arange(STEPS * BATCH) // BATCH
        self.y *= torch.tensor(SIZES)[steps % len(SIZES)][:, None]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "labels": self.y[i]}


def loader() -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(Rows(), batch_size=BATCH)


def zenith(parameters, **more):
    """The optimizer of every run, and what keeps its rate."""
    optimizer = Zenith(parameters, lr=0.1, window=WINDOW, momentum=0.9, **more)
    return optimizer, optimizer


def zenith_lr(parameters):
    """The same by a scheduler of SGD."""
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    return optimizer, ZenithLR(optimizer, window=WINDOW)


def plain_loop(optimizer_of, steps=STEPS, **step):
    """The rates in force and the weights of a loop without any trainer."""
    model = Network()
    optimizer, keeper = optimizer_of(model.parameters())
    rates = []
    for batch in list(loader())[:steps]:
        optimizer.zero_grad()
        model(**batch)["loss"].backward()
        optimizer.step(**step)
        rates.append(keeper.get_last_lr()[0])
    return rates, [p.detach().clone() for p in model.parameters()]
