"""What is read from other programs' logs."""

import gzip
import json
import math
import os

import pytest
from _replay import NORMS, write_csv

from zenith.readers import rows, series
from zenith.replay import warnings


def test_csv_with_holes_and_words(tmp_path):
    path = write_csv(
        tmp_path / "log.csv",
        ["epoch", "step", "train/grad_norm", "note"],
        [0, 10, "2.5", "a"],
        [0, 20, "", "b"],
        [1, 30, "nan", ""],
        [1, 40, "inf", "c"],
    )
    name, steps, values, *_ = series(path)
    assert (name, steps) == ("train/grad_norm", [10, 30, 40])
    assert values[0] == 2.5
    assert math.isnan(values[1])
    assert values[2] == math.inf


def test_an_export_of_weights_and_biases(tmp_path):
    header = ["Step", "run-7 - grad_norm", "run-7 - grad_norm__MIN", "run-7 - grad_norm__MAX"]
    path = write_csv(tmp_path / "wandb.csv", header, ["5", "1.5", "1", "2"], ["10", "NaN", "", ""])
    name, steps, values, *_ = series(path)
    assert (name, steps, values[0]) == ("run-7 - grad_norm", [5, 10], 1.5)
    assert math.isnan(values[1])


def test_json_lines_and_a_trainer_state(tmp_path):
    lines = [{"step": 3, "grad_norm": 2.0}, {"step": 6, "loss": 1.0}, {"step": 9, "grad_norm": 1}]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    assert series(path)[:3] == ("grad_norm", [3, 9], [2.0, 1.0])

    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"epoch": 1, "log_history": lines}, indent=1))
    assert series(path)[:3] == ("grad_norm", [3, 9], [2.0, 1.0])


