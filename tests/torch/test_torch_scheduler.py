"""zenith.torch.ZenithLR: the same rates, over any torch optimizer."""

import copy
import io
import math
import pickle

import pytest
import torch
from _reference import scales
from lion_pytorch import Lion

import zenith
from zenith.torch import Zenith, ZenithLR

NORMS = [4.0, 6.0, 5.0, 2.0, 1.0, 3.0, 0.5, 0.25]


def scalar(value=0.0):
    return torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))


def drive(optimizer, scheduler, weight, norms, *, calls=1, zero_first=False, **kwargs):
    rates = []
    for norm in norms:
        weight.grad = torch.full_like(weight, norm)
        optimizer.step(**kwargs)
        rates.append(float(scheduler.get_last_lr()[0]))
        if zero_first:
            optimizer.zero_grad()
        for _ in range(calls):
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    "make",
    [
        lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9),
        lambda params, lr: torch.optim.SGD(params, lr=lr, fused=True),
        lambda params, lr: torch.optim.AdamW(params, lr=lr),
        lambda params, lr: torch.optim.RMSprop(params, lr=lr, foreach=True),
        lambda params, lr: Lion(params, lr=lr),
    ],
    ids=["SGD", "fused SGD", "AdamW", "RMSprop", "Lion"],
)
def test_any_optimizer_steps_at_the_rate_of_its_own_gradient(make):
    """The scheduled run equals one whose lr is set by hand, from Algorithm 1, before each step."""
    weight, twin = scalar(1.0), scalar(1.0)
    optimizer, by_hand = make([weight], 0.1), make([twin], 0.1)
    scheduler = ZenithLR(optimizer, window=3)
    rates = drive(optimizer, scheduler, weight, NORMS)
    for norm, scale in zip(NORMS, scales(NORMS, 3), strict=True):
        by_hand.param_groups[0]["lr"] = 0.1 * scale
        twin.grad = torch.full_like(twin, norm)
        by_hand.step()
    assert rates == pytest.approx([0.1 * scale for scale in scales(NORMS, 3)], rel=1e-12)
    torch.testing.assert_close(weight, twin, rtol=1e-12, atol=0)


def test_over_sgd_it_is_the_optimizer_zenith():
    weight, twin = scalar(1.0), scalar(1.0)
    sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9, nesterov=True)
    scheduler = ZenithLR(sgd, window=3)
    optimizer = Zenith([twin], lr=0.1, momentum=0.9, nesterov=True, window=3)
    drive(sgd, scheduler, weight, NORMS)
    drive(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0), twin, NORMS)
    assert torch.equal(weight, twin)
    for a, b in zip(scheduler.zenith_state, optimizer.zenith_state, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("calls", [0, 1, 8])
@pytest.mark.parametrize("zero_first", [False, True])
def test_scheduler_step_may_be_called_as_often_as_one_likes(calls, zero_first):
    weight = scalar()
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = ZenithLR(optimizer, window=3)
    rates = drive(optimizer, scheduler, weight, NORMS, calls=calls, zero_first=zero_first)
    assert rates == pytest.approx(scales(NORMS, 3), rel=1e-12)
    assert scheduler.zenith_state.count == len(NORMS)
    assert scheduler.last_epoch == calls * len(NORMS)


def test_it_reports_the_rates_in_force_and_leaves_those_of_the_groups():
    a, b = scalar(), scalar()
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=2.0)
    scheduler = ZenithLR(optimizer, window=1)
    assert scheduler.get_last_lr() == scheduler._last_lr == [2.0, 0.5]
    for norm in (4.0, 1.0):
        a.grad = torch.full_like(a, norm)
        optimizer.step()
    assert a.item() == -2.0 * 4 - 2.0 / 4 * 1
    assert [group["lr"] for group in optimizer.param_groups] == [2.0, 0.5]
    assert scheduler.get_last_lr() == scheduler._last_lr == [0.5, 0.125]
    assert scheduler.get_lr() == [2.0, 0.5]


