"""Optimizers and gradients that the tests of the schedule share."""

import math

import torch

from zenith.torch import Zenith

FORMS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
INF, NAN = math.inf, math.nan


def scalar(value=0.0, dtype=torch.float64):
    return torch.nn.Parameter(torch.tensor([value], dtype=dtype))


def drive(optimizer, param, norms, **kwargs):
    """Make one step for each norm and return the rates in force."""
    rates = []
    for norm in norms:
        param.grad = torch.full_like(param, norm)
        optimizer.step(**kwargs)
        rates.append(optimizer.get_last_lr()[0])
    return rates


def equal_states(left, right):
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(left, right, strict=True))


def scaled_run(norms, *, bad_steps=(), unscale=False, window=2, **kwargs):
    """Train one weight under a CPU GradScaler whose factor is 2**10 at first."""
    weight = scalar(1.0, torch.float32)
    optimizer = Zenith([weight], lr=0.125, window=window, **kwargs)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    states = []
    for step, norm in enumerate(norms):
        optimizer.zero_grad()
        factor = INF if step in bad_steps else norm
        scaler.scale((weight * factor).sum()).backward()
        if unscale:
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_([weight], 1.0)
            scaler.step(optimizer, grad_norm=norm)
        else:
            scaler.step(optimizer)
        scaler.update()
        states.append(optimizer.zenith_state)
    return weight, states
