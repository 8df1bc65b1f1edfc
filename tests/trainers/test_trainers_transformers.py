"""Hugging Face's Trainer: real steps, its own checkpoint, the rate where it was, our callback."""

import pytest
import torch
from _reference import ROUNDING
from _trainers import BATCH, CUT, STEPS, WINDOW, Network, Rows, plain_loop, zenith, zenith_lr
from transformers import Trainer, TrainerCallback, TrainingArguments

from zenith.logs import to_csv
from zenith.readers import series
from zenith.torch import Zenith
from zenith.torch.transformers import ZenithCallback


class Rates(TrainerCallback):
    """The rate in force at every step."""

    def __init__(self, keeper=None):
        self.keeper, self.rates = keeper, []

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        keeper = self.keeper or getattr(optimizer, "optimizer", optimizer)
        self.rates.append(keeper.get_last_lr()[0])


class InOrder(Trainer):
    """The rows in their order, so that a loop without a trainer can take the same."""

    def _get_train_sampler(self, *args, **kwargs):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def arguments(folder, **more):
    options = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "max_steps": STEPS,
        "save_steps": CUT,
        "logging_steps": 1,
        "lr_scheduler_type": "constant",  # by default it would fall linearly, under ZENITH as well
        "max_grad_norm": 0.0,  # by default 1.0: clipped before ZENITH measures it
        "weight_decay": 0.0,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return TrainingArguments(**{**options, **more})


def by_optimizers(folder, **more):
    model = Network()
    optimizer, _ = zenith(model.parameters())
    own = {"optimizers": (optimizer, None)}
    return InOrder(model, arguments(folder, **more), train_dataset=Rows(), **own), None


def by_class(folder, **more):
    keywords = {"lr": 0.1, "window": WINDOW, "momentum": 0.9}
    own = {"optimizer_cls_and_kwargs": (Zenith, keywords)}
    return InOrder(Network(), arguments(folder, **more), train_dataset=Rows(), **own), None


def by_scheduler(folder, **more):
    model = Network()
    optimizer, scheduler = zenith_lr(model.parameters())
    own = {"optimizers": (optimizer, scheduler)}
    return InOrder(model, arguments(folder, **more), train_dataset=Rows(), **own), scheduler


WAYS = {"optimizers": by_optimizers, "class": by_class, "scheduler": by_scheduler}


def train(way, folder, resume=None, **more):
    trainer, keeper = WAYS[way](folder, **more)
    rates = Rates(keeper)
    trainer.add_callback(rates)
    trainer.train(resume_from_checkpoint=resume)
    return rates.rates, [p.detach().clone() for p in trainer.model.parameters()], trainer


@pytest.mark.parametrize("way", WAYS)
def test_it_takes_the_steps_of_a_loop_and_resumes(way, tmp_path):
    wanted_rates, wanted_weights = plain_loop(zenith_lr if way == "scheduler" else zenith)
    rates, weights, trainer = train(way, tmp_path / "whole")
    assert min(rates) < 0.08
    assert rates == wanted_rates
    torch.testing.assert_close(weights, wanted_weights, rtol=0, atol=0)
    if way == "scheduler":
        logged = [log["learning_rate"] for log in trainer.state.log_history if "loss" in log]
        assert logged == pytest.approx(rates, rel=1e-6), "the Trainer logs the rate in force"

    checkpoint = tmp_path / "whole" / f"checkpoint-{CUT}"
    resumed_rates, resumed_weights, _ = train(way, tmp_path / "resumed", str(checkpoint))
    assert resumed_rates == wanted_rates[CUT:]
    torch.testing.assert_close(resumed_weights, wanted_weights, rtol=0, atol=0)


def test_accumulated_gradients_give_one_norm_for_each_update(tmp_path):
    options = {"per_device_train_batch_size": BATCH // 4, "gradient_accumulation_steps": 4}
    rates, weights, trainer = train("optimizers", tmp_path, **options)
    wanted_rates, wanted_weights = plain_loop(zenith)
    assert int(trainer.optimizer.optimizer.zenith_state.count) == STEPS
    assert rates == pytest.approx(wanted_rates, rel=ROUNDING)
    torch.testing.assert_close(weights, wanted_weights, rtol=1e-4, atol=1e-5)


def test_its_own_clipping_saturates_the_schedule_and_max_grad_norm_does_not(tmp_path):
    rates, _, _ = train("optimizers", tmp_path / "trap", max_grad_norm=1e-3)
    # 1e-3, up to what torch adds to the norm before it divides: the rate does not move.
    assert rates == pytest.approx([0.1] * STEPS, rel=1e-3)

    model = Network()
    optimizer, _ = zenith(model.parameters(), max_grad_norm=1e-3)
    seen = Rates()
    own = {"optimizers": (optimizer, None), "callbacks": [seen]}
    trainer = InOrder(model, arguments(tmp_path / "remedy"), train_dataset=Rows(), **own)
    trainer.train()
    wanted, _ = plain_loop(lambda parameters: zenith(parameters, max_grad_norm=1e-3))
    assert min(seen.rates) < 0.08
    assert seen.rates == wanted


@pytest.mark.parametrize("make", [zenith, zenith_lr])
def test_the_callback_logs_every_step(tmp_path, make):
    wanted, _ = plain_loop(make)
    model = Network()
    optimizer, keeper = make(model.parameters())
    trainer = InOrder(
        model,
        arguments(tmp_path, logging_steps=5, save_steps=STEPS),
        train_dataset=Rows(),
        optimizers=(optimizer, None if keeper is optimizer else keeper),
        callbacks=[ZenithCallback(to_csv(tmp_path / "own.csv"))],
    )
    trainer.train()
    assert series(tmp_path / "own.csv", "lr").values == pytest.approx(wanted, rel=1e-6)
    state = tmp_path / f"checkpoint-{STEPS}" / "trainer_state.json"
    _, steps, rates, replaced, _ = series(state, "zenith/lr")
    assert replaced == 0
    assert steps[:3] == [5, 10, 15]
    assert rates[:3] == pytest.approx([wanted[4], wanted[9], wanted[14]], rel=1e-6)


def test_the_callback_without_zenith(tmp_path):
    model = Network()
    trainer = InOrder(
        model,
        arguments(tmp_path),
        train_dataset=Rows(),
        optimizers=(torch.optim.SGD(model.parameters()), None),
        callbacks=[ZenithCallback()],
    )
    with pytest.raises(TypeError, match="must be a Zenith, or its scheduler a ZenithLR, got SGD"):
        trainer.train()