def test_metrics_are_those_of_the_last_step():
    weight = scalar()
    optimizer = torch.optim.SGD([weight], lr=2.0)
    scheduler = ZenithLR(optimizer, window=2)
    names = ["lr", "grad_norm", "mean", "zenith", "scale", "count", "skipped"]
    assert list(scheduler.zenith_metrics()) == names
    assert list(scheduler.zenith_metrics().values()) == [2.0, 0.0, 0.0, 0.0, 1.0, 0, 0]
    drive(optimizer, scheduler, weight, [4.0, 4.0, 2.0, math.nan])
    optimizer.param_groups[0]["lr"] = 7.0  # of the next step
    assert list(scheduler.zenith_metrics().values()) == [1.5, 2.0, 3.0, 4.0, 0.75, 3, 1]


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_tensor_lr_is_the_same_object_with_the_same_value_between_steps(shape):
    weight = scalar()
    lr = torch.full(shape, 0.5)
    optimizer = torch.optim.SGD([weight], lr=lr)
    scheduler = ZenithLR(optimizer, window=1)
    inside = []
    optimizer.register_step_pre_hook(lambda o, *_: inside.append(o.param_groups[0]["lr"].item()))
    drive(optimizer, scheduler, weight, [4.0, 1.0])
    assert inside == [0.5, 0.125]
    assert weight.item() == -0.5 * 4 - 0.125
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == 0.5
    held = scheduler.get_last_lr()[0]
    assert (held.shape, held.dtype, held.item()) == (lr.shape, lr.dtype, 0.125)
    drive(optimizer, scheduler, weight, [2.0])
    assert held.item() == 0.125  # a copy, as of every LRScheduler


def test_groups_that_share_a_tensor_lr_are_scaled_once():
    a, b, lr = scalar(), scalar(), torch.tensor(0.5)
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b]}], lr=lr)
    assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
    scheduler = ZenithLR(optimizer, window=1)
    for norm in (4.0, 1.0):
        a.grad = torch.full_like(a, 0.6 * norm)
        b.grad = torch.full_like(b, 0.8 * norm)
        optimizer.step()
        assert lr.item() == 0.5
    assert (a / 0.6).item() == pytest.approx(-0.5 * 4 - 0.125)
    assert (b / 0.8).item() == pytest.approx(-0.5 * 4 - 0.125)
    assert scheduler.get_last_lr() == [0.125, 0.125]


@pytest.mark.parametrize("as_keyword", [False, True])
def test_with_a_closure_the_gradient_is_measured_when_it_has_returned_and_once(as_keyword):
    weight = scalar(8.0)
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scheduler = ZenithLR(optimizer, window=1)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum() / 2
        loss.backward()
        losses.append(loss.item())
        return loss

    for _ in range(3):
        optimizer.step(**{"closure": closure}) if as_keyword else optimizer.step(closure)
    # gradients 8, 4, 3: 8 - 0.5*8 = 4; 4 - 0.5*(4/8)*4 = 3; 3 - 0.5*(3/8)*3
    assert losses == [32.0, 8.0, 4.5]
    assert weight.item() == 3 - 0.5 * 3 / 8 * 3
    assert scheduler.zenith_state.count == 3


def test_lbfgs_is_measured_once_a_step_and_applies_each_scale_one_step_late():
    weight = scalar(8.0)
    optimizer = torch.optim.LBFGS([weight], lr=0.5, max_iter=1)
    scheduler = ZenithLR(optimizer, window=1)

    def closure():
        optimizer.zero_grad()
        assert optimizer.param_groups[0]["lr"] == 0.5
        loss = weight.square().sum() / 2
        loss.backward()
        return loss

    seen = []
    for _ in range(3):
        optimizer.step(closure)
        seen.append(weight.item())
    # Gradients 8, 7.5, 3.75. The first step is of length lr; of a parabola it then knows all, and
    # goes lr of the way to its foot, at the scale of the step before: 1, then 7.5/8.
    assert seen == pytest.approx([7.5, 3.75, 3.75 * (1 - 0.5 * 7.5 / 8)], rel=1e-12)
    assert scheduler.zenith_state.count == 3
    assert scheduler.get_last_lr() == [0.5 * 3.75 / 8]

    many = torch.optim.LBFGS([weight], lr=0.1, max_iter=5)
    scheduler = ZenithLR(many, window=1)
    many.step(closure)
    assert scheduler.zenith_state.count == 1


