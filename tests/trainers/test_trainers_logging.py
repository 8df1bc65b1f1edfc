"""`zenith.logs` and the callbacks: what is logged, where it goes, and when the device is read."""

import csv
import gc
import json
import logging
import struct
import threading

import numpy as np
import pytest
import torch
from _trainers import STEPS, Network, loader, plain_loop, zenith, zenith_lr
from lightning import Callback
from lightning import Trainer as LightningTrainer
from lightning.pytorch.loggers import CSVLogger
from test_trainers_lightning import BATCHES, Digits, Scheduled
from test_trainers_transformers import InOrder, Rows, arguments
from torch._subclasses.fake_tensor import FakeTensorMode

import zenith as core
from zenith.logs import MetricLog, to_csv, to_logging, to_tensorboard, to_wandb
from zenith.readers import series
from zenith.torch import Zenith
from zenith.torch.lightning import ZenithCallback as LightningCallback
from zenith.torch.transformers import ZenithCallback as HuggingFaceCallback

pytestmark = [
    pytest.mark.filterwarnings("default"),  # of the libraries themselves
    pytest.mark.filterwarnings("error::zenith.ZenithWarning"),
]

NORMS = [4.0, 3.0, 1.0]


def logged(*sinks, norms=NORMS, **options):
    """Log three steps with a window of 1."""
    with MetricLog(*sinks, **options) as log:
        state = core.init(window=1)
        for norm in norms:
            state = core.update(state, norm)
            log(state, loss=2 * norm)


def test_numbers_come_in_order_and_many_at_a_time():
    seen = []
    log = MetricLog(lambda step, numbers: seen.append((step, numbers["scale"])), every=2, step=10)
    state = core.init(window=1)
    for norm, known in zip(NORMS, (0, 2, 2), strict=True):
        state = core.update(state, norm)
        log(state)
        assert len(seen) == known
    log.flush()
    log.flush()
    assert seen == [(11, 1.0), (12, 0.75), (13, 0.25)]


def test_each_step_is_handed_on_at_once_if_that_is_asked_for():
    seen = []
    log = MetricLog(lambda step, numbers: seen.append(step), every=1)
    for step in (1, 2):
        log({"scale": 1.0})
        assert seen[-1] == step


def test_what_is_logged_now_and_then_and_mappings():
    seen = []
    with MetricLog(lambda step, numbers: seen.append((step, numbers))) as log:
        log({"scale": torch.tensor(0.5)}, step=7)
        log({"scale": torch.tensor(0.25), "loss": 1})
    assert seen == [(7, {"scale": 0.5}), (8, {"scale": 0.25, "loss": 1.0})]


def test_bad_arguments():
    with pytest.raises(ValueError, match="`every` must be an integer >= 1, got 0"):
        MetricLog(every=0)
    with pytest.raises(ValueError, match=r"`every` must be an integer >= 1, got 2.5"):
        MetricLog(every=2.5)
    with pytest.raises(TypeError, match=r"`sinks` must be functions such as to_csv\('a.csv'\)"):
        MetricLog("a.csv")
    with pytest.raises(ValueError, match=r"`loss` must be one number, got shape \(2,\)"):
        MetricLog()({"scale": 1.0}, loss=torch.ones(2))
    with pytest.raises(TypeError, match=r"`source` must be an optimizer under ZENITH.*got a SGD"):
        MetricLog()(torch.optim.SGD([torch.zeros(1)]))


@pytest.mark.parametrize("make", [zenith, zenith_lr])
def test_the_rate_in_force_is_that_of_the_step(make):
    wanted, _ = plain_loop(make)
    seen = []
    model = Network()
    optimizer, keeper = make(model.parameters())
    # a schedule that has moved on by the time of the log does not matter
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0) if keeper is optimizer else None
    with MetricLog(lambda step, numbers: seen.append(numbers["lr"])) as log:
        for batch in loader():
            optimizer.zero_grad()
            model(**batch)["loss"].backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
                optimizer.param_groups[0]["lr"] = 7.0
            log(keeper)
            if schedule is not None:
                optimizer.param_groups[0]["lr"] = 0.1
    assert seen == pytest.approx(wanted, rel=1e-6)


