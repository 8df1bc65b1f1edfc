"""`zenith.logs` and the callbacks: what is logged, where it goes, and when the device is read."""

import csv
import json
import logging
import struct

import pytest
import torch
from _trainers import STEPS, Network, loader, plain_loop, zenith, zenith_lr
from lightning import Trainer as LightningTrainer
from lightning.pytorch.loggers import CSVLogger
from test_trainers_lightning import Digits, Scheduled
from test_trainers_transformers import InOrder, Rows, arguments
from torch._subclasses.fake_tensor import FakeTensorMode

import zenith as core
from zenith.logs import MetricLog, to_csv, to_logging, to_tensorboard, to_wandb
from zenith.records import series
from zenith.torch import Zenith
from zenith.torch.lightning import ZenithCallback as LightningCallback
from zenith.torch.transformers import ZenithCallback as HuggingFaceCallback

pytestmark = pytest.mark.filterwarnings("default")  # of the libraries themselves

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


def test_what_is_logged_now_and_then_and_mappings():
    seen = []
    with MetricLog(lambda step, numbers: seen.append((step, numbers))) as log:
        log({"scale": torch.tensor(0.5)}, step=7)
        log({"scale": torch.tensor(0.25), "loss": 1})
    assert seen == [(7, {"scale": 0.5}), (8, {"scale": 0.25, "loss": 1.0})]


def test_bad_arguments():
    with pytest.raises(ValueError, match="`every` must be an integer >= 1, got 0"):
        MetricLog(every=0)
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


def test_csv_goes_on_and_refuses_other_columns(tmp_path):
    path = tmp_path / "zenith.csv"
    logged(to_csv(path))
    logged(to_csv(path), norms=[2.0], step=3)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["loss"]) for row in rows] == [8.0, 6.0, 2.0, 4.0]
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"the columns of .*zenith.csv must be \['step', 'scale'\]"
    ):
        to_csv(path)(5, {"scale": 1.0})
    assert path.read_bytes() == before


def test_tensorboard_of_torch(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        logged(to_tensorboard(writer))
    assert series(tmp_path) == ("zenith/grad_norm", [1, 2, 3], NORMS)
    assert series(tmp_path, "zenith/scale").values == [1.0, 0.75, 0.25]


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


def history(path):
    """The rows in the file of an offline run of Weights & Biases: a log as LevelDB writes it."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at = path.read_bytes(), 7  # after the file's own header
    while at + 7 <= len(data):
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 1:  # a whole record
            record = Record.FromString(data[at + 7 : at + 7 + length])
            if record.history.item:
                yield {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }
        at += 7 + length


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
    name, steps, rates = series(path, "zenith/lr")
    assert name == "zenith/lr"
    assert steps == list(range(1, STEPS + 1))
    assert rates == pytest.approx(wanted, rel=1e-6)
    assert series(tmp_path / "own.csv", "lr").values == pytest.approx(wanted, rel=1e-6)


def test_lightning_without_zenith(tmp_path):
    class Plain(Digits):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = LightningTrainer(
        max_steps=1, accelerator="cpu", logger=False, callbacks=[LightningCallback()]
    )
    with pytest.raises(TypeError, match="must return a Zenith or a ZenithLR, got SGD"):
        trainer.fit(Plain(), loader())


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
    _, steps, rates = series(state, "zenith/lr")
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
