"""A step or two of every rival, worked out by hand on half the squared distance from 0."""

import math

import pytest
import torch

from experiments.errors import UserError
from experiments.optimizers import OPTIMIZERS, recipe
from experiments.rivals import L4, LQA, PAL, SPS, DoWG, GeN

START = (3.0, 4.0)  # whose norm is 5; the loss there is 12.5, and the gradient is START itself


def run(optimizer_of, steps=1):
    """Return by which factor the parameters are what they were: every step is along them."""
    x = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = optimizer_of([x])

    def closure(backward=True):
        with torch.set_grad_enabled(backward):
            loss = x.square().sum() / 2
            if backward:
                optimizer.zero_grad()
                loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return x.detach() / torch.tensor(START, dtype=torch.float64)


def assert_factor(optimizer_of, factor, steps=1, tolerance=1e-12):
    for found in run(optimizer_of, steps).tolist():
        assert found == pytest.approx(factor, rel=0, abs=tolerance)


def by_name(name, **options):
    return lambda params: recipe(name, options).make(params, 10, options)[0]


def test_sps_takes_polyaks_step_up_to_its_cap():
    assert_factor(lambda p: SPS(p, lr=0.1), 0.9)  # 12.5 / (0.5 * 25) = 1 is more than that
    assert_factor(lambda p: SPS(p, lr=2.0), 0.0)
    assert_factor(lambda p: SPS(p, lr=2.0, c=2.0), 0.75)
    assert_factor(lambda p: SPS(p, lr=2.0, best=6.25), 0.5)


def test_ali_g_of_pytorch_optimizer():
    assert_factor(by_name("ali-g", lr=0.1), 0.9)
    assert_factor(by_name("ali-g", lr=2.0), 0.5, tolerance=1e-6)  # 12.5 / (25 + 1e-5)


def test_l4_goes_a_fraction_of_the_way_to_its_target():
    least = 0.75 * 12.5
    first = 0.15 * (12.5 - 0.9 * least) / 25
    assert_factor(L4, 1 - first, tolerance=1e-11)

    least *= 1 + 1 / 1000
    at = 1 - first  # the factor on START, and so on the gradient
    loss = 12.5 * at**2
    mean = (0.9 * 0.1 + 0.1 * at) / (1 - 0.9**2)
    rate = 0.15 * (loss - 0.9 * least) / (25 * at * mean)
    assert_factor(L4, at - rate * mean, steps=2, tolerance=1e-11)


def test_pal_steps_to_the_minimum_of_its_parabola():
    assert_factor(lambda p: PAL(p, stretch=1.0, longest=10.0), 0.0)
    assert_factor(PAL, (5 - 3.16) / 5)  # it would stretch 5 to 8.3
    assert_factor(lambda p: PAL(p, stretch=0.5), 0.5)
    # The second direction is -2.5 / 5 - 0.4 = -0.9 times START: of the length 4.5, straight on.
    assert_factor(lambda p: PAL(p, stretch=0.5), 0.25, steps=2)


def test_lqa_finds_the_best_rate_of_a_parabola():
    assert_factor(LQA, 0.0)
    assert_factor(lambda p: LQA(p, lr=0.3), 0.0, tolerance=1e-9)


def test_gen_moves_its_rate_every_fourth_step():
    rate = 0.9 * 0.1 + 0.1 * 1.0
    assert_factor(GeN, 1 - rate)
    assert_factor(GeN, (1 - rate) ** 4, steps=4)
    assert_factor(GeN, (1 - rate) ** 4 * (1 - 0.9 * rate - 0.1), steps=5, tolerance=1e-11)


def test_dowg_weighs_the_gradients_by_the_distance():
    first = 1e-8 / (1e-4 * 5)
    assert_factor(DoWG, 1 - first)
    distance = 5 * first  # 1e-4, no more than what it began with
    assert distance == pytest.approx(1e-4)
    weighted = 1e-8 * 25 + 1e-8 * 25 * (1 - first) ** 2
    second = 1e-8 / math.sqrt(weighted)
    assert_factor(DoWG, (1 - first) * (1 - second), steps=2)