def test_nothing_is_read_from_a_gpu_before_the_flush():
    with FakeTensorMode():  # in which a fake CUDA tensor raises on a read
        param = torch.nn.Parameter(torch.randn(3, device="cuda"))
        optimizer = Zenith([param], window=2)
        log = MetricLog(every=100)
        for _ in range(5):
            param.grad = torch.randn_like(param)
            optimizer.step()
            log(optimizer, loss=torch.ones((), device="cuda"))
        with pytest.raises(Exception, match=r"_local_scalar_dense|data-dependent|CUDA"):
            log.flush()
        log._waiting.clear()  # which would be tried once more as the log goes


def test_csv_goes_on_and_refuses_other_columns(tmp_path):
    path = tmp_path / "zenith.csv"
    logged(to_csv(path))
    logged(to_csv(path), norms=[2.0])  # from the last step in the file
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["loss"]) for row in rows] == [8.0, 6.0, 2.0, 4.0]
    to_csv(path)(5, {"scale": 1.0})  # a row with less
    before = path.read_bytes()
    assert before.splitlines()[-1] == b"5,,,,1.0,,,"
    with pytest.raises(
        ValueError, match=r"`validation` must be one of the columns of .*zenith.csv"
    ):
        to_csv(path)(6, {"validation": 1.0})
    assert path.read_bytes() == before


def test_csv_is_on_disk_after_each_row(tmp_path):
    sink = to_csv(tmp_path / "zenith.csv")
    for step, scale in ((1, 1.0), (2, 0.75)):
        sink(step, {"scale": scale})
        assert series(tmp_path / "zenith.csv", "scale").values[-1] == scale


def test_csv_says_where_the_steps_of_the_caller_do_not_go_on(tmp_path):
    path = tmp_path / "zenith.csv"
    logged(to_csv(path))
    with pytest.warns(UserWarning, match=r"zenith.csv ends at step 3, and goes on with step 1$"):
        logged(to_csv(path), norms=[2.0, 1.0], step=0)
    assert series(path, "grad_norm").values == [2.0, 1.0]
    assert series(path).replaced == 3
    columns = path.read_text().splitlines()[0].split(",")
    with pytest.warns(UserWarning, match=r"ends at step 2, and goes on with step 2$") as caught:
        to_csv(path)(2, dict.fromkeys(columns, 1))
    assert caught[0].filename == __file__  # where the sink was called


def test_csv_goes_on_after_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "zenith.csv"
    path.write_text("step,scale\n7,1.0\n8,0.")
    with MetricLog(to_csv(path)) as log:
        log({"scale": 0.5})
    assert path.read_text().splitlines() == ["step,scale", "7,1.0", "8,0.", "9,0.5"]


def test_csv_goes_on_from_the_last_whole_step(tmp_path):
    path = tmp_path / "zenith.csv"
    path.write_bytes(b"step,scale\r\n121,1\r\n122,2\r\n12")
    assert to_csv(path).last_step == 122
    to_csv(path)(123, {"scale": 3})
    assert path.read_bytes() == b"step,scale\r\n121,1\r\n122,2\r\n12\r\n123,3\r\n"
    path.write_text("step,scale\n1.0,1\n2.0,2\n3.5,3\n")
    assert to_csv(path).last_step == 2


def test_csv_with_a_number_that_comes_now_and_then(tmp_path):
    path = tmp_path / "zenith.csv"
    with MetricLog(to_csv(path, columns=["validation"])) as log:
        for step in range(1, 5):
            log({"scale": 1.0}, **({"validation": 7.0} if step % 2 == 0 else {}))
    assert path.read_text().splitlines() == [
        "step,scale,validation", "1,1.0,", "2,1.0,7.0", "3,1.0,", "4,1.0,7.0",
    ]  # fmt: skip


