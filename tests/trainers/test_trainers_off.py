"""Nothing that turns ZENITH off is silent: one warning, where logs and callbacks see it."""

import warnings

import pytest
import torch
from _trainers import STEPS, WINDOW, Network, loader, zenith
from lightning import Trainer as LightningTrainer
from test_trainers_lightning import Digits
from test_trainers_transformers import InOrder, Rows, arguments
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import ConstantLR, LinearLR, SequentialLR

import zenith as core
from zenith import ZenithWarning
from zenith.logs import MetricLog, Watch, find
from zenith.torch import Zenith, ZenithLR
from zenith.torch.lightning import ZenithCallback as LightningCallback
from zenith.torch.transformers import ZenithCallback as HuggingFaceCallback

pytestmark = [
    pytest.mark.filterwarnings("default"),  # of the libraries themselves
    pytest.mark.filterwarnings("error::zenith.ZenithWarning"),
]


def warned(caught):
    return [str(w.message) for w in caught if issubclass(w.category, ZenithWarning)]


def watched(norms, window, watch=None, every=1):
    """The warnings of a watch that sees every so-manieth row of a run."""
    state, watch = core.init(window), watch or Watch("Do this.", window)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, norm in enumerate(norms, start=1):
            state = core.update(state, norm)
            if step % every == 0:
                watch(step, core.metrics(state))
        watch.ended()
    return warned(caught)


# --- the rows


CLIPPED = (
    "the last 12 gradient norms are all 0.05: ZENITH has to measure a norm before it is clipped, "
    "else the rate stands still. Do this."
)


def test_a_full_window_of_one_value_is_told_once():
    rounded = [0.05 * (1 + 4e-4 * (-1) ** i) for i in range(40)]
    assert watched(rounded, window=12) == [CLIPPED]
    assert watched([1.0, 2.0, *rounded], window=12) == [CLIPPED]


def test_norms_that_were_clipped_to_1_in_bfloat16():
    assert len(watched([0.9951, 1.0042] * 10, window=12)) == 1


def test_at_least_ten_are_needed_and_a_window_that_is_full():
    assert watched([1.0] * 9, window=2) == []
    assert len(watched([1.0] * 10, window=2)) == 1
    assert watched([2.0, *[1.0] * 19, 2.0], window=20) == []


def test_norms_that_move_are_not_clipped():
    assert watched([1.0 + 0.03 * (i % 2) for i in range(40)], window=12) == []
    assert watched([1.0] * 5 + [0.0] * 40, window=3) == []  # a dead network: the rate is 0
    alternating = [(1.0, 3.0)[i % 2] for i in range(40)]
    assert watched(alternating, window=12, every=2) == []  # every row has 3, but a mean of 2


def test_rows_that_lie_apart_count_by_the_norms_between():
    assert len(watched([1.0] * 24, window=12, every=6)) == 1
    assert watched([1.0] * 12, window=12, every=6) == []


def test_a_window_that_is_unknown_is_at_most_the_count_of_the_first_full_row():
    assert watched([1.0] * 30, window=20, watch=Watch())[0].startswith("the last 20 ")


def test_norms_that_are_skipped_do_not_count():
    assert watched([1.0] * 9 + [float("nan")] * 20, window=2) == []


def test_a_log_that_ends_before_the_window_is_full():
    assert watched([3.0, 2.0], window=3) == [
        "the log ended after 2 gradient norms, before the `window` of 3 was full: the rate was "
        "`lr` throughout."
    ]
    assert watched([3.0, 2.0, 1.0], window=3) == []
    assert watched([0.0, 0.0, 0.0], window=3) == []
    assert "after 0 gradient norms" in watched([float("inf")], window=3)[0]
    watch = Watch()
    watch(1, {"scale": 1.0})  # a row of something else
    watch.ended()


