"""The golden vectors through `Zenith` and `ZenithLR`: gradients in, the schedule's state out."""

import pytest
import torch
from _golden import CASES, assert_golden, norms

from zenith.torch import Zenith, ZenithLR

FORMS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}


def states(case, optimizer, parameter, keeper):
    for norm in norms(case):
        parameter.grad = torch.tensor([norm], dtype=parameter.dtype)
        optimizer.step()
        yield keeper.zenith_state


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_optimizer(form, dtype, tolerance, case):
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=dtype))
    optimizer = Zenith([parameter], lr=0.1, window=case["window"], **form)
    assert_golden(case, states(case, optimizer, parameter, optimizer), tolerance)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_the_scheduler(dtype, tolerance, case):
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=dtype))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = ZenithLR(optimizer, window=case["window"])
    assert_golden(case, states(case, optimizer, parameter, scheduler), tolerance)
