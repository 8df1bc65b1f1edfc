"""A step or two of every rival, worked out by hand on half the squared distance from 0."""

import math
import random
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch

from experiments.errors import UserError
from experiments.optimizers import BLOCKS, OPTIMIZERS, Setting, recipe
from experiments.question import Question
from experiments.rivals import L4, LQA, PAL, SPS, DoWG, GeN
from experiments.run import Run

SETTING = Setting(steps=10, epoch=5)
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


def on_batches(optimizer_of, batches, start):
    """Return where a scalar ends after a step on each of the losses, and the losses before them."""
    x = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = optimizer_of([x])

    def closure(batch, backward=True):
        with torch.set_grad_enabled(backward):
            loss = batch(x)
            if backward:
                optimizer.zero_grad()
                loss.backward()
        return loss

    losses = [optimizer.step(partial(closure, batch)).item() for batch in batches]
    return x.item(), losses


def assert_factor(optimizer_of, factor, steps=1, tolerance=1e-12):
    for found in run(optimizer_of, steps).tolist():
        assert found == pytest.approx(factor, rel=0, abs=tolerance)


def by_name(name, setting=SETTING, **options):
    return lambda params: recipe(name, options).make(params, setting, options)[0]


def test_sps_takes_polyaks_step_up_to_its_cap():
    assert_factor(lambda p: SPS(p, lr=0.1), 0.9)  # 12.5 / (0.2 * 25) = 2.5 is more than that
    assert_factor(lambda p: SPS(p, lr=3.0), -1.5, tolerance=1e-8)
    assert_factor(lambda p: SPS(p, lr=3.0, c=2.0), 0.75, tolerance=1e-9)


def test_smooth_sps_grows_by_a_factor_at_most():
    def smooth(params):
        return SPS(params, lr=0.1, c=2.5, growth=1.5)

    assert_factor(smooth, 0.85)
    assert_factor(smooth, 0.85 * 0.8, steps=2, tolerance=1e-9)  # 12.5 / (2.5 * 25), not 0.225
    assert_factor(smooth, 0.85 * 0.8**2, steps=3, tolerance=1e-9)


def test_ali_g_of_pytorch_optimizer():
    assert_factor(by_name("ali-g", lr=0.1), 0.9)
    assert_factor(by_name("ali-g", lr=2.0), 0.5, tolerance=1e-6)  # 12.5 / (25 + 1e-5)


def test_ali_g_with_nesterovs_momentum():
    optimizer = by_name("ali-g", lr=0.1, momentum=0.9)
    first = 1 - 0.1 - 0.9 * 0.1
    assert_factor(optimizer, first)
    velocity = 0.9 * -0.1 - 0.1 * first
    assert_factor(optimizer, first - 0.1 * first + 0.9 * velocity, steps=2)


def test_l4_goes_a_fraction_of_the_way_to_its_target():
    least = 0.75 * 12.5
    first = 0.15 * (12.5 - 0.9 * least) / 25
    assert_factor(L4, 1 - first, tolerance=1e-11)

    least *= 1 + 1 / 1000
    at = 1 - first  # the factor on START, and so on the gradient
    loss = 12.5 * at**2
    mean = (0.9 * 0.1 + 0.1 * at) / (1 - 0.9**2)
    rate = 0.15 * (loss - 0.9 * least) / (25 * mean**2)
    assert_factor(L4, at - rate * mean, steps=2, tolerance=1e-11)


def test_l4_goes_along_its_mean_where_the_gradient_turns_against_it():
    x, losses = on_batches(L4, [lambda x: 2 * x, lambda x: 10 - x], start=3.0)
    # First: the gradient 2 is the mean, the target 0.9 * 4.5, and the rate 0.15 * 1.95 / 4.
    # Then: the mean is 0.08 / 0.19, the loss 7.14625, and the target 0.9 * 4.5045.
    assert losses == pytest.approx([6.0, 10 - (3 - 0.15 * 1.95 / 2)])
    mean = 0.08 / 0.19
    assert x == pytest.approx(2.85375 - 0.15 * (7.14625 - 0.9 * 4.5045) / mean, rel=1e-10)


def test_pal_steps_to_the_minimum_of_its_parabola():
    assert_factor(lambda p: PAL(p, stretch=1.0, longest=10.0), 0.0)
    assert_factor(PAL, (5 - 3.16) / 5)  # it would stretch 5 to 8.3
    assert_factor(lambda p: PAL(p, stretch=0.5), 0.5)
    # The second direction is -2.5 / 5 - 0.4 = -0.9 times START: of the length 4.5, straight on.
    assert_factor(lambda p: PAL(p, stretch=0.5), 0.25, steps=2)


