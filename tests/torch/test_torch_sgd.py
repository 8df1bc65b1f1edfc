"""Zenith is torch.optim.SGD, to the last bit, while the window fills.

Driven by the inputs with which PyTorch tests its own SGD.
"""

import copy
import inspect
import io
import pickle
import re
from itertools import product

import pytest
import torch
from torch.testing._internal.common_optimizers import (
    optim_error_inputs_func_sgd,
    optim_inputs_func_sgd,
)

from zenith.torch import Zenith, _norm

STEPS = 6
FORMS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
SHAPES = [(4, 3), (3,), (2, 3, 5), (), (1, 7)]
INPUTS = {case.desc: case.kwargs for case in optim_inputs_func_sgd("cpu")} | {
    "tensor lr of one element in a vector": {"lr": torch.tensor([0.01])},
    "maximize with momentum": {"lr": 0.1, "maximize": True, "momentum": 0.9, "nesterov": True},
    "lr 0": {"lr": 0.0},
}


def parameters(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES
    ]


def set_gradients(params, step):
    generator = torch.Generator().manual_seed(1000 + step)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator, dtype=param.dtype)


def pair(dtype=torch.float32, groups=lambda params: params, **kwargs):
    """SGD and Zenith over equal parameters, with equal arguments and a window that never fills."""
    ours, theirs = parameters(dtype), parameters(dtype)
    kwargs = {"lr": 0.1, **kwargs}
    zenith = Zenith(groups(ours), window=STEPS + 1, **copy.deepcopy(kwargs))
    return (zenith, ours), (torch.optim.SGD(groups(theirs), **copy.deepcopy(kwargs)), theirs)


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype


def assert_same_buffers(zenith, ours, sgd, theirs):
    for a, b in zip(ours, theirs, strict=True):
        left, right = (o.state[p].get("momentum_buffer") for o, p in ((zenith, a), (sgd, b)))
        assert (left is None) == (right is None)
        if left is not None:
            assert torch.equal(left, right)


def run_both(zenith, ours, sgd, theirs, steps=STEPS, gradients=set_gradients):
    for step in range(steps):
        for optimizer, params in ((zenith, ours), (sgd, theirs)):
            optimizer.zero_grad()
            gradients(params, step)
            optimizer.step()
        assert_same(ours, theirs)
        assert_same_buffers(zenith, ours, sgd, theirs)
    assert any(not torch.equal(p, q) for p, q in zip(ours, parameters(ours[0].dtype), strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", [name for name in INPUTS if name != "lr 0"])
def test_every_argument_of_sgd_in_every_form(case, form):
    (zenith, ours), (sgd, theirs) = pair(**INPUTS[case], **FORMS[form])
    run_both(zenith, ours, sgd, theirs)
    assert zenith.zenith_state.count == STEPS


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        *product(FORMS, [torch.float64, torch.bfloat16, torch.float16]),
        ("for-loop", torch.complex64),
        ("foreach", torch.complex128),
    ],
)
def test_every_dtype(form, dtype):
    (zenith, ours), (sgd, theirs) = pair(
        dtype, momentum=0.9, nesterov=True, weight_decay=0.1, **FORMS[form]
    )
    run_both(zenith, ours, sgd, theirs)


def test_lr_0_moves_nothing_and_counts_real_norms():
    (zenith, ours), (sgd, theirs) = pair(lr=0.0, momentum=0.9)
    for step in range(STEPS):
        for optimizer, params in ((zenith, ours), (sgd, theirs)):
            set_gradients(params, step)
            optimizer.step()
    assert_same(ours, theirs)
    assert_same(ours, parameters())
    assert zenith.zenith_state.count == STEPS


