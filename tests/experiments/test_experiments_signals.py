"""Other signals and other means: their steps worked out by hand, and that a run of each resumes."""

import math
from functools import partial

import pytest
import torch
from scipy.stats import t
from test_experiments_run import timeless

from experiments.optimizers import OPTIMIZERS, Setting, recipe
from experiments.question import Question
from experiments.rivals import signals, variants
from experiments.run import Run
from experiments.tasks import load
from experiments.train import train
from zenith.torch import Zenith

CAP = 0.1
OPTIONS = {"lr": CAP, "window": 2}


def rates(build, gradients, losses=None, **options):
    """The rates at which a single parameter is moved, by its gradients in turn."""
    x = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = build([x], **(options or OPTIONS))
    found = []
    for i, gradient in enumerate(gradients):
        before = x.detach().clone()

        def closure(half=None, gradient=gradient, i=i):
            own = gradient if half is None else gradient[half]
            x.grad = torch.tensor(own, dtype=torch.float64)
            return torch.tensor(losses[i] if losses else 1.0, dtype=torch.float64)

        optimizer.step(closure)
        mean = x.grad.tolist()
        along = max(range(2), key=lambda k: abs(mean[k]))
        found.append(((before - x.detach())[along] / mean[along]).item())
    return found


def scaled(*factors):
    return pytest.approx([CAP * factor for factor in factors], rel=1e-6)


def test_the_norm_of_a_mean_of_gradients():
    # Gradients (3, 0), (0, 4), (0, 0.3): of decay 0.5 the unbiased means are (3, 0), (3, 8) / 3,
    # and (3/8, 1 + 0.15) / (7/8), with the norms below.
    norms = [3.0, math.hypot(1, 8 / 3), math.hypot(3 / 7, 1.15 * 8 / 7)]
    mean, last = (norms[0] + norms[1]) / 2, (norms[1] + norms[2]) / 2
    build = partial(signals.Ema, decay=0.5)
    assert rates(build, [(3.0, 0.0), (0.0, 4.0), (0.0, 0.3)]) == scaled(1, 1, last / mean)


def test_the_inner_product_of_half_batches():
    # The products are 4, 1 and -2, the signals 2, 1 and 0: the means 1.5 and 0.5. What is
    # returned and stepped along is the mean of the halves.
    halves = [((1.0, 2.0), (2.0, 1.0)), ((1.0, 0.0), (1.0, 3.0)), ((1.0, 1.0), (-3.0, 1.0))]
    assert rates(signals.Halves, halves) == scaled(1, 1, 1 / 3)


def test_the_inner_product_of_successive_steps():
    # The norm of the first is 2; then the products are 4, -4 and 1.
    gradients = [(2.0, 0.0), (2.0, 1.0), (-2.0, 0.0), (-0.5, 3.0)]
    assert rates(signals.Successive, gradients) == scaled(1, 1, 0.5, 0.25)


def test_the_loss():
    found = rates(signals.Loss, [(1.0, 0.0)] * 4, losses=[3.0, 1.0, 0.5, -7.0])
    assert found == scaled(1, 1, 0.375, 0.125)


def test_an_exponential_mean():
    # Of the weight 2 / 3: the unbiased means of 3, 6, 1.5 are 3, 21/4 and 69/26.
    found = rates(variants.Exponential, [(norm, 0.0) for norm in (3.0, 6.0, 1.5)])
    assert found == scaled(1, 1, (69 / 26) / (21 / 4))


def test_the_first_mean_in_place_of_the_highest():
    norms = (3.0, 5.0, 7.0, 1.0, 1.0)  # with the means 4, 6, 4 and 1
    assert rates(variants.First, [(norm, 0.0) for norm in norms]) == scaled(1, 1, 1, 1, 0.25)
    assert rates(Zenith, [(norm, 0.0) for norm in norms])[3:] == scaled(4 / 6, 1 / 6)


