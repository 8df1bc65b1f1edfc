"""The runs of the parity tests in torch."""

import numpy as np
import torch
from _parity import PROBLEMS, RATES, WINDOW, Leg, Run, flat

import zenith
from zenith.torch import Zenith


def keeper(state, dtype):
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=getattr(torch, dtype)))
    optimizer = Zenith([parameter], lr=0.1, window=len(state.norms))
    optimizer.zenith_state = state

    def observe(norm):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step(grad_norm=norm)
        return zenith.to_dict(optimizer.zenith_state)

    return observe


class Twice(torch.nn.Module):
    """The convolution of `_parity.cnn`, with its kernel shared by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 2, 3, padding="same")
        self.out = torch.nn.Linear(2, 3)

    def forward(self, x):
        x = x.permute(0, 3, 1, 2)
        for _ in range(2):
            x = self.conv(x).tanh()
        return self.out(x.mean((2, 3)))


def run(name, schedule, momentum, dtype, leg=None):
    leg, problem, dtype = leg or Leg(), PROBLEMS[name], getattr(torch, dtype)
    if name == "cnn":
        model = Twice()
    else:
        layers = torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        model = torch.nn.Sequential(*layers)
    model.to(dtype)
    parameters = list(model.parameters())
    for parameter, weight in zip(parameters, leg.weights or problem.weights, strict=True):
        parameter.data = torch.tensor(transposed(weight)).to(dtype)
    for parameter, factor in zip(parameters, problem.factors, strict=True):
        parameter.requires_grad_(factor is not None)
    groups = [
        {"params": [parameter], "lr": factor}
        for parameter, factor in zip(parameters, problem.factors, strict=True)
        if factor is not None
    ]
    if name != "groups":
        groups = [{"params": [p for p in parameters if p.requires_grad], "lr": 1.0}]
    optimizer = Zenith(groups, window=WINDOW, momentum=momentum)
    if leg.document is not None:
        optimizer.zenith_state = zenith.from_dict(leg.document)
    rate = RATES[schedule]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: rate(leg.steps.start + t))
    scales, history = [], []
    for x, y in zip(*leg.data(problem), strict=True):
        optimizer.zero_grad()
        error = model(torch.tensor(x, dtype=dtype)) - torch.tensor(y, dtype=dtype)
        error.square().mean().backward()
        optimizer.step()
        scheduler.step()
        scales.append(optimizer.zenith_state.scale.item())
        history.append(flat(transposed(p.detach().numpy()) for p in parameters))
    leg.document = zenith.to_dict(optimizer.zenith_state)
    return Run(np.array(scales), np.array(history))


def transposed(weight: np.ndarray) -> np.ndarray:
    """Between torch's layout and that of the others, which is its own inverse for matrices."""
    if weight.ndim < 4:
        return weight.T
    return weight.transpose(3, 2, 0, 1) if weight.shape[0] == 3 else weight.transpose(2, 3, 1, 0)