def test_a_known_norm_goes_through_optimizer_step():
    weight = scalar()
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    scheduler = ZenithLR(optimizer, window=2)
    rates = []
    for norm in [8.0, 8.0, 2.0, 2.0]:
        weight.grad = torch.full_like(weight, norm)
        known = torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step(grad_norm=known)
        rates.append(scheduler.get_last_lr()[0])
    assert rates == pytest.approx([1.0, 1.0, 0.625, 0.25], rel=1e-6)
    with pytest.raises(ValueError, match=r"`grad_norm` must be >= 0, got -1\.0"):
        optimizer.step(grad_norm=-1.0)


def test_a_known_norm_beside_a_closure_is_the_norm_that_holds_after_it():
    weight, known = scalar(8.0), torch.zeros(())
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scheduler = ZenithLR(optimizer, window=1)

    def closure():
        optimizer.zero_grad()
        weight.square().sum().div(2).backward()
        known.copy_(torch.nn.utils.clip_grad_norm_([weight], 1.0))

    for _ in range(2):
        optimizer.step(closure, grad_norm=known)
    # norms 8 and 7.5 of gradients clipped to 1
    assert scheduler.zenith_metrics()["grad_norm"] == 7.5
    assert weight.item() == pytest.approx(8 - 0.5 - 0.5 * 7.5 / 8, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_gradient_leaves_the_schedule_and_is_counted(bad):
    weight = scalar()
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = ZenithLR(optimizer, window=1)
    drive(optimizer, scheduler, weight, [4.0, 1.0])
    before = scheduler.zenith_state
    drive(optimizer, scheduler, weight, [bad])
    after = scheduler.zenith_state
    assert after.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before[:5], after[:5], strict=True))
    assert scheduler.get_last_lr() == [0.25]
    assert not weight.isfinite()  # it owns no step: SGD makes of the gradient what it would


@pytest.mark.parametrize("fused", [False, True])
def test_grad_scaler(fused):
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    scheduler = ZenithLR(optimizer, window=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    rates = []
    for norm in [4.0, math.inf, 2.0, 1.0]:
        optimizer.zero_grad()
        scaler.scale((weight * norm).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    assert rates == [1.0, 1.0, 0.5, 0.25]
    state = scheduler.zenith_state
    assert (state.count, state.skipped) == (3, 0)


def test_a_step_without_gradients_and_a_phantom_step_change_nothing():
    weight = scalar(1.0)
    optimizer = torch.optim.AdamW([weight], lr=0.5, weight_decay=0.5)
    scheduler = ZenithLR(optimizer, window=1)
    optimizer.step()
    assert scheduler.zenith_state.count == 0
    optimizer.param_groups[0]["lr"] = 0.0
    weight.grad = torch.zeros_like(weight)
    optimizer.step()  # would decay the weight at another rate than its own
    assert weight.item() == 1.0
    assert optimizer.param_groups[0]["lr"] == 0.0
    assert scheduler.zenith_state.count == 0
    assert scheduler.get_last_lr() == [0.0]  # that of a next step, as there was none

    optimizer.param_groups[0]["lr"] = 0.5
    drive(optimizer, scheduler, weight, [4.0, 1.0])
    optimizer.param_groups[0]["lr"] = 0.0
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert scheduler.get_last_lr() == [0.125]


def test_a_group_added_in_mid_run_is_scheduled_from_its_own_rate():
    a, b = scalar(), scalar()
    optimizer = torch.optim.SGD([a], lr=1.0)
    scheduler = ZenithLR(optimizer, window=1)
    drive(optimizer, scheduler, a, [4.0])
    optimizer.add_param_group({"params": [b], "lr": 8.0})
    drive(optimizer, scheduler, a, [1.0])
    assert scheduler.get_last_lr() == [0.25, 2.0]


def test_a_group_removed_in_mid_run():
    a, b = scalar(), scalar()
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 8.0}], lr=1.0)
    scheduler = ZenithLR(optimizer, window=1)
    drive(optimizer, scheduler, b, [4.0])
    optimizer.param_groups.pop(0)
    drive(optimizer, scheduler, b, [1.0])
    assert scheduler.get_last_lr() == [2.0]