# Lines as these programs write them, with a step that the readers of other logs do not know.
FORMATS = {
    "fairseq.log": (  # --log-format json --log-file
        "2021-07-01 10:00:00 | INFO | fairseq_cli.train | {'_name': None, 'common': {'seed': 1}}\n"
        "2021-07-01 10:00:09 | INFO | fairseq.trainer | begin training epoch 1\n"
        '2021-07-01 10:00:12 | INFO | train_inner | {"epoch": 1, "update": 0.05, "loss": "11.9", '
        '"ppl": "3820.4", "num_updates": "100", "lr": "1.25e-05", "gnorm": "3", "clip": "0"}\n'
        '2021-07-01 10:00:15 | INFO | train_inner | {"epoch": 1, "update": 0.1, "loss": "11.1", '
        '"ppl": "2194.5", "num_updates": "200", "lr": "2.5e-05", "gnorm": "5", "clip": "0"}\n'
        '2021-07-01 10:00:18 | INFO | valid | {"epoch": 1, "valid_loss": "10.8"}\n'
        '2021-07-01 10:00:21 | INFO | train_inner | {"epoch": 2, "update": 1.2, "loss": "10.4", '
        '"ppl": "1351.2", "num_updates": "300", "lr": "3.7e-05", "gnorm": "1", "clip": "0"}\n',
        ("gnorm", [100, 200, 300], [3.0, 5.0, 1.0]),
    ),
    "mmcv.log.json": (  # EpochBasedRunner: 250 iterations an epoch, from 1 in each
        '{"env_info": "sys.platform: linux", "seed": 0, "exp_name": "faster_rcnn.py"}\n'
        '{"mode": "train", "epoch": 1, "iter": 50, "lr": 0.002, "grad_norm": 3.0, "time": 0.4}\n'
        '{"mode": "train", "epoch": 1, "iter": 250, "lr": 0.02, "grad_norm": 5.0, "time": 0.4}\n'
        '{"mode": "val", "epoch": 1, "iter": 625, "lr": 0.02, "bbox_mAP": 0.1}\n'
        '{"mode": "train", "epoch": 2, "iter": 200, "lr": 0.02, "grad_norm": 1.0, "time": 0.4}\n',
        ("grad_norm", [50, 250, 450], [3.0, 5.0, 1.0]),
    ),
    "mmcv-by-iteration.log.json": (  # IterBasedRunner: `iter` goes on
        '{"env_info": "sys.platform: linux", "seed": 0}\n'
        '{"mode": "train", "epoch": 1, "iter": 50, "lr": 0.002, "grad_norm": 3.0}\n'
        '{"mode": "train", "epoch": 2, "iter": 100, "lr": 0.002, "grad_norm": 5.0}\n',
        ("grad_norm", [50, 100], [3.0, 5.0]),
    ),
    "nanogpt.jsonl": (  # the history of its run in Weights & Biases, with a metric added
        '{"iter": 0, "train/loss": 10.9, "val/loss": 10.9, "lr": 0.0, "grad_norm": 3.0, "_step": 0}'
        '\n{"iter": 250, "train/loss": 6.1, "lr": 6e-05, "grad_norm": 5.0, "_step": 1}\n',
        ("grad_norm", [0, 250], [3.0, 5.0]),
    ),
    "logging.jsonl": (  # ms-swift
        '{"loss": 1.62, "grad_norm": 3.0, "learning_rate": 4e-06, "epoch": 0.01, '
        '"global_step/max_steps": "1/438", "percentage": "0.23%", "elapsed_time": "6s"}\n'
        '{"loss": 1.58, "grad_norm": 5.0, "learning_rate": 2e-05, "epoch": 0.07, '
        '"global_step/max_steps": "10/438", "percentage": "2.28%", "elapsed_time": "52s"}\n',
        ("grad_norm", [1, 10], [3.0, 5.0]),
    ),
    "wandb.jsonl": (  # Hugging Face's Trainer into Weights & Biases, with evaluations between
        '{"train/grad_norm": 3.0, "train/global_step": 500, "train/epoch": 1, "_step": 0}\n'
        '{"eval/loss": 0.3, "train/global_step": 500, "_step": 1}\n'
        '{"train/grad_norm": 5.0, "train/global_step": 1000, "train/epoch": 2, "_step": 2}\n',
        ("train/grad_norm", [500, 1000], [3.0, 5.0]),
    ),
    "groups.jsonl": (  # a step in each group, of which the shortest name is another's
        '{"eval/step": 1, "train/step": 10, "train/grad_norm": 3.0}\n'
        '{"eval/step": 2, "train/step": 20, "train/grad_norm": 5.0}\n',
        ("train/grad_norm", [10, 20], [3.0, 5.0]),
    ),
    "generator.jsonl": (  # of the norm's own group, although that of the other is shorter
        '{"d/step": 1, "generator/step": 10, "generator/grad_norm": 3.0}\n'
        '{"d/step": 2, "generator/step": 20, "generator/grad_norm": 5.0}\n',
        ("generator/grad_norm", [10, 20], [3.0, 5.0]),
    ),
    "training-first.jsonl": (  # and none in that of the norm
        '{"eval/step": 1, "train/step": 10, "optim/grad_norm": 3.0}\n'
        '{"eval/step": 2, "train/step": 20, "optim/grad_norm": 5.0}\n',
        ("optim/grad_norm", [10, 20], [3.0, 5.0]),
    ),
    "both.csv": (  # a `step` that begins anew, with `global_step` beside it
        "epoch,step,global_step,grad_norm\n0,1,1,3\n0,2,2,5\n1,1,3,1\n1,2,4,1\n",
        ("grad_norm", [1, 2, 3, 4], NORMS),
    ),
    "anew.csv": (  # and alone, counted from 0
        "epoch, step, grad_norm\n0, 0, 3\n0, 1, 5\n1, 0, 1\n1, 1, 1\n",
        ("grad_norm", [0, 1, 2, 3], NORMS),
    ),
    "capital.csv": (
        "Epoch,Step,Grad_Norm\n1,1,3\n1,2,5\n2,1,1\n2,2,1\n",
        ("Grad_Norm", [1, 2, 3, 4], NORMS),
    ),
    "quoted.csv": (  # with a delimiter in quotes, after a blank
        'step, note, grad_norm\n1, "a, b", 3\n2, "c", 5\n',
        ("grad_norm", [1, 2], [3.0, 5.0]),
    ),
    "history.json": (  # lists in an object, as Keras' History and many a script's json.dump
        '{"loss": [2.0, 1.0, 0.5, 0.4], "grad_norm": [3, 5, 1, 1], "step": [10, 20, 30, 40]}',
        ("grad_norm", [10, 20, 30, 40], NORMS),
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_steps_of_other_programs(tmp_path, name):
    text, wanted = FORMATS[name]
    path = tmp_path / name
    path.write_text(text)
    assert series(path) == (*wanted, 0, False)


def test_rows_that_name_no_step_are_counted_and_that_is_said(tmp_path):
    path = write_csv(tmp_path / "log.csv", ["batch", "grad_norm"], *[(7, norm) for norm in NORMS])
    logged = series(path)
    assert logged == ("grad_norm", [1, 2, 3, 4], NORMS, 0, True)
    said = "the log names no step: its rows were counted, and a window is one of rows"
    assert warnings(logged, [2]) == [said]


def test_one_row_that_names_no_step_is_enough_to_say_so(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"grad_norm": 3}\n{"step": 2, "grad_norm": 5}\n')
    assert series(path) == ("grad_norm", [1, 2], [3.0, 5.0], 0, True)


def test_a_run_that_comes_back_to_an_earlier_epoch(tmp_path):
    epochs = [(0, 1, 3), (0, 2, 5), (1, 1, 9), (1, 2, 9), (1, 1, 1), (1, 2, 1), (2, 1, 7)]
    path = write_csv(tmp_path / "log.csv", ["epoch", "step", "grad_norm"], *epochs)
    assert series(path)[1:4] == ([1, 2, 3, 4, 5], [*NORMS, 7.0], 2)
    again = [*epochs, (0, 2, 4), (1, 1, 2), (1, 2, 2)]
    path = write_csv(tmp_path / "log.csv", ["epoch", "step", "grad_norm"], *again)
    assert series(path)[1:3] == ([1, 2, 3, 4], [3, 4, 2, 2])


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085"])
def test_a_line_ends_at_a_newline_alone(tmp_path, sign):
    path = tmp_path / "log.jsonl"
    rows = [{"step": step, "text": f"a{sign}b", "grad_norm": step} for step in (1, 2)]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text, encoding="utf-8")
    assert series(path)[:3] == ("grad_norm", [1, 2], [1.0, 2.0])
    path.write_text(f"step,text,grad_norm\n1,a{sign}b,3\n2,c,4\n", encoding="utf-8")
    assert series(path)[:3] == ("grad_norm", [1, 2], [3.0, 4.0])


@pytest.mark.parametrize(
    "text",
    [
        '{"step": 1, "grad_norm": 3}\n{"step": 2, "grad_norm": 5}\n{"step": 3, "grad_n',
        "step,grad_norm,loss\n1,3,0.1\n2,5,0.1\n3,1",
        '{"step": 1, "grad_norm": 3}\n{"step": 2, "grad_norm": 5}\n\0\0\0\0',  # lost power
        '{"step": 1, "grad_norm": 3}\n{"step": 2, "grad_norm": 5}\n{"step": 3, "grad_n\r\n',
    ],
)
def test_a_last_line_that_a_kill_has_cut_off(tmp_path, text):
    path = tmp_path / "log"
    path.write_text(text)
    assert series(path)[:3] == ("grad_norm", [1, 2], [3.0, 5.0])


def test_a_last_line_that_is_short_but_whole_counts(tmp_path):
    path = tmp_path / "log"
    path.write_text("step,grad_norm,loss\n1,3,0.1\n2,5\n")
    assert series(path)[:3] == ("grad_norm", [1, 2], [3.0, 5.0])


def test_a_last_character_that_a_kill_has_cut_off(tmp_path):
    path = tmp_path / "log"
    whole = '{"step": 1, "grad_norm": 3}\r\n{"step": 2, "grad_norm": 5}\r\n{"note": "é'.encode()
    path.write_bytes(whole[:-1])
    assert series(path)[:3] == ("grad_norm", [1, 2], [3.0, 5.0])


def test_a_banner_above_the_rows(tmp_path):
    path = tmp_path / "log"
    path.write_text('== run ==\n{"step": 10, "grad_norm": 3}\n{"step": 20, "grad_norm": 5}\n')
    assert series(path) == ("grad_norm", [10, 20], [3.0, 5.0], 0, False)
    path.write_text("!! run !!\n\nstep,grad_norm\n10,3\n20,5\n")
    assert series(path) == ("grad_norm", [10, 20], [3.0, 5.0], 0, False)
    path.write_text("run 7, seed 1\nstep,grad_norm\n10,3\n20,5\n")
    with pytest.raises(ValueError, match=r"logs no gradient norm, only run 7, seed 1$"):
        series(path)


@pytest.mark.parametrize("word", ["nan", "inf"])
def test_a_step_that_is_not_finite_is_none(tmp_path, word):
    lines = [(word, 10, 3), (word, 20, 5)]
    path = write_csv(tmp_path / "log.csv", ["global_step", "step", "grad_norm"], *lines)
    assert series(path) == ("grad_norm", [10, 20], [3.0, 5.0], 0, False)


BANNER = "=" * 30 + "\n Welcome to the training\n" + "=" * 30 + "\nstep 1 | grad norm 3.0\n"


def test_a_text_log_is_no_table(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(BANNER)
    with pytest.raises(
        ValueError, match=r"train.log: holds no numbers, neither as CSV nor as JSON"
    ):
        series(path)


@pytest.mark.parametrize("kind", ["torch", "tensorflow"])
def test_the_event_files_of_tensorboard(tmp_path, monkeypatch, kind):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    def summary(tag, value):
        if kind == "tensorflow":
            return scalar_pb(tag, value)
        return Summary(value=[Summary.Value(tag=tag, simple_value=value)])

    for run in ("a", "b"):
        writer = EventFileWriter(str(tmp_path / run))
        for step, norm in enumerate(NORMS, start=1):
            for tag, value in (("grad_norm", norm), ("loss", 1.0)):
                writer.add_event(Event(step=step, wall_time=step, summary=summary(tag, value)))
            tensor = make_tensor_proto([norm] * step)  # whose shape is another at each step
            vector = Summary(value=[Summary.Value(tag="vector", tensor=tensor)])
            writer.add_event(Event(step=step, wall_time=step, summary=vector))
        writer.close()
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    assert series(tmp_path / "a") == ("grad_norm", [1, 2, 3, 4], NORMS, 0, False)
    assert series(tmp_path, "b: loss").values == [1.0] * 4
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    with pytest.raises(ValueError, match=r"several columns of gradient norms.*a: grad_norm, b: "):
        series(tmp_path)


def test_what_is_no_log_is_named(tmp_path, log):
    with pytest.raises(ValueError, match=r"no numbers in `nowt`, but in: grad_norm, step"):
        series(log, "nowt")
    path = write_csv(tmp_path / "other.csv", ["step", "loss"], [1, 2])
    with pytest.raises(ValueError, match=r"logs no gradient norm, only loss, step$"):
        series(path)
    (tmp_path / "bad.jsonl").write_text('{"step": 1}\n[1]\n')
    with pytest.raises(ValueError, match=r"bad.jsonl, line 2: must be an object, got \[1\]"):
        rows(tmp_path / "bad.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"step": 1}\n{\n{"step": 2}')
    with pytest.raises(ValueError, match=r"bad.jsonl, line 2: not JSON"):
        rows(tmp_path / "bad.jsonl")
    (tmp_path / "bad.csv").write_bytes(b"\xff\x00\x81")
    with pytest.raises(ValueError, match="neither CSV nor JSON lines"):
        rows(tmp_path / "bad.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no event file of TensorBoard"):
        series(tmp_path / "empty")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters(tmp_path, delimiter):
    path = tmp_path / "log.csv"
    path.write_text(f"step{delimiter}grad_norm\n3{delimiter}2.5\n", encoding="utf-8-sig")
    assert series(path) == ("grad_norm", [3], [2.5], 0, False)


def test_an_array_and_one_indented_document(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps([{"step": 3, "grad_norm": 2.5}], indent=2))
    assert series(path) == ("grad_norm", [3], [2.5], 0, False)
    path.write_text(json.dumps({"step": 3, "grad_norm": 10**400}, indent=2))
    assert series(path) == ("grad_norm", [3], [math.inf], 0, False)


def test_a_log_may_be_gzipped(tmp_path):
    path = write_csv(tmp_path / "log.csv", ["step", "grad_norm"], [1, 3.0], [2, 5.0])
    packed = gzip.compress(path.read_bytes())
    (tmp_path / "log.csv.gz").write_bytes(packed)
    assert series(tmp_path / "log.csv.gz") == ("grad_norm", [1, 2], [3, 5], 0, False)
    (tmp_path / "log.csv.gz").write_bytes(packed[:-9])
    with pytest.raises(ValueError, match=r"log\.csv\.gz: not a sound gzip file"):
        series(tmp_path / "log.csv.gz")


def test_our_own_norm_is_preferred(tmp_path):
    path = write_csv(tmp_path / "log.csv", ["step", "grad_norm", "zenith/grad_norm"], [1, 2, 3])
    assert series(path) == ("zenith/grad_norm", [1], [3.0], 0, False)


def test_of_a_resumed_run_the_later_part_counts(tmp_path):
    lines = [(1, 3.0), (2, 5.0), (3, 9.0), (4, 9.0), (3, 1.0), (4, 1.0)]
    path = write_csv(tmp_path / "log.csv", ["step", "grad_norm"], *lines)
    logged = series(path)
    assert logged == ("grad_norm", [1, 2, 3, 4], NORMS, 2, False)
    assert warnings(logged, [2]) == [
        "the log comes back to earlier steps: 2 norms of what a resumed run has done again are "
        "left out"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("a,b\n", "holds no numbers"),
        ('{"log_history": 3}', "`log_history` must be a list, got 3"),
        ("[1, 2]", "entry 1: must be an object, got 1"),
        ("grad_norm\n" + "1" * 200_000, r"not CSV \(field larger than field limit \(131072\)\)"),
    ],
)
def test_broken_logs(tmp_path, text, message):
    path = tmp_path / "log"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        series(path)