def test_dowg_goes_by_the_greatest_distance():
    factor, distance, weighted = 1.0, 0.5, 0.0
    for _ in range(6):  # from the third on the distance has grown
        distance = max(distance, 5 * (1 - factor))
        weighted += distance**2 * (5 * factor) ** 2
        factor -= distance**2 / math.sqrt(weighted) * factor
    assert distance > 0.8
    assert_factor(lambda params: DoWG(params, first=0.5), factor, steps=6)


def test_dog():
    factor, distance, squares = 1.0, 1e-6 * (1 + 5), 0.0
    for _ in range(6):
        distance = max(distance, 5 * (1 - factor))
        squares += (5 * factor) ** 2
        factor -= distance / math.sqrt(squares + 1e-8) * factor
    assert distance > 2e-5
    assert_factor(by_name("dog"), factor, steps=6, tolerance=1e-13)


def test_cocob_bets_a_hundredth_in_the_sign():
    found = run(by_name("cocob")) * torch.tensor(START, dtype=torch.float64)
    assert found.tolist() == pytest.approx([2.99, 3.99], abs=1e-6)


def test_d_adaptation():
    assert_factor(by_name("d-adaptation"), 1 - 1e-6 / 5, tolerance=1e-14)


def test_prodigy():
    found = run(by_name("prodigy")) * torch.tensor(START, dtype=torch.float64)
    step = 1e-6 * 0.1 / math.sqrt(0.001)  # of Adam, not corrected for its bias
    assert found.tolist() == pytest.approx([3 - step, 4 - step], rel=0, abs=1e-11)


@pytest.mark.parametrize(
    "name",
    ["sgd", "zenith", "sgd-cosine", "sgd-step", "sgd-plateau"],
)
def test_the_first_step_of_sgd(name):
    assert_factor(by_name(name), 0.9)
    assert_factor(by_name(name, lr=0.25), 0.75)


def test_schedule_free_sgd_begins_as_sgd():
    assert_factor(by_name("schedule-free"), 0.9)


def test_adamw_without_decay():
    found = run(by_name("adamw-cosine")) * torch.tensor(START, dtype=torch.float64)
    assert found.tolist() == pytest.approx([s - 1e-3 for s in START], rel=0, abs=1e-9)


def test_schedulers_know_the_horizon():
    x = torch.nn.Parameter(torch.ones(1))
    optimizer, cosine = OPTIMIZERS["sgd-cosine"].make([x], 10, {})
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert rates[5] == pytest.approx(0.05)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    optimizer, decay = OPTIMIZERS["sgd-step"].make([x], 9, {})
    for _ in range(3):
        optimizer.step()
        decay.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_the_papers_table_is_all_there():
    assert [found.label for found in OPTIMIZERS.values() if found.paper] == [
        "SGD", "PAL", "LQA", "GeN", "COCOB", "DoG", "DoWG", "D-Adaptation", "Prodigy", "L4",
        "ALI-G", "SPS", "ZENITH",
    ]  # fmt: skip


def test_an_unknown_name_or_option_is_refused():
    with pytest.raises(UserError, match=r"`optimizer` must be one of sgd, .*, got 'adam'"):
        recipe("adam", {})
    with pytest.raises(UserError, match="`--lr` is no option of cocob, which takes no option"):
        recipe("cocob", {"lr": 0.1})


def test_the_state_of_a_rival_is_in_its_state_dict():
    for build, numbers in [(DoWG, {"distance", "weighted"}), (L4, {"least", "steps"})]:
        group = build([torch.nn.Parameter(torch.ones(2))]).state_dict()["param_groups"][0]
        assert numbers | {"rate"} <= set(group)