def test_pal_goes_as_far_as_it_probes_where_the_loss_there_is_not_finite():
    x, _ = on_batches(PAL, [lambda x: torch.where(x < 2.95, torch.inf, x**2 / 2)], start=3.0)
    assert x == pytest.approx(2.9)


def test_lqa_takes_the_best_step_up_to_its_cap():
    assert_factor(LQA, 0.9)
    # START goes to 0 in four steps that move its largest entry by 1; so 4 is the rate, as in the
    # authors' code, which scales the gradient for the losses alone.
    assert_factor(lambda p: LQA(p, lr=10.0), 1 - 4.0)


@pytest.mark.parametrize("height", [-1.0, 1.0])
def test_lqa_goes_down_from_a_maximum_too(height):
    # Of the parabola height * x^2 at 3, the extremum is 3 steps of 1 away.
    x, _ = on_batches(lambda p: LQA(p, lr=10.0), [lambda x: height * x**2], start=3.0)
    assert x == pytest.approx(3 - 3 * 6 * height)
    x, _ = on_batches(LQA, [lambda x: 0.005 * x**2], start=3.0)
    assert x == pytest.approx(3 * (1 - 0.1 * 0.01))  # the curvature 0.01 is no reason for 100


def test_lqa_probes_at_a_distance_that_falls_from_epoch_to_epoch():
    seen = []

    def batch(x):
        seen.append(x.item())
        return x**2

    on_batches(lambda p: LQA(p, lr=0.0, epoch=2), [batch] * 100, start=3.0)
    wanted = [max(1 - 0.02 * (step // 2), 0.1) for step in range(100)]
    assert [seen[i] - seen[i + 1] for i in range(0, 300, 3)] == pytest.approx(wanted)
    assert [seen[i] - seen[i - 1] for i in range(3, 300, 3)] == pytest.approx(
        [-far for far in wanted[:-1]]
    )
    assert wanted[-1] == 0.1


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("lr", [1e-3, 0.3, 2.0])
def test_gen_is_the_authors_method(lr, ahead):
    """Beside a transcription, in numbers, of what `lr_parabola` and the loop around it do."""
    noise = random.Random(0)
    terms = [(noise.uniform(0.5, 2), noise.uniform(-1, 1)) for _ in range(30)]
    batches = [lambda x, h=h, c=c: h / 2 * (x - c) ** 2 for h, c in terms]
    x, rate = 3.0, lr
    for step, (h, c) in enumerate(terms, start=1):
        gradient = h * (x - c)
        if step % 4 == 0:
            probed = batches[step if ahead else step - 1]
            ahead_, behind, here = (probed(x - ratio * rate * gradient) for ratio in (1, -1, 0))
            bend = (ahead_ + behind - 2 * here) / rate**2
            slope = (behind - ahead_) / (2 * rate)
            if bend > 0 and slope > 0:
                rate = 0.9 * rate + 0.1 * max(min(slope / bend, 2 * rate), rate / 2)
        x -= rate * gradient
    found, _ = on_batches(lambda p: GeN(p, lr=lr, ahead=ahead), batches, start=3.0)
    assert found == pytest.approx(x, rel=1e-6)


def test_gen_halves_its_rate_where_a_loss_is_not_finite():
    batches = [lambda x: x**2 / 2] * 4 + [lambda x: torch.where(x > 2.2, torch.inf, x**2 / 2)]
    x, _ = on_batches(GeN, batches, start=3.0)
    fourth = 3 * 0.9**3  # 2.187, and 2.41 behind it
    assert x == pytest.approx(fourth * (1 - 0.05) ** 2)


def test_dowg_weighs_the_gradients_by_the_distance():
    first = 1e-4 / (1e-2 * 5 + 1e-4)
    assert_factor(DoWG, 1 - first)
    assert 5 * first < 1e-2  # no further than what it began with
    weighted = 1e-4 * 25 + 1e-4 * 25 * (1 - first) ** 2
    second = 1e-4 / (math.sqrt(weighted) + 1e-4)
    assert_factor(DoWG, (1 - first) * (1 - second), steps=2)


def test_dowg_goes_by_the_greatest_distance():
    factor, squared, weighted = 1.0, 0.25, 0.0
    for _ in range(6):  # from the third on the distance has grown
        squared = max(squared, 25 * (1 - factor) ** 2)
        weighted += squared * (5 * factor) ** 2
        factor -= squared / (math.sqrt(weighted) + 0.25) * factor
    assert squared > 0.6
    assert_factor(lambda params: DoWG(params, eps=0.25), factor, steps=6)


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


def test_dog_begins_further_away_with_batch_norm():
    normalizes = SETTING._replace(batch_norm=True)
    for name in ("dog", "dog-averaged"):
        assert_factor(by_name(name, normalizes), 1 - 1e-4 * (1 + 5) / 5, tolerance=1e-12)


def test_dogs_average_forgets_what_is_long_past():
    model = torch.nn.Linear(1, 1, bias=False).double()
    averager = OPTIMIZERS["dog-averaged"].average(model)
    wanted = 0.0
    for step in range(1, 6):
        model.weight.data.fill_(step**2)
        averager.step()
        wanted += 9 / (step + 8) * (step**2 - wanted)
    assert averager.averaged_model.weight.item() == pytest.approx(wanted)
    assert OPTIMIZERS["dog"].average(model) is None


def test_d_adaptation():
    assert_factor(by_name("d-adaptation"), 1 - 1e-6 / 5, tolerance=1e-14)
    assert_factor(by_name("d-adaptation-step"), 1 - 0.1 * 1e-6 / 5, tolerance=1e-14)


@pytest.mark.parametrize(
    "name", ["sgd", "zenith", "sps", "ali-g", "lqa", "dog", "dowg", "d-adaptation"]
)
def test_the_rate_on_record_is_how_far_it_went_along_the_gradient(name):
    made = []
    (factor, _) = run(lambda params: made.append(by_name(name)(params)) or made[0]).tolist()
    assert OPTIMIZERS[name].rate(made[0]) == pytest.approx(1 - factor, rel=1e-6)


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


def test_schedule_free_sgd_warms_up_in_a_twentieth_of_the_run():
    optimizer = by_name("schedule-free", Setting(steps=80, epoch=8))
    assert_factor(optimizer, 1 - 0.25)  # the first of four steps up to 1.0
    # Its z is there too; its mean x of weights 0.25^2 and 0.5^2 has 0.8 of the second.
    z = 0.75 - 0.5 * 0.75
    x = 0.2 * 0.75 + 0.8 * z
    assert_factor(optimizer, 0.9 * x + 0.1 * z, steps=2)


def test_adamw_without_decay():
    found = run(by_name("adamw-cosine")) * torch.tensor(START, dtype=torch.float64)
    assert found.tolist() == pytest.approx([s - 1e-3 for s in START], rel=0, abs=1e-9)


def test_schedulers_know_the_horizon():
    x = torch.nn.Parameter(torch.ones(1))
    optimizer, cosine = OPTIMIZERS["sgd-cosine"].make([x], SETTING, {})
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert rates[5] == pytest.approx(0.05)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    for name, rate in [("sgd-step", 0.1), ("d-adaptation-step", 1.0)]:
        optimizer, decay = OPTIMIZERS[name].make([x], Setting(steps=8, epoch=2), {})
        x.grad = torch.ones(1)
        rates = []
        for _ in range(8):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step(lambda: torch.ones(()))
            decay.step()
        assert rates == pytest.approx([rate] * 4 + [rate / 10] * 2 + [rate / 100] * 2)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_who_knows_the_horizon_is_marked(name):
    """Whoever steps otherwise, or under another rate, where the run is planned to be longer."""

    def path(steps):
        x = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
        setting = Setting(steps, epoch=10)
        optimizer, scheduler = OPTIMIZERS[name].make([x], setting, {})

        def closure(backward=True, half=None):
            loss = x.square().sum() / 2
            if backward:
                optimizer.zero_grad()
                loss.backward()
            return loss

        for _ in range(15):
            optimizer.step(closure)
            if scheduler and OPTIMIZERS[name].planned == "step":
                scheduler.step()
        return x.tolist()

    assert (path(20) != path(200)) == OPTIMIZERS[name].horizon


def test_the_blocks_are_rows_of_the_registry():
    for rows in BLOCKS.values():
        assert len({(name, *sorted(options.items())) for name, options in rows}) == len(rows)
        for name, options in rows:
            assert recipe(name, options).chosen(options) == options
    plain = [name for name, _ in BLOCKS["A"]]
    assert plain == list(dict.fromkeys(plain))
    assert {name for name, found in OPTIMIZERS.items() if found.paper} <= set(plain)
    names = list(OPTIMIZERS)
    of_studies = names[names.index("signal-ema-0.9") :]
    assert {name for rows in BLOCKS.values() for name, _ in rows} == set(names) - set(of_studies)
    momentum = [OPTIMIZERS[name].options.get("momentum", 0.0) for name in plain]
    assert set(momentum) == {0.0}


@pytest.mark.parametrize(
    ("name", "gradients", "complaint"),
    [
        ("dog", [None, torch.ones(2)], "DoG of dog cannot step where gradients are missing"),
        ("d-adaptation", [torch.zeros(2)] * 2, "DAdaptSGD of dadaptation cannot step where"),
        ("d-adaptation", [None, None], "DAdaptSGD of dadaptation cannot step where gradients"),
    ],
)
def test_a_package_that_breaks_on_its_gradients_is_a_line(name, gradients, complaint):
    params = [torch.nn.Parameter(torch.ones(2)) for _ in gradients]
    optimizer, _ = OPTIMIZERS[name].make(params, SETTING, {})

    def closure():
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient
        return torch.tensor(loss)

    loss = 1.0
    with pytest.raises(UserError, match=complaint):
        optimizer.step(closure)
    loss = math.nan  # which the run tells by itself
    assert math.isnan(optimizer.step(closure))


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
    for build, numbers in [(DoWG, {"squared", "weighted"}), (GeN, {"steps", "due"})]:
        group = build([torch.nn.Parameter(torch.ones(2))]).state_dict()["param_groups"][0]
        assert numbers | {"rate"} <= set(group)


@dataclass(frozen=True)
class Tiny:
    """A batch-normalized line through noise: 2 epochs of 2 steps in a segment."""

    name: str = "tiny"
    steps: int = 4
    segments: int = 2
    epochs: float = 2.0
    threads: int | None = 1
    tested: list = field(default_factory=list)

    def network(self):
        return torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)).double()

    def batches(self, seed, segment):
        generator = torch.Generator().manual_seed(10 * seed + segment)
        for _ in range(self.steps):
            yield torch.randn(8, 3, generator=generator, dtype=torch.float64)

    def loss(self, model, batch):
        return (model(batch) - batch.sum(1, keepdim=True)).square().mean()

    def evaluate(self, model):
        assert not model.training
        self.tested.append({name: value.clone() for name, value in model.state_dict().items()})
        return {}

    def described(self):
        return {}


def segment_of(name, **options):
    """Return a run after its first segment."""
    run = Run(Tiny(), Question(name, options=options))
    for batch in run.task.batches(0, 0):
        run.step(batch)
    run.finish_segment()
    return run


class Noisy(Tiny):
    """The same, with dropout."""

    def network(self):
        return torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(3, 1)).double()