def test_one_step_late():
    norms = [(norm, 0.0) for norm in (3.0, 5.0, 1.0, 1.0, 9.0)]
    in_time, late = rates(Zenith, norms), rates(variants.Late, norms)
    assert in_time == scaled(1, 1, 0.75, 0.25, 1)
    assert late == pytest.approx([CAP, *in_time[:-1]], rel=1e-9)


def test_a_norm_for_each_layer():
    layers = [torch.zeros(2, 1), torch.zeros(2), torch.zeros(1, 2), torch.zeros(1), torch.zeros(1)]
    params = [torch.nn.Parameter(p.double()) for p in layers]
    optimizer = variants.Layers(params, **OPTIONS)
    assert [len(part.param_groups[0]["params"]) for part in optimizer.parts] == [2, 3]

    def closure(scales):
        for p, scale in zip(params, scales, strict=True):
            p.grad = torch.full_like(p, scale)
        return torch.ones(())

    for scales in [(1, 1, 2, 2, 2), (1, 1, 2, 2, 2), (0.5, 0.5, 1, 1, 2)]:
        before = [p.detach().clone() for p in params]
        optimizer.step(partial(closure, scales))
    moved = [(b - p.detach()).max().item() for b, p in zip(before, params, strict=True)]
    second = (4 + math.sqrt(3 + 4)) / 8  # the norms are 4 and 4 of four 2, then of 1, 1, 1 and 2
    assert moved == pytest.approx(
        [0.05 * 0.75, 0.05 * 0.75, 0.1 * second, 0.1 * second, 0.2 * second]
    )


def test_clipping_is_by_the_norm_and_zenith_sees_the_norm_before_it():
    gradients = [(30.0, 40.0), (3.0, 4.0), (0.3, 0.4)]

    def steps(name):
        x = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        window = {"window": 2} if name == "zenith-clip" else {}
        optimizer, _ = recipe(name, window).make([x], Setting(10, 5), window)
        lengths = []
        for gradient in gradients:
            before = x.detach().clone()

            def closure(gradient=gradient):
                x.grad = torch.tensor(gradient, dtype=torch.float64)
                return torch.ones(())

            optimizer.step(closure)
            lengths.append((x.detach() - before).norm().item())
        return lengths

    assert steps("sgd-clip") == pytest.approx([0.1, 0.1, 0.05], rel=1e-5)
    mean = (5 + 0.5) / (50 + 5)
    assert steps("zenith-clip") == pytest.approx([0.1, 0.1, 0.05 * mean], rel=1e-5)


def test_adamw_under_zenith_is_adamw_at_its_rates():
    def path(name, scales):
        x = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
        options = {"window": 2} if name == "adamw-zenith" else {}
        optimizer, _ = OPTIMIZERS[name].make([x], Setting(10, 5), options)
        for scale in scales:
            optimizer.param_groups[0]["lr"] = 1e-3 * scale

            def closure():
                x.grad = x.detach().clone()
                return torch.ones(())

            optimizer.step(closure)
        return x.tolist(), OPTIMIZERS[name].rate(optimizer)

    found, rate = path("adamw-zenith", [1, 1, 1])
    second, third = math.hypot(2.999, 3.999), math.hypot(2.998, 3.998)
    scale = (second + third) / (5 + second)
    assert rate == pytest.approx(1e-3 * scale, rel=1e-6)
    assert found == pytest.approx(path("adamw", [1, 1, scale])[0], rel=1e-9)


