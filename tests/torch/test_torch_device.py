"""Where the norm is on a device: the same numbers as on the host."""

import copy
import math

import pytest
import torch
from _device import FORMS, OPTIONS, parameters, run, set_gradients
from _reference import scales

import zenith
from zenith.torch import Zenith, ZenithLR, _norm, _sgd


@pytest.fixture
def as_on_a_device(monkeypatch):
    """Make zenith treat tensors of the CPU as it treats those of a GPU: as unreadable."""
    for module in (_norm, _sgd):
        monkeypatch.setattr(module, "on_host", lambda tensor: False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_device_form_is_sgd_to_the_last_bit_while_the_window_fills(
    as_on_a_device, form, options
):
    ours, theirs = parameters(), parameters()
    kwargs = FORMS[form] | OPTIONS[options]
    optimizer = Zenith(ours, lr=0.1, window=9, **kwargs)
    for name in ("nonfinite", "decay_in_norm", "max_grad_norm"):
        kwargs.pop(name, None)
    sgd = torch.optim.SGD(theirs, lr=0.1, **kwargs)
    for step in range(6):
        for params, opt in ((ours, optimizer), (theirs, sgd)):
            set_gradients(params, step)
            if options == "clipped" and opt is sgd:
                torch.nn.utils.clip_grad_norm_(params, 1.0)
            opt.step()
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
    assert isinstance(optimizer.param_groups[0]["zenith_norms"], torch.Tensor)


@pytest.mark.parametrize("form", [*FORMS, "fused"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("lr", ["float", "tensor"])
def test_the_device_form_and_the_host_form_agree(form, options, lr, request):
    kwargs = (FORMS | {"fused": {"fused": True}})[form] | OPTIONS[options]
    rate = torch.tensor(0.1) if lr == "tensor" else 0.1
    host, device = parameters(), parameters()
    expected = run(Zenith(host, lr=rate, window=3, **kwargs), host, 12)
    request.getfixturevalue("as_on_a_device")
    rates = run(Zenith(device, lr=rate, window=3, **kwargs), device, 12)
    assert rates == pytest.approx(expected, rel=1e-6)
    assert rates[-1] < 0.05
    for a, b in zip(host, device, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", [*FORMS, "fused"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("bad", [0, 1, 5])
def test_skip_without_a_read_leaves_everything_bit_for_bit(as_on_a_device, form, momentum, bad):
    kwargs = (FORMS | {"fused": {"fused": True}})[form]
    params, clean = parameters(), parameters()
    optimizer = Zenith(params, lr=0.1, window=3, momentum=momentum, **kwargs)
    run(optimizer, params, bad)
    before = copy.deepcopy(params), optimizer.zenith_state
    buffers = {i: optimizer.state[p]["momentum_buffer"].clone() for i, p in enumerate(params)
               if "momentum_buffer" in optimizer.state[p]}  # fmt: skip
    set_gradients(params, bad)
    params[0].grad[0, 0] = math.inf
    params[2].grad.fill_(math.nan)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before[0], params, strict=True))
    for i, param in enumerate(params):
        if momentum:
            expected = buffers.get(i, torch.zeros_like(param))
            assert torch.equal(optimizer.state[param]["momentum_buffer"], expected)
    after = optimizer.zenith_state
    expected = before[1]._replace(skipped=before[1].skipped + 1)
    assert all(torch.equal(a, b) for a, b in zip(after, expected, strict=True))

    # and goes on as if the step had never been
    never = Zenith(clean, lr=0.1, window=3, momentum=momentum, **kwargs)
    run(never, clean, bad)
    for param_list, opt in ((params, optimizer), (clean, never)):
        set_gradients(param_list, 99)
        opt.step()
    assert all(torch.equal(a, b) for a, b in zip(params, clean, strict=True))


@pytest.mark.parametrize("form", [*FORMS, "fused"])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("lr", [0.1, 0.0, torch.tensor(0.1)])
@pytest.mark.parametrize("on_device", [False, True])
def test_a_skipped_step_keeps_the_sign_of_zero(form, options, maximize, lr, on_device, request):
    if on_device:
        request.getfixturevalue("as_on_a_device")
    kwargs = (FORMS | {"fused": {"fused": True}})[form] | options
    real = [torch.full((3,), -0.0, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    imaginary = [] if form == "fused" else [torch.complex(real[0], real[0])]
    params = [torch.nn.Parameter(value) for value in real + imaginary]
    optimizer = Zenith(params, lr=lr, maximize=maximize, **kwargs)
    for param in params:
        param.grad = torch.full_like(param, math.nan)
    optimizer.step()
    for param in params:
        value = torch.view_as_real(param) if param.is_complex() else param
        assert torch.equal(value, torch.zeros_like(value))
        assert torch.signbit(value).all()
    assert optimizer.zenith_state.skipped == 1


def test_propagate_without_a_read_makes_sgds_step(as_on_a_device):
    params, twins = parameters(), parameters()
    optimizer = Zenith(params, lr=0.1, nonfinite="propagate", foreach=True)
    sgd = torch.optim.SGD(twins, lr=0.1, foreach=True)
    for own, opt in ((params, optimizer), (twins, sgd)):
        set_gradients(own, 0)
        own[0].grad[0, 0] = math.nan
        opt.step()
    for a, b in zip(params, twins, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert params[0][0, 0].isnan()


@pytest.mark.parametrize("form", FORMS)
def test_sparse_gradients_step_as_on_the_host(as_on_a_device, form):
    """Gradients of norm 2 and 1 in one row, whose index is there twice: 0.5 * 2 and 0.25 * 1."""
    weight = torch.nn.Parameter(torch.zeros(3, 1))
    optimizer = Zenith([weight], lr=0.5, window=1, **FORMS[form])
    for size in (2.0, 1.0):
        values = torch.tensor([[size / 2], [size / 2]])
        indices = torch.tensor([[1, 1]])
        weight.grad = torch.sparse_coo_tensor(indices, values, (3, 1), check_invariants=True)
        optimizer.step()
    assert weight.flatten().tolist() == [0.0, -1.25, 0.0]


@pytest.mark.parametrize("options", [{"fused": True}, {"max_grad_norm": 2.5}])
def test_of_several_gradients_one_may_be_negated_lazily(options):
    """Of norm 5; where they are clipped to 2.5, by half."""
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    params[0].grad = torch.tensor([3.0])
    params[1].grad = torch.tensor([-4j]).conj().imag
    assert [p.grad.is_neg() for p in params] == [False, True]
    optimizer = Zenith(params, lr=0.5, window=1, **options)
    optimizer.step()
    factor = 0.5 if "fused" in options else 0.25
    assert [p.item() for p in params] == pytest.approx([-3 * factor, -4 * factor], rel=1e-6)


def test_the_scale_is_not_rounded_to_the_precision_of_bfloat16_parameters(as_on_a_device):
    """4.99 / 7 has 8 bits too few in bfloat16: 358 times it would come out 0.1 % off."""
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = Zenith([weight], lr=1.0, window=1)
    weight.grad = torch.tensor([358.0], dtype=torch.bfloat16)
    optimizer.step(grad_norm=7.0)
    with torch.no_grad():
        weight.zero_()
    weight.grad = torch.tensor([358.0], dtype=torch.bfloat16)
    optimizer.step(grad_norm=4.99)
    exact = torch.tensor([358.0]) * torch.tensor(4.99 / 7.0)
    assert weight.item() == -exact.to(torch.bfloat16).item()


def test_a_phantom_step_and_a_dropped_step_change_no_field(as_on_a_device):
    params = parameters()
    optimizer = Zenith(params, lr=0.1, window=2, fused=True)
    run(optimizer, params, 3)
    before = optimizer.zenith_state
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for param in params:
        param.grad = torch.zeros_like(param)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.1
    copies = copy.deepcopy(params)
    set_gradients(params, 7)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.zenith_state, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(copies, params, strict=True))
    optimizer.found_inf = torch.tensor(0.0)
    set_gradients(params, 7)
    optimizer.step()
    norm = math.sqrt(sum((p.grad.double() ** 2).sum() for p in params))
    # the fused kernel has unscaled the gradients in place, so this is the unscaled norm
    last = zenith.metrics(optimizer.zenith_state)["grad_norm"]
    assert last.item() == pytest.approx(norm, rel=1e-6)


def test_zenith_lr_goes_on_where_its_model_moves_from_a_device_to_the_host():
    """The means over two norms are 3, 2, 1.5 and 1.25."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scheduler = ZenithLR(optimizer, window=2)
    rates = []
    for norm, on_host in ((4.0, False), (2.0, False), (2.0, False), (1.0, True), (1.5, True)):
        weight.grad = torch.full_like(weight, norm)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_norm, "on_host", lambda tensor, value=on_host: value)
            optimizer.step()
        assert isinstance(scheduler.zenith_metrics()["mean"], float) == on_host
        rates.append(scheduler.get_last_lr()[0])
    assert rates == pytest.approx([0.5, 0.5, 0.5 * 2 / 3, 0.5 * 1.5 / 3, 0.5 * 1.25 / 3], rel=1e-6)


def test_zenith_lr_agrees_and_writes_nothing_at_a_phantom_step(as_on_a_device):
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(1.0))
    scheduler = ZenithLR(optimizer, window=2)
    norms, rates = [4.0, 2.0, 1.0, 0.5], []
    for norm in norms:
        weight.grad = torch.tensor([norm])
        optimizer.step()
        rates.append(scheduler.get_last_lr()[0].item())
    assert rates == pytest.approx(scales(norms, 2), rel=1e-6)
    before = scheduler.zenith_state
    kept, optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"], torch.tensor(0.0)
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"].item() == 0.0
    optimizer.param_groups[0]["lr"] = kept
    assert all(torch.equal(a, b) for a, b in zip(before, scheduler.zenith_state, strict=True))