def test_what_a_sink_fails_to_take_is_kept(caplog):
    seen, full = [], [True]

    def sink(step, numbers):
        if step == 2 and full:
            raise OSError("full")
        seen.append(step)

    log = MetricLog(sink)
    for _ in range(3):
        log({"scale": 1.0})
    with pytest.raises(OSError, match="full"):
        log.flush()
    full.clear()
    log.flush()
    assert seen == [1, 2, 3]

    def interrupted():
        with MetricLog(sink) as log:
            log({"scale": 1.0}, step=2)
            full.append(True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # which the sink's failure does not replace
        interrupted()
    full.clear()
    assert caplog.messages == ["the last steps could not be logged"]


def test_a_log_that_is_never_closed_is_written_at_the_end():
    seen = []
    log = MetricLog(lambda step, numbers: seen.append(step))
    log({"scale": 1.0})
    del log
    gc.collect()
    assert seen == [1]


def test_a_tensor_is_logged_as_it_was():
    seen = []
    total = torch.zeros(1)
    with MetricLog(lambda step, numbers: seen.append(numbers)) as log:
        for _ in range(3):
            total += 1
            log({"total": total}, again=total[0])
    assert seen == [{"total": i, "again": i} for i in (1.0, 2.0, 3.0)]


class InPlace:
    """An adapter that writes its state in place, as one of Keras on torch may."""

    window = 1

    def __init__(self):
        self.scale = torch.ones(())

    def zenith_metrics(self):
        return {"lr": 0.1, "scale": self.scale}


def test_a_state_that_is_written_in_place_is_logged_as_it_was():
    seen, source = [], InPlace()
    with MetricLog(lambda step, numbers: seen.append(numbers)) as log:
        for scale in (1.0, 0.75, 0.25):
            source.scale.fill_(scale)
            log(source)
    assert seen == [{"lr": 0.1, "scale": scale} for scale in (1.0, 0.75, 0.25)]


def test_an_array_of_numpy_is_logged_as_it_was():
    seen, total = [], np.zeros(())
    with MetricLog(lambda step, numbers: seen.append(numbers["total"])) as log:
        for _ in range(3):
            total += 1
            log({"total": total})
    assert seen == [1.0, 2.0, 3.0]


def test_a_flush_reads_once_for_each_dtype(monkeypatch):
    stacked = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda xs: stacked.append(len(xs)) or stack(xs))
    log = MetricLog()
    for _ in range(10):
        log({"a": torch.tensor(1.0), "b": torch.tensor(2.0), "n": torch.tensor(3), "plain": 4})
    log.flush()
    assert stacked == [20, 10]