def test_a_row_of_the_four_numbers_that_it_takes_is_enough():
    watch = Watch()
    for count in range(1, 10):
        watch(count, {"grad_norm": 2.0, "mean": 2.0, "zenith": 2.0, "count": count})
    with pytest.warns(ZenithWarning, match="the last 10 gradient norms are all 2:"):
        watch(10, {"grad_norm": 2.0, "mean": 2.0, "zenith": 2.0, "count": 10})


def test_what_is_known_before_a_run_is_one_warning():
    watch = Watch("Do this.", window=5)
    watch.run_of(6)
    with pytest.warns(ZenithWarning) as caught:
        watch.run_of(5, "it clips", "It schedules.")
    assert warned(caught) == [
        "it clips: ZENITH has to measure a norm before it is clipped, else the rate stands still. "
        "Do this. It schedules. the run of 5 steps is no longer than the `window` of 5: the rate "
        "stays at `lr`. Choose a shorter window."
    ]
    watch.run_of(5)  # told


# --- a loop


def loop(step, **options):
    """Log a run of the network, which takes each step by `step(model, optimizer)`."""
    model = Network()
    optimizer, _ = zenith(model.parameters(), **options)
    with MetricLog(every=7) as log:
        for batch in loader():
            optimizer.zero_grad()
            model(**batch)["loss"].backward()
            step(model, optimizer)
            log(optimizer)


def test_a_loop_that_clips_first_and_its_remedies():
    def trap(model, optimizer):
        clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()

    with pytest.warns(ZenithWarning, match=r"all 0.01: .*step\(grad_norm=.*max_grad_norm"):
        loop(trap)
    loop(lambda m, o: o.step(grad_norm=clip_grad_norm_(m.parameters(), 0.01)))
    loop(lambda m, o: o.step(), max_grad_norm=0.01)


def test_a_loop_that_ends_too_early_and_one_that_is_interrupted():
    def log_one(error=None):
        with MetricLog() as log:
            log(core.update(core.init(500), 1.0))
            if error is not None:
                raise error

    with pytest.warns(ZenithWarning, match="after 1 gradient norms, before the `window` of 500"):
        log_one()
    with pytest.raises(KeyboardInterrupt):
        log_one(KeyboardInterrupt())


def test_clipped_norms_of_plain_states_are_told_without_the_advice_of_a_framework():
    def run():
        state = core.init(1)
        with MetricLog() as log:
            for _ in range(10):
                state = core.update(state, 1.0)
                log(state)

    with pytest.warns(ZenithWarning, match=r"are all 1: .* else the rate stands still\.$"):
        run()


def test_an_optimizer_with_several_logs_is_told_of_once():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = Zenith([weight], window=2)

    def run():
        with MetricLog() as log:
            for _ in range(20):
                weight.grad = torch.ones(1)
                optimizer.step()
                log(optimizer)

    with pytest.warns(ZenithWarning, match="gradient norms are all 1:"):
        run()
    run()


def test_optimizers_that_share_a_log_are_told_of_each():
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    first, second = Zenith([weights[0]], window=2), Zenith([weights[1]], window=30)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with MetricLog(every=3) as log:
            for _ in range(12):
                for optimizer, weight, norm in zip((first, second), weights, (1, 5), strict=True):
                    weight.grad = torch.full((1,), float(norm))
                    optimizer.step()
                    log(optimizer)
    clipped, short = warned(caught)
    assert clipped.startswith("the last 10 gradient norms are all 1:")
    assert short.startswith("the log ended after 12 gradient norms, before the `window` of 30")


def test_optimizers_that_nobody_reads_say_nothing():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = Zenith([weight], window=2)
    for _ in range(20):
        weight.grad = torch.ones(1)
        optimizer.step()
    assert float(optimizer.zenith_state.scale) == 1


# --- Hugging Face's Trainer