@pytest.mark.parametrize("form", ["for-loop", "foreach"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sparse_uncoalesced_gradients(form, momentum):
    def sparse_gradients(params, step):
        set_gradients(params[1:], step)
        values = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        indices = torch.tensor([[0, 2, 2, 0, 3]])
        params[0].grad = torch.sparse_coo_tensor(
            indices, values, (4, 3), check_invariants=True, is_coalesced=False
        )

    (zenith, ours), (sgd, theirs) = pair(momentum=momentum, **FORMS[form])
    for step in range(STEPS):
        for optimizer, params in ((zenith, ours), (sgd, theirs)):
            sparse_gradients(params, step)
            optimizer.step()
            assert not params[0].grad.is_coalesced()  # left as the caller made it
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("form", "moving"), [("for-loop", True), ("foreach", True), ("fused", False)]
)
def test_parameters_without_gradients(form, moving):
    # torch's own fused SGD fails where a parameter gets its first gradient after the others.
    def some(params, step):
        set_gradients(params, step)
        for index, param in enumerate(params):
            if (index + step * moving) % 3 == 0:
                param.grad = None

    (zenith, ours), (sgd, theirs) = pair(momentum=0.9, dampening=0.5, **FORMS[form])
    run_both(zenith, ours, sgd, theirs, gradients=some)


def test_groups_with_their_own_options():
    def groups(params):
        return [
            {"params": params[:2], "lr": 0.5, "momentum": 0.9},
            {"params": params[2:4], "weight_decay": 0.1, "maximize": True},
            {"params": params[4:], "lr": torch.tensor(0.25), "foreach": True},
        ]

    (zenith, ours), (sgd, theirs) = pair(groups=groups)
    run_both(zenith, ours, sgd, theirs)
    assert zenith.get_last_lr() == [0.5, 0.1, 0.25]


def test_named_parameters():
    named = [(f"p{i}", p) for i, p in enumerate(parameters())]
    zenith = Zenith(named)
    assert zenith.param_groups[0]["param_names"] == ["p0", "p1", "p2", "p3", "p4"]


def test_add_param_group_in_mid_run():
    first, second = parameters(seed=0), parameters(seed=1)
    zenith, ours = Zenith(first, lr=0.1, momentum=0.9, window=9), [*first]
    sgd_first, sgd_second = parameters(seed=0), parameters(seed=1)
    sgd, theirs = torch.optim.SGD(sgd_first, lr=0.1, momentum=0.9), [*sgd_first]
    for step in range(STEPS):
        if step == 3:
            for optimizer, params, new in ((zenith, ours, second), (sgd, theirs, sgd_second)):
                optimizer.add_param_group({"params": new, "lr": 0.01})
                params.extend(new)
        for optimizer, params in ((zenith, ours), (sgd, theirs)):
            set_gradients(params, step)
            optimizer.step()
        assert_same(ours, theirs)
    assert zenith.zenith_state.count == STEPS
    assert zenith.get_last_lr() == [0.1, 0.01]


def test_closure_is_called_once_with_gradients_enabled_and_its_loss_returned():
    (zenith, ours), (sgd, theirs) = pair(momentum=0.9)
    for optimizer, params in ((zenith, ours), (sgd, theirs)):
        calls = []

        def closure(optimizer=optimizer, params=params, calls=calls):
            optimizer.zero_grad()
            loss = sum(p.square().sum() for p in params)
            loss.backward()
            calls.append(loss.item())
            return loss

        with torch.no_grad():
            losses = [optimizer.step(closure).item() for _ in range(STEPS)]
        assert losses == calls
        assert losses[-1] < losses[0]
    assert_same(ours, theirs)


def test_step_hooks_run_around_the_step():
    params = parameters()
    zenith = Zenith(params, lr=0.1)
    seen = []
    zenith.register_step_pre_hook(lambda *_: seen.append(("pre", params[0].clone())))
    zenith.register_step_post_hook(lambda *_: seen.append(("post", params[0].clone())))
    set_gradients(params, 0)
    zenith.step()
    assert [name for name, _ in seen] == ["pre", "post"]
    torch.testing.assert_close(seen[1][1], seen[0][1] - 0.1 * params[0].grad)


@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "torch.save"])
@pytest.mark.parametrize("form", FORMS)
def test_a_copy_goes_on_as_the_original(copied, form):
    params = parameters()
    options = {"window": 3, "max_grad_norm": 2.0, "nonfinite": "propagate"}
    zenith = Zenith(params, lr=0.1, momentum=0.9, **options, **FORMS[form])
    for step in range(5):
        set_gradients(params, step)
        zenith.step()
    if copied == "deepcopy":
        twin = copy.deepcopy(zenith)
    elif copied == "pickle":
        twin = pickle.loads(pickle.dumps(zenith))
    else:
        file = io.BytesIO()
        torch.save(zenith, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    twins = twin.param_groups[0]["params"]
    for step in range(5, 10):
        for optimizer, own in ((zenith, params), (twin, twins)):
            set_gradients(own, step)
            optimizer.step()
        assert_same(params, twins)
        assert zenith.get_last_lr() == twin.get_last_lr()
    assert (twin.window, twin.max_grad_norm, twin.nonfinite) == (3, 2.0, "propagate")
    for ours, theirs in zip(zenith.zenith_state, twin.zenith_state, strict=True):
        assert torch.equal(ours, theirs)


def test_differentiable_step_carries_the_gradient_of_lr_and_of_the_parameters():
    """Through two steps of rates lr/1: d(w2)/d(lr) worked out by hand for loss = w**2 / 2."""
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    start = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    weight = start.clone()
    zenith = Zenith([weight], lr=lr, window=9, differentiable=True)
    for _ in range(2):
        weight.retain_grad()
        weight.grad = weight.clone()  # the gradient of the loss, itself differentiable
        zenith.step()
    # w2 = start * (1 - lr)**2
    torch.testing.assert_close(weight.item(), 2.0 * 0.9**2)
    by_lr, by_start = torch.autograd.grad(weight, [lr, start])
    torch.testing.assert_close(by_lr.item(), 2.0 * -2 * 0.9)
    torch.testing.assert_close(by_start.item(), 0.9**2)
    assert not any(field.requires_grad for field in zenith.zenith_state)


@pytest.mark.parametrize(
    "case",
    optim_error_inputs_func_sgd("cpu", torch.float32),
    ids=lambda case: case.optimizer_error_input.desc,
)
def test_refuses_what_sgd_refuses(case):
    given = case.optimizer_error_input
    params = parameters() if given.params is None else given.params
    if case.error_type is UserWarning:
        with pytest.warns(UserWarning, match=case.error_regex):
            Zenith(params, **given.kwargs)
        return
    with pytest.raises(case.error_type, match=case.error_regex):
        Zenith(params, **given.kwargs)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"window": 0}, ValueError, "`window` must be an integer >= 1, got 0"),
        ({"window": -3}, ValueError, "`window` must be an integer >= 1, got -3"),
        ({"window": True}, TypeError, "`window` must be an integer >= 1, got True"),
        ({"window": 500.0}, TypeError, "`window` must be an integer >= 1, got 500.0"),
        ({"window": None}, TypeError, "`window` must be an integer >= 1, got None"),
        ({"lr": -0.1}, ValueError, "Invalid learning rate: -0.1; `lr` must be >= 0"),
        ({"lr": float("nan")}, ValueError, "Invalid learning rate: nan; `lr` must be >= 0"),
        ({"nonfinite": "ignore"}, ValueError, '`nonfinite` must be "skip" or "propagate", got'),
        ({"max_grad_norm": 0.0}, ValueError, "`max_grad_norm` must be > 0 or None, got 0.0"),
        ({"max_grad_norm": -1}, ValueError, "`max_grad_norm` must be > 0 or None, got -1"),
        ({"max_grad_norm": "1"}, TypeError, "`max_grad_norm` must be a number or None, got '1'"),
        ({"lr": "1e-3"}, TypeError, "`lr` must be a number, got '1e-3'"),
        ({"lr": None}, TypeError, "`lr` must be a number, got None"),
        ({"momentum": "0.9"}, TypeError, "`momentum` must be a number, got '0.9'"),
        ({"dampening": [0.1]}, TypeError, "`dampening` must be a number, got [0.1]"),
        ({"weight_decay": "1e-4"}, TypeError, "`weight_decay` must be a number, got '1e-4'"),
        ({"nesterov": "no"}, TypeError, "`nesterov` must be True or False, got 'no'"),
        ({"decay_in_norm": "no"}, TypeError, "`decay_in_norm` must be True or False, got 'no'"),
        ({"fused": "cuda"}, TypeError, "`fused` must be True or False, got 'cuda'"),
        ({"momentum": -0.5}, ValueError, "Invalid momentum value: -0.5"),
        ({"weight_decay": -0.5}, ValueError, "Invalid weight_decay value: -0.5"),
        ({"nesterov": True}, ValueError, "Nesterov momentum requires a momentum"),
    ],
)
def test_refuses_impossible_arguments(kwargs, error, message):
    with pytest.raises(error) as raised:
        Zenith(parameters(), **kwargs)
    assert message in str(raised.value)