def test_tensorboard_of_torch(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        logged(to_tensorboard(writer))
    assert series(tmp_path) == ("zenith/grad_norm", [1, 2, 3], NORMS, 0, False)
    assert series(tmp_path, "zenith/scale").values == [1.0, 0.75, 0.25]


def test_tensorboard_in_a_folder(tmp_path):
    logged(to_tensorboard(tmp_path / "runs"))
    gc.collect()
    assert series(tmp_path / "runs") == ("zenith/grad_norm", [1, 2, 3], NORMS, 0, False)
    log = MetricLog(to_tensorboard(tmp_path / "open"), every=2)
    log({"grad_norm": 4.0})
    log({"grad_norm": 3.0})
    assert series(tmp_path / "open").values == [4.0, 3.0]  # while the run goes on
    with pytest.raises(TypeError, match="`writer` must be a folder or a SummaryWriter, got 3"):
        to_tensorboard(3)


def test_the_files_in_a_folder_are_closed_with_the_sink(tmp_path):
    before = threading.active_count()
    sink = to_tensorboard(tmp_path / "runs")
    sink(1, {"scale": 1.0})
    assert threading.active_count() == before + 1  # that of the writer
    del sink
    gc.collect()
    assert threading.active_count() == before


def test_tensorboard_of_flax():
    seen = []

    class SummaryWriter:  # as flax.metrics.tensorboard's, which needs TensorFlow
        def scalar(self, tag, value, step):
            seen.append((tag, value, step))

    logged(to_tensorboard(SummaryWriter(), prefix="own/"))
    assert [row for row in seen if row[0] == "own/scale"] == [
        ("own/scale", 1.0, 1),
        ("own/scale", 0.75, 2),
        ("own/scale", 0.25, 3),
    ]


BLOCK = 32_768


def history(path):
    """The rows in the file of an offline run of Weights & Biases: a log as LevelDB writes it."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, content = path.read_bytes(), 7, b""  # after the file's own header
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:  # no header goes over the end of a block
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        content += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record, content = Record.FromString(content), b""
            if record.history.item:
                yield {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    import wandb

    with wandb.init(dir=tmp_path, project="zenith") as run:
        for _ in range(5):
            run.log({"loss": 1.0})  # the run's own steps are ahead
        logged(to_wandb(run))
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    rows = [row for row in history(file) if "zenith/scale" in row]
    assert [(row["zenith/step"], row["zenith/scale"]) for row in rows] == [
        (1, 1.0),
        (2, 0.75),
        (3, 0.25),
    ]


def test_weights_and_biases_have_an_axis_of_their_own():
    class Run:
        def __init__(self):
            self.axes, self.rows = [], []

        def define_metric(self, name, **options):
            self.axes.append((name, options))

        def log(self, row):
            self.rows.append(row)

    run = Run()
    to_wandb(run, prefix="own/")(7, {"scale": 0.5})
    assert run.axes == [("own/step", {"hidden": True}), ("own/*", {"step_metric": "own/step"})]
    assert run.rows == [{"own/step": 7, "own/scale": 0.5}]


def test_logging(caplog):
    with caplog.at_level(logging.INFO):
        logged(to_logging(), norms=[4.0])
    assert caplog.messages == [
        "step 1: grad_norm 4, mean 4, zenith 4, scale 1, count 1, skipped 0, loss 8"
    ]


@pytest.mark.parametrize("module", [Digits, Scheduled])
def test_lightning(tmp_path, module):
    wanted, _ = plain_loop(zenith if module is Digits else zenith_lr)
    trainer = LightningTrainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        log_every_n_steps=7,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[LightningCallback(to_csv(tmp_path / "own.csv"))],
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


def test_lightning_with_two_optimizers_and_an_interruption(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, i):
            if i == 6:
                raise RuntimeError("stop")

    rows = []
    trainer = LightningTrainer(
        max_epochs=1,
        accelerator="cpu",
        logger=CSVLogger(tmp_path, flush_logs_every_n_steps=1),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[LightningCallback(lambda step, numbers: rows.append(numbers["count"])), Stop()],
    )
    with pytest.raises(RuntimeError, match="stop"):
        trainer.fit(Two(), loader())
    assert rows == [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    path = tmp_path / "lightning_logs" / "version_0" / "metrics.csv"
    assert series(path, "zenith1/count").values == [1, 2, 3]


def test_lightning_without_zenith(tmp_path):
    class Plain(Digits):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = LightningTrainer(
        max_steps=1, accelerator="cpu", logger=False, callbacks=[LightningCallback()]
    )
    with pytest.raises(TypeError, match="must return a Zenith or a ZenithLR, got SGD"):
        trainer.fit(Plain(), loader())


class Clipping(Zenith):
    """Its `step` calls that of its base, at which torch runs the hooks of both."""

    def step(self, closure=None):
        return super().step(closure)


def test_lightning_counts_the_steps_of_a_subclass_once(tmp_path):
    class Sub(Digits):
        def configure_optimizers(self):
            return Clipping(self.parameters(), lr=0.1, window=4)

    rows = []
    trainer = LightningTrainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[LightningCallback(lambda step, numbers: rows.append((step, numbers["count"])))],
    )
    trainer.fit(Sub(), loader())
    assert rows == [(step, step + 1) for step in range(STEPS)]


@pytest.mark.parametrize("make", [zenith, zenith_lr])
def test_hugging_face(tmp_path, make):
    wanted, _ = plain_loop(make)
    model = Network()
    optimizer, keeper = make(model.parameters())
    trainer = InOrder(
        model,
        arguments(tmp_path, logging_steps=5, save_steps=STEPS),
        train_dataset=Rows(),
        optimizers=(optimizer, None if keeper is optimizer else keeper),
        callbacks=[HuggingFaceCallback(to_csv(tmp_path / "own.csv"))],
    )
    trainer.train()
    assert series(tmp_path / "own.csv", "lr").values == pytest.approx(wanted, rel=1e-6)
    state = tmp_path / f"checkpoint-{STEPS}" / "trainer_state.json"
    _, steps, rates, replaced, _ = series(state, "zenith/lr")
    assert replaced == 0
    assert steps[:3] == [5, 10, 15]
    assert rates[:3] == pytest.approx([wanted[4], wanted[9], wanted[14]], rel=1e-6)


def test_hugging_face_without_zenith(tmp_path):
    model = Network()
    trainer = InOrder(
        model,
        arguments(tmp_path),
        train_dataset=Rows(),
        optimizers=(torch.optim.SGD(model.parameters()), None),
        callbacks=[HuggingFaceCallback()],
    )
    with pytest.raises(TypeError, match="must be a Zenith, or its scheduler a ZenithLR, got SGD"):
        trainer.train()
