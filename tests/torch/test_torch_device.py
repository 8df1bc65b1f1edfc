"""Where the norm is on a device: no read-back, the same numbers, one compiled graph."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from _reference import scales
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import zenith
from zenith.torch import Zenith, ZenithLR, _norm, _sgd

SHAPES = [(4, 3), (5,), ()]
FORMS = {"default": {}, "for-loop": {"foreach": False}, "foreach": {"foreach": True}}
OPTIONS = {
    "plain": {},
    "propagate": {"nonfinite": "propagate"},
    "momentum": {"momentum": 0.9, "dampening": 0.5},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "decay_in_norm": True},
    "maximize": {"maximize": True, "weight_decay": 0.1, "momentum": 0.9},
    "clipped": {"max_grad_norm": 1.0},
}


def parameters(seed=0, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(s, generator=generator).to(device, dtype)) for s in SHAPES
    ]


def set_gradients(params, step, size=1.0):
    generator = torch.Generator().manual_seed(1000 + step)
    for param in params:
        gradient = torch.randn(param.shape, generator=generator) * size
        param.grad = gradient.to(param.device, param.dtype)


class Calls(TorchDispatchMode):
    """Counts operators, but for what only asks a tensor or times a function."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.namespace == "aten"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_device(monkeypatch):
    """Make zenith treat tensors of the CPU as it treats those of a GPU: as unreadable."""
    for module in (_norm, _sgd):
        monkeypatch.setattr(module, "on_host", lambda tensor: False)


# --- fake CUDA tensors raise on any read that depends on data ---------------------------------


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


def negative():
    return pytest.raises(ValueError, match=r"`grad_norm` must be >= 0, got -1\.0")


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


# --- the same numbers as on the host ----------------------------------------------------------


def run(optimizer, params, steps, bad=(), gradients=set_gradients):
    rates = []
    for step in range(steps):
        gradients(params, step, 1 / (1 + step))
        if step in bad:
            params[1].grad[2] = math.nan
        optimizer.step()
        rates.append(optimizer.get_last_lr()[0])
    return rates


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


# --- torch.compile ----------------------------------------------------------------------------


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["inductor", "aot_eager"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "foreach": True},
        {"max_grad_norm": 1.0},
        {"fused": True, "momentum": 0.9},
        {"lr": torch.tensor(0.1), "momentum": 0.9},
    ],
    ids=["plain", "foreach", "clipped", "fused", "tensor lr"],
)
def test_one_graph_without_a_break_and_no_recompilation_as_the_rate_moves(
    compiler, backend, options
):
    eager, compiled = parameters(), parameters()
    options = {"lr": 0.1, "window": 3} | options
    expected = run(Zenith(eager, **copy.deepcopy(options)), eager, 12)
    optimizer = Zenith(compiled, **options)
    set_gradients(compiled, 0)
    step = torch.compile(optimizer.step, fullgraph=True, backend=backend)
    rates, graphs = [], []
    for i in range(12):
        set_gradients(compiled, i, 1 / (1 + i))
        step()
        rates.append(optimizer.get_last_lr()[0])
        graphs.append(compiler["unique_graphs"])
    assert rates == pytest.approx(expected, rel=1e-5)
    assert len(set(rates)) > 8
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    # the first momentum step, which makes the buffers, is a graph of its own, as for SGD
    assert graphs[2:] == [graphs[1]] * 10
    assert graphs[-1] <= 2


def test_compiled_step_in_float64_keeps_every_write(compiler):
    """AOTAutograd drops in-place writes to a 0-dim float64 CPU tensor; ours are rebound."""
    params = parameters(dtype=torch.float64)
    twins = parameters(dtype=torch.float64)
    optimizer, eager = Zenith(params, window=2), Zenith(twins, window=2)
    set_gradients(params, 0)
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    for i in range(6):
        for own in (params, twins):
            set_gradients(own, i)
        step()
        eager.step()
    for ours, theirs in zip(optimizer.zenith_state, eager.zenith_state, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_compiled_step_skips_a_non_finite_gradient(compiler):
    params = parameters()
    optimizer = Zenith(params, window=2, momentum=0.9)
    set_gradients(params, 0)
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    for i in range(3):
        set_gradients(params, i)
        step()
    before = copy.deepcopy(params)
    buffers = [optimizer.state[p]["momentum_buffer"].clone() for p in params]
    set_gradients(params, 3)
    params[1].grad[0] = math.nan
    step()
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))
    assert all(
        torch.equal(b, optimizer.state[p]["momentum_buffer"])
        for b, p in zip(buffers, params, strict=True)
    )
    assert optimizer.zenith_state.skipped == 1
    assert optimizer.zenith_state.count == 3


def test_compiled_step_that_is_told_the_norm_by_numbers(compiler):
    """The means of 4, 2 and 1 by a window of 2 are 3 and 1.5; a negative norm is refused."""
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    optimizer = Zenith([weight], lr=0.5, window=2)
    step = torch.compile(optimizer.step, backend="aot_eager")
    for norm in (4.0, 2.0, 1.0):
        step(grad_norm=norm)
    assert optimizer.get_last_lr() == [0.25]
    with negative():
        step(grad_norm=-1.0)
    assert (weight.item(), optimizer.zenith_state.count) == (1 - 0.5 - 0.5 - 0.25, 3)


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "dampening"])
def test_compiled_step_with_a_numpy_scalar(compiler, name):
    eager, compiled = parameters(), parameters()
    make = partial(Zenith, lr=0.1, momentum=0.5, window=2)
    optimizer, plain = make(compiled), make(eager)
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    for i in range(5):
        number = 0.1 * 0.9**i if name == "lr" else 0.25
        optimizer.param_groups[0][name] = np.float64(number)
        plain.param_groups[0][name] = number
        for own in (eager, compiled):
            set_gradients(own, i)
        step()
        plain.step()
    assert optimizer.get_last_lr() == pytest.approx(plain.get_last_lr(), rel=1e-5)
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert compiler["unique_graphs"] == 2  # a new rate compiles nothing anew


def test_compiled_step_keeps_the_sign_of_zero_where_it_is_skipped(compiler):
    weight = torch.nn.Parameter(torch.full((3,), -0.0))
    optimizer = Zenith([weight], window=2)
    step = torch.compile(optimizer.step, fullgraph=True, backend="inductor")
    weight.grad = torch.full((3,), math.nan)
    step()
    assert torch.signbit(weight).all()
    assert optimizer.zenith_state.skipped == 1


def test_eager_and_compiled_steps_may_alternate(compiler):
    params, twins = parameters(), parameters()
    optimizer, eager = Zenith(params, window=3), Zenith(twins, window=3)
    set_gradients(params, 0)
    step = torch.compile(optimizer.step, fullgraph=True, backend="aot_eager")
    rates = []
    for i in range(12):
        for own in (params, twins):
            set_gradients(own, i, 1 / (1 + i))
        (step if i % 4 < 2 else optimizer.step)()
        eager.step()
        rates.append((optimizer.get_last_lr()[0], eager.get_last_lr()[0]))
    assert [a for a, _ in rates] == pytest.approx([b for _, b in rates], rel=1e-6)