def test_options_after_lr_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        Zenith(parameters(), 0.1, 500)


def test_repr_shows_every_option_and_no_ring():
    options = {"window": 7, "max_grad_norm": 1.5, "nonfinite": "propagate", "decay_in_norm": True}
    optimizer = Zenith(parameters(), lr=0.25, momentum=0.9, **options)
    for copied in (optimizer, copy.deepcopy(optimizer)):
        lines = [line.strip() for line in repr(copied).splitlines()]
        shown = [line.split(": ") for line in lines if ": " in line]
        assert dict(shown) == {name: str(value) for name, value in optimizer.defaults.items()}
        assert "decay_in_norm: True" in lines
        assert "window: 7" in lines


# --- what a group may have --------------------------------------------------------------------


def test_defaults_make_the_same_optimizer():
    given = {
        "lr": 0.5,
        "window": 3,
        "momentum": 0.9,
        "dampening": 0.1,
        "weight_decay": 0.2,
        "nesterov": False,
        "decay_in_norm": True,
        "max_grad_norm": 1.5,
        "nonfinite": "propagate",
        "maximize": True,
        "foreach": True,
        "differentiable": False,
        "fused": None,
    }
    optimizer = Zenith(parameters(), **given)
    assert optimizer.defaults == given
    assert set(given) == set(inspect.signature(Zenith).parameters) - {"params"}
    again = type(optimizer)(parameters(), **optimizer.defaults)
    assert again.defaults == given
    assert (again.window, again.max_grad_norm, again.nonfinite) == (3, 1.5, "propagate")
    assert repr(again) == repr(optimizer)