def hugging_face(folder, scheduler=None, **more):
    """The warnings of a run."""
    model = Network()
    optimizer, _ = zenith(model.parameters())
    trainer = InOrder(
        model,
        arguments(folder, logging_steps=5, save_strategy="no", **more),
        train_dataset=Rows(),
        optimizers=(optimizer, scheduler and scheduler(optimizer)),
        callbacks=[HuggingFaceCallback()],
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    return warned(caught)


def test_hugging_face_at_its_defaults(tmp_path):
    (told,) = hugging_face(tmp_path, lr_scheduler_type="linear", max_grad_norm=1.0)
    assert told.startswith(
        "the Trainer clips gradients, `max_grad_norm=1.0`: ZENITH has to measure"
    )
    assert "TrainingArguments(max_grad_norm=0) and Zenith(max_grad_norm=...)" in told
    assert 'TrainingArguments(lr_scheduler_type="constant")' in told


def test_hugging_face_each_of_its_defaults_and_none(tmp_path):
    assert hugging_face(tmp_path) == []
    (told,) = hugging_face(tmp_path, max_grad_norm=1e-3)
    assert "1e-3" in told or "0.001" in told
    (told,) = hugging_face(tmp_path, lr_scheduler_type="linear")
    assert told.startswith("The Trainer's linear schedule, its default, ")
    own = hugging_face(tmp_path, lambda o: ConstantLR(o, 1.0), lr_scheduler_type="linear")
    assert own == []  # a scheduler was handed over, which the Trainer takes in place of its own


@pytest.mark.parametrize("steps", [WINDOW - 1, WINDOW, WINDOW + 1])
def test_hugging_face_a_run_no_longer_than_the_window(tmp_path, steps):
    told = hugging_face(tmp_path, max_steps=steps)
    text = f"the run of {steps} steps is no longer than the `window` of {WINDOW}"
    assert [text in one for one in told] == [True] * (steps <= WINDOW)


# --- Lightning


def lightning(folder, module, **more):
    """The warnings of a run."""
    trainer = LightningTrainer(
        **{"max_steps": STEPS, **more},
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[LightningCallback()],
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, loader())
    return warned(caught)


def test_lightning_that_clips(tmp_path):
    (told,) = lightning(tmp_path, Digits(), gradient_clip_val=0.1)
    assert told.startswith("the Trainer clips gradients, `gradient_clip_val=0.1`: ZENITH has to")
    assert "`gradient_clip_val` at None" in told
    assert lightning(tmp_path, Digits(max_grad_norm=0.1)) == []


@pytest.mark.parametrize(
    "options", [{"max_steps": WINDOW}, {"max_steps": -1, "max_epochs": 1, "limit_train_batches": 4}]
)
def test_lightning_a_run_no_longer_than_the_window(tmp_path, options):
    (told,) = lightning(tmp_path, Digits(), **options)
    assert f"the run of 4 steps is no longer than the `window` of {WINDOW}" in told


class Clips(Digits):
    """Clips by itself, which only the norms show."""

    def on_before_optimizer_step(self, optimizer):
        clip_grad_norm_(self.parameters(), 0.01)


def test_norms_that_the_module_has_clipped(tmp_path):
    (told,) = lightning(tmp_path, Clips())
    assert "gradient norms are all 0.01" in told
    assert "`gradient_clip_val` at None" in told


# --- where ZENITH is


def test_zenith_is_found_inside_of_wrappers():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1e-3)
    under = ZenithLR(optimizer, window=3)
    warm = LinearLR(optimizer, 0.1, total_iters=5)
    assert find([optimizer, SequentialLR(optimizer, [warm, under], [5])], "x") == [under]
    own = Zenith([torch.nn.Parameter(torch.ones(1))])
    assert find([own, LinearLR(own)], "x") == [own]  # once
    optimizer.scheduler = warm  # which holds the optimizer
    assert find([optimizer, under], "x") == [under]
    with pytest.raises(TypeError, match="it must be, got AdamW and NoneType"):
        find([optimizer, None], "it must be")
