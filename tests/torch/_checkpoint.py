"""Optimizers, gradients and comparisons that the tests of checkpoints share."""

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from zenith.torch import Zenith, ZenithLR

WINDOW = 4
STEPS = 12
CUTS = {"before": 2, "at": WINDOW, "after": 7}
SIZES = (1.0, 3.0, 0.5, 2.0, 0.25, 0.1)  # of the gradients, in turn
SHAPES = ((3, 2), (5,), ())


cuts = pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
momenta = pytest.mark.parametrize("momentum", [0.0, 0.9])


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, dtype=dtype, generator=generator)) for s in SHAPES]


def run(optimizer: Any, steps: range, *, bad: int | None = None, idle: Any = ()) -> None:
    """Make the given steps of one fixed run: the gradients depend on nothing but the step."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i in steps:
        generator = torch.Generator().manual_seed(i)
        for p in params:
            gradient = torch.randn(p.shape, dtype=p.dtype, generator=generator)
            if p.requires_grad and not any(p is other for other in idle):
                p.grad = gradient * SIZES[i % len(SIZES)] * (torch.nan if i == bad else 1.0)
        optimizer.step()
        optimizer.zero_grad()


def saved_and_loaded(document: Any) -> Any:
    file = io.BytesIO()
    torch.save(document, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(left: Any, right: Any) -> None:
    """Assert that two nested documents are equal to the last bit, and of the same dtypes."""
    assert type(left) is type(right)
    if isinstance(left, Tensor):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for pair in zip(left, right, strict=True):
            assert_same(*pair)
    else:
        assert left == right


def assert_same_run(left: Any, right: Any) -> None:
    """Assert that two optimizers hold the same parameters, momentum, settings and schedule."""
    assert_same(left.state_dict()["param_groups"], right.state_dict()["param_groups"])
    assert_same(values_of(left), values_of(right))
    assert_same(buffers_of(left), buffers_of(right))
    if isinstance(left, Zenith):
        assert_same(left.zenith_state, right.zenith_state)


def buffers_of(optimizer: Any) -> list[dict[str, Any]]:
    """What is kept for each parameter; nothing is the same as an entry that holds nothing."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return [dict(optimizer.state.get(p, {})) for p in params]


def values_of(optimizer: Any) -> list[Tensor]:
    return [p.detach() for group in optimizer.param_groups for p in group["params"]]


def copy_parameters(source: Any, target: Any) -> None:
    for value, target_value in zip(values_of(source), values_of(target), strict=True):
        target_value.copy_(value)


# How torch.distributed.checkpoint is asked for a state_dict.
WAYS = {
    "nested": {},
    "flattened": {"flatten_optimizer_state_dict": True},
    "full": {"full_state_dict": True},
    "full-cpu": {"full_state_dict": True, "cpu_offload": True},
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


def network(kind: str = "float32") -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1))
    if kind == "frozen":
        model[0].bias.requires_grad_(False)
    return model.to(torch.bfloat16 if kind == "bfloat16" else torch.float32)


BASES = {
    "sgd": partial(SGD, lr=0.1, momentum=0.9),
    "adamw": partial(AdamW, lr=0.01),
    "adamw-tensor-lr": lambda params: AdamW(params, lr=torch.tensor(0.01), foreach=False),
}
bases = pytest.mark.parametrize("base", BASES.values(), ids=BASES.keys())


def scheduled(base: Callable[..., Any], params: Any = None) -> tuple[Any, ZenithLR]:
    optimizer = base(parameters() if params is None else params)
    return optimizer, ZenithLR(optimizer, window=WINDOW)
