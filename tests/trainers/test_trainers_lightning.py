"""Lightning: `configure_optimizers`, the rate in its monitor, its own checkpoint, our callback."""

import csv

import pytest
import torch
from _trainers import CUT, STEPS, WINDOW, Network, loader, plain_loop, zenith, zenith_lr
from lightning import Callback, Fabric, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch.optim.swa_utils import get_ema_multi_avg_fn

from zenith.logs import to_csv
from zenith.readers import series
from zenith.torch import Zenith, ZenithLR
from zenith.torch.lightning import ZenithCallback

# Lightning itself uses what torch has deprecated, and gives advice in the form of warnings.
pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("error::zenith.ZenithWarning"),
]


BATCHES = list(loader())


class Digits(LightningModule):
    def __init__(self, **keywords):
        super().__init__()
        self.network, self.keywords = Network(), keywords

    def training_step(self, _, __):
        # By the step and not by the loader, which Lightning begins anew when a run is resumed.
        return self.network(**BATCHES[self.global_step])["loss"]

    def configure_optimizers(self):
        return Zenith(self.parameters(), lr=0.1, window=WINDOW, momentum=0.9, **self.keywords)


class Scheduled(Digits):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        scheduler = ZenithLR(optimizer, window=WINDOW)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class RateInForce(Callback):
    """The callback of the documentation: LearningRateMonitor shows what was set, not the scale."""

    def __init__(self):
        self.rates = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        (rate,) = trainer.optimizers[0].get_last_lr()
        self.rates.append(rate)
        module.log("rate", rate)


def fit(module, folder, callbacks, steps=STEPS, resume=None, **more):
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=CSVLogger(folder, flush_logs_every_n_steps=1),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, save_last=True, save_top_k=0), *callbacks],
        **more,
    )
    trainer.fit(module, loader(), ckpt_path=resume)
    return [p.detach().clone() for p in module.parameters()], trainer


def test_it_takes_the_steps_of_a_loop_and_resumes(tmp_path):
    wanted_rates, wanted_weights = plain_loop(zenith)
    whole = RateInForce()
    weights, _ = fit(Digits(), tmp_path / "whole", [whole])
    assert min(whole.rates) < 0.08
    assert whole.rates == wanted_rates
    torch.testing.assert_close(weights, wanted_weights, rtol=0, atol=0)

    fit(Digits(), tmp_path / "half", [RateInForce()], CUT)
    rest = RateInForce()
    weights, _ = fit(Digits(), tmp_path / "rest", [rest], resume=tmp_path / "half" / "last.ckpt")
    assert rest.rates == wanted_rates[CUT:]
    torch.testing.assert_close(weights, wanted_weights, rtol=0, atol=0)


def test_the_scheduler_takes_the_steps_of_a_loop_and_resumes(tmp_path):
    _, wanted_weights = plain_loop(zenith_lr)
    weights, trainer = fit(Scheduled(), tmp_path / "whole", [LearningRateMonitor("step")])
    torch.testing.assert_close(weights, wanted_weights, rtol=0, atol=0)
    with open(f"{trainer.logger.log_dir}/metrics.csv") as file:
        logged = [float(row["lr-SGD"]) for row in csv.DictReader(file) if row["lr-SGD"]]
    assert logged == [0.1] * STEPS  # the monitor shows what was set, between two steps

    fit(Scheduled(), tmp_path / "half", [], CUT)
    weights, _ = fit(Scheduled(), tmp_path / "rest", [], resume=tmp_path / "half" / "last.ckpt")
    torch.testing.assert_close(weights, wanted_weights, rtol=0, atol=0)


def test_the_finder_of_learning_rates_tries_its_own(tmp_path):
    """Lightning's `lr_find` writes the rates itself; a ZenithLR that is configured scales them."""
    module, steps = Scheduled(), []
    configure = module.configure_optimizers

    def configured():
        (optimizer,), (config,) = configure()
        scheduler = config["scheduler"]

        def record(*_):
            numbers = scheduler.zenith_metrics()
            steps.append((optimizer.param_groups[0]["lr"], numbers["scale"], numbers["lr"]))

        optimizer.register_step_post_hook(record)
        return [optimizer], [config]

    module.configure_optimizers = configured
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    keywords = {"min_lr": 1e-4, "max_lr": 1e-2, "num_training": 12, "early_stop_threshold": None}
    found = Tuner(trainer).lr_find(module, loader(), update_attr=False, **keywords).results["lr"]
    set_, scales, in_force = zip(*steps, strict=True)
    assert set_ == tuple(found)
    assert (found[0], max(found) > 5e-3, min(scales) < 0.95) == (1e-4, True, True)
    assert in_force == pytest.approx([a * b for a, b in zip(found, scales, strict=True)], rel=1e-12)


def test_its_own_clipping_saturates_the_schedule_and_max_grad_norm_does_not(tmp_path):
    trap = RateInForce()
    fit(Digits(), tmp_path / "trap", [trap], gradient_clip_val=1e-3)
    assert trap.rates == pytest.approx([0.1] * STEPS, rel=1e-3)
    remedy = RateInForce()
    fit(Digits(max_grad_norm=1e-3), tmp_path / "remedy", [remedy])
    assert remedy.rates == plain_loop(lambda p: zenith(p, max_grad_norm=1e-3))[0]
    assert min(remedy.rates) < 0.08