def test_the_width_of_sasas_interval_is_by_batch_means():
    # Nine numbers in three batches of means 0, 3 and 3 around 2: 3 * (4 + 1 + 1) / 2 is the square
    # of their spread, and the interval is 2 -+ 4.30 * 3 / sqrt(9).
    numbers = [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 2.0, 3.0, 4.0]
    assert t.ppf(0.975, 2) == pytest.approx(4.3027, rel=1e-4)
    shift = 4.3027 - 2  # as far as the mean may go
    assert signals.stationary([x + shift - 0.01 for x in numbers], twice=False)
    assert not signals.stationary([x + shift + 0.01 for x in numbers], twice=False)
    assert not signals.stationary([x - 1.5 for x in numbers], twice=False)  # halves of two signs
    # The halves have the means 0.5 and 3.2 beside that of 2.
    assert signals.stationary([x + 1.1 for x in numbers], twice=True)
    assert not signals.stationary([x + 1.11 for x in numbers], twice=True)


def test_sasa_drops_its_rate_where_the_parameters_are_stationary():
    noise = torch.Generator().manual_seed(0)
    x = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))

    def closure():  # of half the squared distance from 0, with noise
        x.grad = x.detach() + torch.randn(5, generator=noise, dtype=torch.float64)
        return torch.ones(())

    optimizer = signals.Sasa([x], lr=0.5, least=10)
    rates, numbers = [], []
    for _ in range(950):
        before = x.detach().clone()
        optimizer.step(closure)
        rates.append(optimizer.get_last_lr()[0])
        numbers.append((before @ x.grad - rates[-1] / 2 * x.grad @ x.grad).item())
    first = rates.index(0.05)  # the test has said no before: its halves had two signs
    said = [
        signals.stationary(numbers[n - -(-n // 8) : n], True) for n in range(100, first + 1, 100)
    ]
    assert said == [False] * (first // 100 - 1) + [True]
    assert first % 100 == 0
    assert optimizer.own["kept"] == pytest.approx(numbers[-len(optimizer.own["kept"]) :])

    with torch.no_grad():
        x.fill_(100.0)
    drifting = signals.Sasa([x], lr=1e-4, least=10)
    for _ in range(300):
        drifting.step(closure)
    assert drifting.get_last_lr() == [1e-4]


def test_sasa_waits_for_as_much_as_its_authors_wait():
    for epoch, least in [(391, 978), (32, 80), (10_000, 1000)]:
        x = torch.nn.Parameter(torch.ones(1))
        optimizer, _ = OPTIMIZERS["sasa"].make([x], Setting(steps=9, epoch=epoch), {})
        assert optimizer.own["least"] == least


def test_halves_of_a_batch_make_the_gradient_of_the_whole():
    task = load("digits", epochs=1, batch=7)
    run = Run(task, Question("signal-halves"))
    run._batch = next(task.batches(0, 0))
    run.closure()
    gradients = [p.grad for p in run.model.parameters()]
    weighed = [torch.zeros_like(gradient) for gradient in gradients]
    for half, share in [(0, 4 / 7), (1, 3 / 7)]:
        run.closure(half=half)
        for p, mean in zip(run.model.parameters(), weighed, strict=True):
            mean += share * p.grad
    for ours, theirs in zip(weighed, gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


NAMES = [name for name in OPTIMIZERS if name.startswith(("signal-", "ablation-", "adamw-zenith"))]


@pytest.mark.parametrize("name", [*NAMES, "sasa"])
def test_a_run_that_is_resumed_in_the_middle_of_a_window(name, tmp_path):
    task = load("digits", epochs=2, batch=64)
    question = Question(name, options={} if name == "sasa" else {"window": 4})
    list(train(task, [Run(task, question)], tmp_path / "whole"))
    cut = iter(range(task.steps + 3))
    stopped = {"stopped": lambda: next(cut, None) is None}
    list(train(task, [Run(task, question)], tmp_path / "cut", **stopped))
    list(train(task, [Run(task, question)], tmp_path / "cut", resume=True))
    path = question.path("digits")
    lines = timeless(tmp_path / "cut" / path)
    assert lines == timeless(tmp_path / "whole" / path)
    scales = [line["scale"] for line in lines if "scale" in line]
    assert name in ("sasa", "ablation-layers") or min(scales) < 1
