"""No step reads a device: fake CUDA tensors raise on any read that depends on data."""

import numpy as np
import pytest
import torch
from _device import FORMS, OPTIONS, SHAPES, negative
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import zenith
from zenith.torch import Zenith, ZenithLR


class Calls(TorchDispatchMode):
    """Counts operators, but for what only asks a tensor or times a function."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.namespace == "aten"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("lr", ["float", "tensor"])
def test_no_read_of_a_cuda_tensor(form, options, lr):
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.randn(shape, device="cuda")) for shape in SHAPES]
        optimizer = Zenith(params, lr=0.1, window=2, **FORMS[form], **OPTIONS[options])
        if lr == "tensor":  # set here, since SGD's constructor compares it with 0
            optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="cuda")
        for _ in range(4):
            for param in params:
                param.grad = torch.randn_like(param)
            optimizer.step()
        values = zenith.metrics(optimizer.zenith_state)
        optimizer.state_dict()
    assert {value.device.type for value in values.values()} == {"cuda"}


def test_no_read_with_a_known_norm_with_an_lr_of_0_and_with_low_precision():
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.randn(3, device="cuda", dtype=torch.bfloat16))]
        optimizer = Zenith(params, lr=0.0, window=2, momentum=0.9)
        for norm in (torch.tensor(1.0, device="cuda"), 2.0, None):
            params[0].grad = torch.randn_like(params[0])
            optimizer.step(grad_norm=norm)
        assert optimizer.zenith_state.norms.dtype == torch.float32


def test_the_state_is_made_with_the_first_parameter():
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
        assert {field.device.type for field in Zenith([weight]).zenith_state} == {"cuda"}


def test_a_negative_number_as_the_norm_is_refused_without_a_read():
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
        weight.grad = torch.ones_like(weight)
        optimizer = Zenith([weight], window=2)
        for number in (-1, -1.0, np.float32(-1)):
            with negative():
                optimizer.step(grad_norm=number)
        assert optimizer.state_dict()["param_groups"][0]["zenith_count"].device.type == "cuda"


def calls(tensors, nonfinite):
    """The operators that a step dispatches, on fake CUDA tensors with a full window."""
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.randn(3, device="cuda")) for _ in range(tensors)]
        optimizer = Zenith(params, window=2, nonfinite=nonfinite)
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer.step()
        with Calls() as seen:
            optimizer.step()
    return seen.count


def test_a_step_on_a_gpu_dispatches_as_many_operators_however_many_tensors_there_are():
    # 26 of the schedule, 3 of the norm, 2 of the step: torch._foreach_mul and _foreach_add_
    assert calls(2, "propagate") == calls(161, "propagate") == 31
    # and where a step may have to be dropped, a `where` for each tensor and the 0 for all of them
    assert calls(161, "skip") == 31 + 161 + 1


def test_parameters_on_two_devices_make_one_norm():
    with FakeTensorMode():
        devices = ["cuda:0", "cuda:1"]
        params = [torch.nn.Parameter(torch.randn(3, device=device)) for device in devices]
        optimizer = Zenith(params, window=2, momentum=0.9)
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer.step()
        buffers = [optimizer.state[param]["momentum_buffer"].device for param in params]
    assert [str(device) for device in buffers] == devices


def test_no_read_by_zenith_lr_where_lr_is_a_tensor_on_the_device():
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.randn(3, device="cuda"))]
        optimizer = torch.optim.SGD(params, lr=0.1)
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="cuda")
        # SGD's own for-loop reads a tensor lr, so the hook is called alone
        scheduler = ZenithLR(optimizer, window=2)
        for _ in range(3):
            params[0].grad = torch.randn_like(params[0])
            scheduler._observe(None)
        assert scheduler.get_last_lr()[0].device.type == "cuda"


NUMPY = {
    "lr": np.float64(0.1),
    "momentum": np.float32(0.5),
    "dampening": np.float64(0.5),
    "weight_decay": np.float64(0.5),
}


@pytest.mark.parametrize("form", [*FORMS, "fused"])
@pytest.mark.parametrize("name", NUMPY)
def test_no_read_with_a_numpy_scalar(form, name):
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.randn(3, device="cuda"))]
        optimizer = Zenith(params, window=2, momentum=0.5, **FORMS.get(form, {}))
        if form == "fused":  # the kernel itself is not to be had for fake tensors
            batch = optimizer._batch(optimizer.param_groups[0] | {name: NUMPY[name]})
            assert type(batch.group[name]) is float
            return
        optimizer.param_groups[0][name] = NUMPY[name]
        for _ in range(3):
            params[0].grad = torch.randn_like(params[0])
            optimizer.step()
        rate = optimizer.zenith_metrics()["lr"]
    assert (rate.device.type, rate.shape) == ("cuda", ())


def test_zenith_metrics_are_unread_and_without_the_ring():
    with FakeTensorMode():
        params = [torch.nn.Parameter(torch.randn(3, device="cuda"))]
        optimizer = Zenith(params, window=2)
        params[0].grad = torch.randn_like(params[0])
        optimizer.step()
        values = optimizer.zenith_metrics().values()
    assert all(value.device.type == "cuda" and value.shape == () for value in values)