class Manual(Digits):
    """Clips by hand, and hands the norm on."""

    automatic_optimization = False

    def training_step(self, _, __):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.network(**BATCHES[self.global_step])["loss"])
        optimizer.step(grad_norm=torch.nn.utils.clip_grad_norm_(self.parameters(), 1e-3))


def test_manual_optimization_hands_a_norm_on(tmp_path):
    seen = RateInForce()
    weights, _ = fit(Manual(), tmp_path, [seen])
    wanted_rates, wanted_weights = plain_loop(lambda p: zenith(p, max_grad_norm=1e-3))
    assert min(wanted_rates) < 0.08
    # The norm is torch's own there and ZENITH's here, and so is what clipping multiplies by.
    assert seen.rates == pytest.approx(wanted_rates, rel=1e-6)
    torch.testing.assert_close(weights, wanted_weights, rtol=1e-5, atol=1e-6)


def test_fabric_hands_a_norm_on():
    """As docs/clipping.md has it: Fabric's own optimizer passes no keyword on."""
    fabric = Fabric(accelerator="cpu", devices=1)
    model = Network()
    optimizer, _ = zenith(model.parameters())
    known = {}

    def with_norm(_, args, kwargs):
        return args, {**kwargs, **known}

    optimizer.register_step_pre_hook(with_norm)
    prepared, stepper = fabric.setup(model, optimizer)
    rates = []
    for batch in BATCHES:
        stepper.zero_grad()
        fabric.backward(prepared(**batch)["loss"])
        known["grad_norm"] = fabric.clip_gradients(prepared, stepper, max_norm=1e-3)
        stepper.step()
        rates += optimizer.get_last_lr()
    wanted_rates, wanted_weights = plain_loop(lambda p: zenith(p, max_grad_norm=1e-3))
    assert rates == pytest.approx(wanted_rates, rel=1e-6)
    torch.testing.assert_close(
        [p.detach() for p in model.parameters()], wanted_weights, rtol=1e-5, atol=1e-6
    )


def test_accumulated_batches_give_one_norm_for_each_update(tmp_path):
    module, seen = Digits(), RateInForce()
    _, trainer = fit(module, tmp_path, [seen], steps=STEPS // 4, accumulate_grad_batches=4)
    assert int(trainer.optimizers[0].zenith_state.count) == STEPS // 4


@pytest.mark.parametrize("module", [Digits, Scheduled])
def test_the_callback_logs_every_step(tmp_path, module):
    wanted, _ = plain_loop(zenith if module is Digits else zenith_lr)
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        log_every_n_steps=7,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[ZenithCallback(to_csv(tmp_path / "own.csv"))],
    )
    trainer.fit(module(), loader())
    path = tmp_path / "lightning_logs" / "version_0" / "metrics.csv"
    _, steps, rates, *_ = series(path, "zenith/lr")
    assert steps == list(range(STEPS))  # as Lightning numbers the losses
    assert rates == pytest.approx(wanted, rel=1e-6)
    assert series(tmp_path / "own.csv", "lr").values == pytest.approx(wanted, rel=1e-6)


class Two(Digits):
    """Two optimizers, of which the second steps at every third batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        first, last = self.network.layers[0], self.network.layers[2]
        return [Zenith(part.parameters(), lr=0.1, window=3) for part in (first, last)]

    def training_step(self, batch, i):
        for k, optimizer in enumerate(self.optimizers()):
            if k == 0 or i % 3 == 0:
                optimizer.zero_grad()
                self.manual_backward(self.network(**BATCHES[i])["loss"])
                optimizer.step()


def test_the_callback_with_two_optimizers_and_an_interruption(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, i):
            if i == 6:
                raise RuntimeError("stop")

    rows = []
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=CSVLogger(tmp_path, flush_logs_every_n_steps=1),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[ZenithCallback(lambda step, numbers: rows.append(numbers["count"])), Stop()],
    )
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(Two(), loader())
    assert rows == [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    path = tmp_path / "lightning_logs" / "version_0" / "metrics.csv"
    assert series(path, "zenith1/count").values == [1, 2, 3]


def test_the_callback_without_zenith(tmp_path):
    class Plain(Digits):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = Trainer(max_steps=1, accelerator="cpu", logger=False, callbacks=[ZenithCallback()])
    with pytest.raises(TypeError, match="must return a Zenith or a ZenithLR, got SGD"):
        trainer.fit(Plain(), loader())


class Clipping(Zenith):
    """Its `step` calls that of its base, at which torch runs the hooks of both."""

    def step(self, closure=None):
        return super().step(closure)


def test_the_callback_counts_the_steps_of_a_subclass_once(tmp_path):
    class Sub(Digits):
        def configure_optimizers(self):
            return Clipping(self.parameters(), lr=0.1, window=4)

    rows = []
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[ZenithCallback(lambda step, numbers: rows.append((step, numbers["count"])))],
    )
    trainer.fit(Sub(), loader())
    assert rows == [(step, step + 1) for step in range(STEPS)]


class Kept(Callback):
    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.weights.append(next(module.parameters()).detach().clone().double())


def test_the_average_of_the_page_about_stopping(tmp_path):
    kept = Kept()
    average = WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(0.9))
    (found, *_), _ = fit(Digits(), tmp_path, [kept, average])
    wanted, *later = kept.weights
    assert len(later) == STEPS - 1
    for weights in later:
        wanted = 0.9 * wanted + 0.1 * weights
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found.double(), kept.weights[-1], rtol=1e-4)
