"""Where a log goes: CSV, TensorBoard, Weights & Biases, `logging`."""

import csv
import gc
import json
import logging
import struct
import threading
import time

import pytest

import zenith as core
from zenith.logs import MetricLog, to_csv, to_logging, to_tensorboard, to_wandb
from zenith.readers import series

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
    rows: list = []
    for _ in range(600):  # a process of wandb's own writes it, which may be behind
        rows = [row for row in history(file) if "zenith/scale" in row]
        if len(rows) == 3:
            break
        time.sleep(0.1)
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