OF_THE_WHOLE = {"window": 7, "max_grad_norm": 2.0, "nonfinite": "propagate"}


@pytest.mark.parametrize(("name", "value"), OF_THE_WHOLE.items())
def test_an_option_of_the_whole_optimizer_is_none_of_a_group(name, value):
    group = {"params": parameters(), name: value}
    message = f"`{name}` is an option of the whole optimizer and not of a group, got {value!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        Zenith([dict(group)])
    optimizer = Zenith(parameters(seed=1))
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizer.add_param_group(dict(group))
    assert len(optimizer.param_groups) == 1
    # A wrapper that hands its own arguments down to its groups says nothing else than they do.
    whole = Zenith([dict(group)], **{name: value})
    whole.add_param_group({"params": parameters(seed=1), name: value})
    assert getattr(whole, name) == value
    assert not any(name in group for group in whole.param_groups)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"lr": "1e-3"}, "`lr` must be a number, got '1e-3'"),
        ({"lr": -1.0}, "Invalid learning rate: -1.0; `lr` must be >= 0"),
        ({"momentum": "0.9"}, "`momentum` must be a number, got '0.9'"),
        ({"momentum": -0.5}, "Invalid momentum value: -0.5; `momentum` must be >= 0"),
        ({"weight_decay": -0.5}, "Invalid weight_decay value: -0.5; `weight_decay` must be >= 0"),
        ({"decay_in_norm": "no"}, "`decay_in_norm` must be True or False, got 'no'"),
    ],
)
def test_refuses_impossible_options_of_a_group(option, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        Zenith([{"params": parameters(), **option}])


def test_refuses_a_rate_that_has_become_text():
    params = parameters()
    optimizer = Zenith(params)
    optimizer.param_groups[0]["lr"] = "1e-3"
    set_gradients(params, 0)
    with pytest.raises(TypeError, match="`lr` must be a number, got '1e-3'"):
        optimizer.step()
    assert_same(params, parameters())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (torch.nn.Linear(2, 1), "`params` must be the parameters of the Linear, not the module"),
        (torch.nn.Sequential(torch.nn.Linear(2, 1)), "of the Sequential, not the module itself"),
        ([{"params": torch.nn.Linear(2, 1)}], "of the Linear, not the module itself"),
        (dict(torch.nn.Linear(2, 1).named_parameters()), "`params` must be an iterable"),
        ({"params": [torch.nn.Parameter(torch.ones(1))]}, "of groups, got dict"),
        (None, "of groups, got NoneType"),
        ("weight", "of groups, got str"),
    ],
)
def test_refuses_what_holds_no_parameters(params, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        Zenith(params)


def test_a_parameter_list_and_a_tensor_in_a_group_are_parameters():
    params = torch.nn.ParameterList(parameters())
    assert Zenith(params).param_groups[0]["params"] == list(params)
    assert Zenith([{"params": params[0]}]).param_groups[0]["params"] == [params[0]]


# --- gradients that are lazily conjugated or negated ------------------------------------------


def conjugated():
    weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    (weight.conj() * torch.tensor([3 + 4j, 0j])).sum().real.backward()
    assert weight.grad.is_conj()
    return weight, torch.tensor([3 + 4j, 0j])


def negated():
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([-3j, -4j]).conj().imag
    assert weight.grad.is_neg()
    return weight, torch.tensor([3.0, 4.0])


@pytest.mark.parametrize(
    ("make", "form"),
    [*product([conjugated], ["for-loop", "foreach"]), *product([negated], FORMS)],
)
@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"decay_in_norm": True}])
@pytest.mark.parametrize("on_device", [False, True])
def test_a_lazy_gradient_is_its_value(monkeypatch, make, form, options, on_device):
    """The norm is 5, and w = -0.5 * g; with a momentum of 0.5, -0.5 * (g + 1.5 * g)."""
    if on_device:
        monkeypatch.setattr(_norm, "on_host", lambda tensor: False)
    weight, gradient = make()
    decay = 0.0 if "decay_in_norm" not in options else 0.25
    zenith = Zenith([weight], lr=0.5, window=1, weight_decay=decay, **options, **FORMS[form])
    zenith.step()
    assert zenith.zenith_state.norms.item() == 5.0
    torch.testing.assert_close(weight.detach(), -0.5 * gradient, rtol=0, atol=0)
    if options == {"momentum": 0.5}:
        zenith.step()
        torch.testing.assert_close(weight.detach(), -1.25 * gradient, rtol=0, atol=0)
    assert weight.grad.is_conj() or weight.grad.is_neg()  # left as it was


@pytest.mark.parametrize("make", [conjugated, negated])
@pytest.mark.parametrize("form", ["for-loop", "foreach"])
def test_a_lazy_gradient_is_clipped(make, form):
    """From 5 to 2.5: half of the gradient, and lr 0.5."""
    weight, gradient = make()
    zenith = Zenith([weight], lr=0.5, window=1, max_grad_norm=2.5, **FORMS[form])
    zenith.step()
    torch.testing.assert_close(weight.detach(), -0.25 * gradient)
    assert zenith.zenith_state.norms.item() == 5.0