def test_a_state_dict_that_does_not_fit_is_refused_and_nothing_is_loaded():
    optimizer = torch.optim.SGD([scalar()], lr=1.0)
    scheduler = ZenithLR(optimizer, window=3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([scalar()], lr=1.0), 5)
    with pytest.raises(ValueError, match="lacks window, zenith_state"):
        scheduler.load_state_dict(cosine.state_dict())
    assert scheduler.zenith_state.count == 0


@pytest.mark.parametrize("saved_after", [0, 2, 3, 6])
def test_resume_is_bit_exact(saved_after):
    def fresh():
        weight = scalar(1.0)
        optimizer = torch.optim.AdamW([weight], lr=0.1)
        return weight, optimizer, ZenithLR(optimizer, window=3)

    weight, optimizer, scheduler = fresh()
    drive(optimizer, scheduler, weight, NORMS[:saved_after])
    file = io.BytesIO()
    parts = {"optimizer": optimizer, "scheduler": scheduler}
    torch.save({name: part.state_dict() for name, part in parts.items()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)

    twin, other, resumed = fresh()
    with torch.no_grad():
        twin.copy_(weight)
    other.load_state_dict(loaded["optimizer"])
    resumed.load_state_dict(loaded["scheduler"])
    assert resumed.last_epoch == scheduler.last_epoch
    expected = drive(optimizer, scheduler, weight, NORMS[saved_after:])
    assert drive(other, resumed, twin, NORMS[saved_after:]) == expected
    assert torch.equal(weight, twin)
    for a, b in zip(scheduler.zenith_state, resumed.zenith_state, strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_window_is_refused_and_nothing_is_loaded():
    weight = scalar()
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = ZenithLR(optimizer, window=3)
    saved = ZenithLR(torch.optim.SGD([scalar()], lr=5.0), window=4).state_dict()
    with pytest.raises(ValueError, match=r"`window` of the state must be .* 3, got 4"):
        scheduler.load_state_dict(saved)
    with pytest.raises(ValueError, match=r"`window` of the state must be .* 3, got 5"):
        scheduler.zenith_state = zenith.init(window=5)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copied_pair_goes_on_and_shares_nothing(copier):
    weight = scalar(1.0)
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    scheduler = ZenithLR(optimizer, window=3)
    drive(optimizer, scheduler, weight, NORMS[:5])
    other, resumed = copier((optimizer, scheduler))
    twin = other.param_groups[0]["params"][0]
    expected = drive(optimizer, scheduler, weight, NORMS[5:])
    assert resumed.zenith_state.count == 5
    assert drive(other, resumed, twin, NORMS[5:]) == expected
    assert torch.equal(weight, twin)


def test_the_state_is_carried_over_from_the_optimizer():
    weight, twin = scalar(), scalar()
    optimizer = Zenith([weight], lr=1.0, window=3)
    for norm in NORMS[:4]:
        weight.grad = torch.full_like(weight, norm)
        optimizer.step()
    sgd = torch.optim.SGD([twin], lr=1.0)
    scheduler = ZenithLR(sgd, window=3)
    scheduler.zenith_state = optimizer.zenith_state
    assert drive(sgd, scheduler, twin, NORMS[4:]) == pytest.approx(scales(NORMS, 3)[4:], rel=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: ZenithLR(o, window=0), ValueError, "`window` must be an integer >= 1, got 0"),
        (lambda o: ZenithLR(o, window=2.0), TypeError, "`window` must be an integer >= 1, got 2.0"),
        (
            lambda o: ZenithLR("sgd"),
            TypeError,
            "which a str is not: make ZenithLR on the optimizer inside",
        ),
        (
            lambda o: ZenithLR(Zenith([scalar()])),
            ValueError,
            "Zenith, which scales its rate itself",
        ),
    ],
)
def test_refuses_impossible_arguments(make, error, message):
    with pytest.raises(error) as raised:
        make(torch.optim.SGD([scalar()], lr=0.1))
    assert str(raised.value).endswith(message)


def test_a_refused_window_leaves_the_optimizer_as_it_was():
    optimizer = torch.optim.SGD([scalar()], lr=0.1)
    with pytest.raises(ValueError, match="window"):
        ZenithLR(optimizer, window=0)
    assert "initial_lr" not in optimizer.param_groups[0]
    assert not optimizer._optimizer_step_pre_hooks