def test_every_pass_over_a_batch_drops_the_same():
    run = Run(Noisy(), Question("pal"))
    run.step(next(run.task.batches(0, 0)))
    losses = [run.closure(backward).item() for backward in (True, False, False)]
    assert len(set(losses)) == 1
    run.steps += 1
    assert run.closure().item() != losses[0]


def test_averaged_dog_is_tested_at_its_average():
    run, last = segment_of("dog-averaged"), segment_of("dog")
    assert run.optimizer.param_groups[0]["reps_rel"] == 1e-4  # there is batch norm
    (tested,) = run.task.tested
    for name, value in last.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[name], value)  # the average changes no step
        assert torch.equal(run.averager.averaged_model.state_dict()[name], tested[name])
    assert not torch.equal(tested["1.weight"], run.model[1].weight)
    again = Run(Tiny(), Question("dog-averaged"))
    again.load_state_dict(run.state_dict())
    assert again.averager.t == run.averager.t == 5
    assert torch.equal(again.averager.averaged_model[1].weight, tested["1.weight"])


def test_schedule_free_is_tested_with_fresh_statistics():
    run = segment_of("schedule-free")
    mean = torch.zeros(3, dtype=torch.float64)
    for segment in (0, 1):  # the segment that was trained on, and the next one's batches
        for batch in run.task.batches(0, segment):
            mean += 0.1 * (batch.mean(0) - mean)
    torch.testing.assert_close(run.task.tested[0]["0.running_mean"], mean)
    assert run.model.training
    assert run.optimizer.param_groups[0]["train_mode"]


def test_a_plateau_is_looked_for_once_an_epoch(monkeypatch):
    run = Run(Tiny(), Question("sgd-plateau"))
    seen = []
    monkeypatch.setattr(run.scheduler, "step", seen.append)
    losses = [run.step(batch)["loss"] for batch in run.task.batches(0, 0)]
    epochs = [sum(losses[:2]) / 2, sum(losses[2:]) / 2]
    assert seen == pytest.approx(epochs)
    monkeypatch.setattr(Tiny, "validation_loss", lambda task, model: 7.0, raising=False)
    run.finish_segment()
    for batch in run.task.batches(0, 1):
        run.step(batch)
    assert seen[2:] == [7.0, 7.0]
    assert run.model.training
