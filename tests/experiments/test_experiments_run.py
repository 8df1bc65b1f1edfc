"""One run: its records, and that a run which is killed and resumed ends with the same."""

import gzip
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from experiments.__main__ import main
from experiments.errors import UserError
from experiments.optimizers import OPTIMIZERS
from experiments.question import Question
from experiments.records import Journal, read, rounded
from experiments.run import Run
from experiments.tasks import load
from experiments.train import train

WINDOW = {"window": 3}
ROOT = Path(__file__).resolve().parents[2]


def arguments(optimizer, out, *more):
    sizes = ["--epochs", "3", "--batch-size", "64", "--log-every", "4"]
    return ["run", "digits", "--optimizer", optimizer, "--out", str(out), *sizes, *more]


def timeless(path):
    """The lines of a file, the times and the machine left out."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "made")} for line in lines]


@pytest.fixture(scope="module")
def digits():
    return load("digits", epochs=2, batch=64)


def test_sgd_is_the_plain_loop_bit_for_bit(tmp_path, digits):
    run = Run(digits, Question("sgd", seed=3, options={"momentum": 0.9}))
    records = [record for _, record in train(digits, [run], tmp_path)]

    torch.manual_seed(3)
    model = digits.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses, norms = [], []
    for segment in range(2):
        for images, labels in digits.batches(3, segment):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))
            optimizer.step()
            losses.append(loss.item())
    for ours, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    steps = [record for record in records if record["kind"] == "step"]
    assert [step["loss"] for step in steps] == [rounded(loss) for loss in losses]
    assert [step["grad_norm"] for step in steps] == [rounded(norm) for norm in norms]
    others = [record["kind"] for record in records if record["kind"] != "step"]
    assert others == ["eval", "eval", "end"]


def test_the_lines_of_zenith_follow_the_core(tmp_path, digits):
    import zenith

    run = Run(digits, Question("zenith", options={"window": 3}))
    records = [record for _, record in train(digits, [run], tmp_path)]
    state = zenith.init(window=3)
    for record in records:
        if record["kind"] == "step":
            state = zenith.update(state, record["grad_norm"])
            assert record["lr"] == pytest.approx(0.1 * state.scale, rel=1e-5)
            assert record["mean"] == pytest.approx(state.mean, rel=1e-5)


def test_runs_in_step_are_the_runs_alone(tmp_path, digits):
    questions = [Question(name, log_every=5) for name in ("zenith", "gen", "sgd-cosine")]
    together = [Run(digits, question) for question in questions]
    list(train(digits, together, tmp_path / "together"))
    for question in questions:
        list(train(digits, [Run(digits, question)], tmp_path / "alone"))
        path = question.path("digits")
        assert timeless(tmp_path / "alone" / path) == timeless(tmp_path / "together" / path)


def test_the_rate_in_force_is_that_of_the_step(tmp_path, digits):
    run = Run(digits, Question("sgd-cosine"))
    records = [record for _, record in train(digits, [run], tmp_path)]
    rates = [record["lr"] for record in records if record["kind"] == "step"]
    steps = 2 * digits.steps
    cosine = [0.05 * (1 + math.cos(math.pi * t / steps)) for t in range(steps)]
    assert rates == pytest.approx(cosine, rel=1e-5)


@pytest.mark.parametrize("name", ["sgd", "sgd-cosine", "zenith"])
def test_a_warm_up_lets_the_users_own_rate_rise(name, tmp_path, digits):
    run = Run(digits, Question(name, options=WINDOW if name == "zenith" else {}, warm_up=10))
    records = [record for _, record in train(digits, [run], tmp_path)]
    lines = [record for record in records if record["kind"] == "step"]
    steps = 2 * digits.steps
    rise = [min(1, 1e-3 + (1 - 1e-3) * t / 10) for t in range(steps)]  # from a thousandth
    whole = {
        "sgd": [1.0] * steps,
        "sgd-cosine": [0.5 * (1 + math.cos(math.pi * t / steps)) for t in range(steps)],
        "zenith": [line.get("scale") for line in lines],
    }
    expected = [0.1 * up * own for up, own in zip(rise, whole[name], strict=True)]
    assert [line["lr"] for line in lines] == pytest.approx(expected, rel=1e-5)
    assert run.header()["warm_up"] == 10


def test_a_warm_up_needs_a_rate(digits):
    with pytest.raises(
        UserError,
        match=r"^`--warm-up` must be of an optimizer with a rate for a scheduler to set, got gen$",
    ):
        Run(digits, Question("gen", warm_up=10))


class Listed:
    """A task whose batches are lists of examples, and whose segments end after 2, 3, 5, 6 steps."""

    def __init__(self, task):
        self.task, self.ends, self.steps, self.epochs, self.segments = task, (2, 3), 1.5, 0.5, 4

    def __getattr__(self, name):
        return getattr(self.task, name)

    def batches(self, seed, segment):
        epoch, part = divmod(segment, 2)
        whole = list(islice(self.task.batches(seed, epoch), 3))
        for images, labels in whole[:2] if part == 0 else whole[2:]:
            yield [(image, {"label": label}) for image, label in zip(images, labels, strict=True)]

    def loss(self, model, batch):
        images = torch.stack([image for image, _ in batch])
        labels = torch.stack([target["label"] for _, target in batch])
        return self.task.loss(model, (images, labels))


def test_batches_of_examples_and_segments_of_several_lengths(tmp_path, digits):
    task, question = Listed(digits), Question("signal-halves", log_every=4)
    records = [r for _, r in train(task, [Run(task, question)], tmp_path)]
    assert [r["step"] for r in records if r["kind"] == "step"] == [2, 3, 4, 5, 6]
    evaluated = [r for r in records if r["kind"] == "eval"]
    assert [r["step"] for r in evaluated] == [2, 3, 5, 6]
    assert [r["epoch"] for r in evaluated] == pytest.approx([2 / 3, 1, 5 / 3, 2], rel=1e-5)
    # the same steps as those of tensors with an entry for each example
    plain = Run(digits, question)
    for segment in (0, 1):
        for batch in islice(digits.batches(0, segment), 3):
            plain.step(batch)
    listed = Run(task, question)
    list(train(task, [listed], tmp_path / "again"))
    for ours, theirs in zip(listed.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_schedule_free_is_tested_at_its_average(digits):
    run = Run(digits, Question("schedule-free"))
    for batch in digits.batches(0, 0):
        run.step(batch)
    trained = [p.clone() for p in run.model.parameters()]
    at_the_average = run.finish_segment()["test_accuracy"]
    for before, after in zip(trained, run.model.parameters(), strict=True):
        torch.testing.assert_close(after, before)  # the way there and back is rounded
    assert digits.evaluate(run.model)["test_accuracy"] != at_the_average


def test_l2_is_half_the_squared_norm_in_the_loss(digits):
    plain, heavy = (Run(digits, Question("sgd", l2=l2)) for l2 in (0.0, 0.5))
    batch = next(digits.batches(0, 0))
    before = sum(float(p.detach().square().sum()) for p in plain.model.parameters())
    heavy.step(batch)
    plain.step(batch)
    assert heavy._losses[0].item() == pytest.approx(plain._losses[0].item(), rel=1e-5)
    gap = heavy.closure(backward=False).item() - 0.25 * sum(
        float(p.detach().square().sum()) for p in heavy.model.parameters()
    )
    assert gap == pytest.approx(digits.loss(heavy.model, batch).item(), rel=1e-5)
    moved = [
        0.1 * 0.5 * p.detach()  # what the penalty adds to a step
        for p in Run(digits, Question("sgd")).model.parameters()
    ]
    for ours, theirs, extra in zip(
        heavy.model.parameters(), plain.model.parameters(), moved, strict=True
    ):
        torch.testing.assert_close(ours, theirs - extra)
    assert before > 1


def test_a_run_that_diverges_ends_and_says_so(tmp_path, capsys):
    assert main(arguments("sgd", tmp_path, "--lr", "1e30")) == 0
    found = read(next(tmp_path.rglob("seed-0.jsonl")))
    assert found.outcome == "diverged"
    assert found.steps[-1]["loss"] is None
    assert main(arguments("sgd", tmp_path, "--lr", "1e30", "--resume")) == 0  # nothing to do
    assert "diverged" in capsys.readouterr().out


def test_a_path_names_the_options_that_were_chosen():
    question = Question("zenith", seed=2, options={"lr": 0.05, "window": 50}, l2=1e-4)
    assert question.path("digits") == Path("digits/zenith,lr=0.05,window=50,l2=0.0001/seed-2.jsonl")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--window", "5"], "`--window` is no option of sgd, which takes --lr, --momentum"),
        (
            ["--data", "/nowhere"],
            "the digits come with scikit-learn and take no folder, got /nowhere",
        ),
        (["--batch-size", "5000"], "`--batch-size` must be at most 1347, all images, got 5000"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, capsys, more, complaint):
    assert main(arguments("sgd", tmp_path, *more)) == 2
    assert capsys.readouterr().err == f"experiments: error: {complaint}\n"
    assert not list(tmp_path.rglob("*.jsonl"))


def test_unknown_names(tmp_path, capsys):
    assert main(arguments("adam", tmp_path)) == 2
    assert "`optimizer` must be one of sgd, pal" in capsys.readouterr().err
    assert main(["run", "cifar", "--optimizer", "sgd", "--out", str(tmp_path)]) == 2
    assert "`task` must be one of digits, fashion-mnist, desk-a, " in capsys.readouterr().err


def test_what_is_there_is_not_written_over(tmp_path, capsys):
    assert main(arguments("sgd", tmp_path)) == 0
    path = next(tmp_path.rglob("seed-0.jsonl"))
    before = path.read_bytes()
    assert main(arguments("sgd", tmp_path)) == 2
    assert "is there: --resume goes on with it" in capsys.readouterr().err
    assert main([*arguments("sgd", tmp_path, "--resume"), "--log-every", "5"]) == 2
    assert "`log_every` 4, asked for 5" in capsys.readouterr().err
    assert main(arguments("sgd", tmp_path, "--resume")) == 0
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["seed-0.jsonl"]


def test_records_are_read_gzipped_and_without_what_a_kill_has_cut_off(tmp_path, digits):
    journal = (
        Journal(tmp_path / "seed-0.jsonl", Run(digits, Question("sgd")).header()).open().begin()
    )
    step = {"kind": "step", "step": 1, "loss": 1 / 3, "lr": 0.1, "seconds": 1.0, "grad_norm": 2.0}
    journal.write(step)
    journal.close()
    cut = journal.path.read_bytes() + b'{"kind": "ste'
    (tmp_path / "seed-1.jsonl.gz").write_bytes(gzip.compress(cut))
    found = read(tmp_path / "seed-1.jsonl.gz")
    assert found.header["task"] == "digits"
    assert found.steps == [step | {"loss": 0.333333}]
    assert found.outcome is None


def test_a_checkpoint_without_its_records_or_in_pieces(tmp_path, digits):
    question = Question("sgd", log_every=20)
    path = tmp_path / question.path("digits")
    checkpoint = path.with_suffix(".pt")
    for record in train(digits, [Run(digits, question)], tmp_path):
        if record[1]["kind"] == "step" and checkpoint.exists():
            break  # in the second segment
    saved = checkpoint.read_bytes()
    checkpoint.write_bytes(saved[:1000])
    with pytest.raises(UserError, match="not a sound checkpoint; remove it to begin anew"):
        list(train(digits, [Run(digits, question)], tmp_path, resume=True))
    path.unlink()
    checkpoint.write_bytes(saved)
    list(train(digits, [Run(digits, question)], tmp_path, resume=True))
    list(train(digits, [Run(digits, question)], tmp_path / "whole"))
    assert timeless(path) == timeless(tmp_path / "whole" / question.path("digits"))


def test_a_gzipped_run_is_finished_and_may_not_be_there_twice(tmp_path, digits):
    question = Question("sgd", log_every=20)
    path = tmp_path / question.path("digits")
    list(train(digits, [Run(digits, question)], tmp_path))
    gzipped = path.with_suffix(".jsonl.gz")
    gzipped.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UserError, match=f"{gzipped} is there beside {path}: remove one"):
        list(train(digits, [Run(digits, question)], tmp_path, resume=True))
    path.unlink()
    assert list(train(digits, [Run(digits, question)], tmp_path, resume=True)) == []
    with pytest.raises(UserError, match=f"{gzipped} is there: --resume"):
        list(train(digits, [Run(digits, question)], tmp_path))
    lines = gzip.decompress(gzipped.read_bytes()).splitlines(keepends=True)
    gzipped.write_bytes(gzip.compress(b"".join(lines[:-1])))
    with pytest.raises(UserError, match="gunzip it to go on"):
        list(train(digits, [Run(digits, question)], tmp_path, resume=True))
    assert not path.exists()
    path.with_suffix(".pt").write_bytes(b"left")  # a checkpoint beside it changes nothing
    with pytest.raises(UserError, match="gunzip it to go on"):
        list(train(digits, [Run(digits, question)], tmp_path, resume=True))
    assert not path.exists()


def test_a_run_that_was_killed_in_its_first_line_begins_anew(tmp_path, digits):
    question = Question("sgd", log_every=20)
    path = tmp_path / question.path("digits")
    path.parent.mkdir(parents=True)
    path.write_text('{"kind":"run","for')
    list(train(digits, [Run(digits, question)], tmp_path, resume=True))
    assert read(path).outcome == "finished"


def test_a_line_of_which_a_part_is_written_gets_its_rest(tmp_path):
    class Narrow:
        """A file that takes seven bytes at once."""

        def __init__(self, file):
            self.file = file

        def write(self, line):
            return self.file.write(line[:7])

        def close(self):
            self.file.close()

    journal = Journal(tmp_path / "seed-0.jsonl", {}).open()
    journal._file = Narrow(journal._file)
    journal.begin().write({"kind": "end", "outcome": "finished", "step": 5})
    journal.close()
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert lines == [
        {"kind": "run", "format": 1},
        {"kind": "end", "outcome": "finished", "step": 5},
    ]


def test_a_run_whose_hours_are_spent_says_that_it_was_stopped(tmp_path, digits):
    question = Question("sgd", hours=1e-9, log_every=20)
    assert question.name == "sgd,hours=1e-09"
    list(train(digits, [Run(digits, question)], tmp_path))
    found = read(tmp_path / question.path("digits"))
    assert (found.outcome, len(found.evals)) == ("stopped", 1)
    assert (found.header["hours"], Question.of(found.header)) == (1e-9, question)


@pytest.mark.parametrize(("threads", "clock"), [(1, "process_time"), (2, "perf_counter")])
def test_one_thread_is_timed_by_its_own_clock(threads, clock, digits, monkeypatch):
    ticks = iter(range(0, 1000, 7))
    monkeypatch.setattr(f"time.{clock}", lambda: next(ticks))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    run = Run(digits, Question("sgd"))
    for batch in islice(digits.batches(0, 0), 3):
        run.step(batch)
    assert run.seconds == 21  # a tick as a step begins, and one as it ends


def test_a_finished_run_is_kept_where_it_has_the_probes_and_more(tmp_path, digits):
    asked = [Question("sgd", log_every=20, probes=probes) for probes in (("line",), (), ("noise",))]
    list(train(digits, [Run(digits, asked[0])], tmp_path))
    assert list(train(digits, [Run(digits, asked[1])], tmp_path, resume=True)) == []
    with pytest.raises(UserError, match="finished without all probes of noise"):
        list(train(digits, [Run(digits, asked[2])], tmp_path, resume=True))


def test_a_run_that_is_under_way_goes_on_with_its_own_probes_alone(tmp_path, digits):
    begun, more = (Question("sgd", log_every=20, probes=p) for p in ((), ("average",)))
    cut = iter(range(digits.steps + 3))  # in the second segment
    list(train(digits, [Run(digits, begun)], tmp_path, stopped=lambda: next(cut, None) is None))
    path = tmp_path / begun.path("digits")
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{path}: begun with other probes: none"):
        list(train(digits, [Run(digits, more)], tmp_path, resume=True))
    assert path.read_bytes() == before
    list(train(digits, [Run(digits, begun)], tmp_path, resume=True))
    assert read(path).outcome == "finished"


def test_a_pass_without_the_gradient_leaves_batch_norm_as_it_was(digits):
    class Normed:
        def __getattr__(self, name):
            return getattr(digits, name)

        def network(self):
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64))

        def loss(self, model, batch):
            return model(batch[0]).square().mean()

    run = Run(Normed(), Question("sgd"))
    run._batch = next(digits.batches(0, 0))
    before = [buffer.clone() for buffer in run.model.buffers()]
    run.closure(backward=False)
    assert all(map(torch.equal, run.model.buffers(), before))
    run.closure()
    assert not torch.equal(run.model[1].running_var, before[1])


def test_two_processes_do_not_write_one_file(tmp_path):
    first = Journal(tmp_path / "seed-0.jsonl", {}).open().begin()
    before = first.path.read_bytes()
    with pytest.raises(UserError, match=r"seed-0\.jsonl: another process is writing it"):
        Journal(first.path, {}).open().begin()
    assert first.path.read_bytes() == before
    first.close()
    Journal(first.path, {}).open().begin().close()


def test_a_full_disk_is_one_line(tmp_path):
    path = tmp_path / "seed-0.jsonl"
    path.symlink_to("/dev/full")
    journal = Journal(path, {}).open()
    with pytest.raises(UserError, match=r"cannot be written \(No space left"):
        journal.begin()
    journal.close()


# Killed as a process; every optimizer is stopped and resumed. By hand: KILLED_RUNS="dowg l4 gen".
STATEFUL = os.environ.get("KILLED_RUNS", "zenith schedule-free sgd-plateau").split()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_records(name, tmp_path, digits):
    momentum = {"momentum": 0.9} if "momentum" in OPTIMIZERS[name].options else {}
    question = Question(name, options=momentum, log_every=7)
    list(train(digits, [Run(digits, question)], tmp_path / "whole"))
    cut = iter(range(digits.steps + 3))  # in the second segment
    list(
        train(
            digits,
            [Run(digits, question)],
            tmp_path / "cut",
            stopped=lambda: next(cut, None) is None,
        )
    )
    path = question.path("digits")
    diverged = read(tmp_path / "whole" / path).outcome == "diverged"  # LQA and GeN, at once
    assert (tmp_path / "cut" / path).with_suffix(".pt").exists() != diverged
    list(train(digits, [Run(digits, question)], tmp_path / "cut", resume=True))
    assert timeless(tmp_path / "cut" / path) == timeless(tmp_path / "whole" / path)
    assert not (tmp_path / "cut" / path).with_suffix(".pt").exists()


@pytest.mark.parametrize("name", STATEFUL)
def test_a_run_that_is_killed_twice_ends_with_the_same_records(name, tmp_path):
    momentum = ["--momentum", "0.9"] if "momentum" in OPTIMIZERS[name].options else []
    command = [sys.executable, "-m", "experiments"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    whole, cut = (arguments(name, tmp_path / out, *momentum) for out in ("whole", "cut"))
    subprocess.run([*command, *whole], env=environment, check=True, capture_output=True)
    (finished,) = (tmp_path / "whole").rglob("seed-0.jsonl")
    partial = tmp_path / "cut" / finished.relative_to(tmp_path / "whole")
    moment = random.Random(name)
    for most in (0.5, 0.9):  # of the file: in the first run, and then in one that was resumed
        process = subprocess.Popen(
            [*command, *cut, "--resume"], env=environment, stdout=subprocess.DEVNULL
        )
        size = moment.uniform(0, most) * finished.stat().st_size
        while process.poll() is None and not (partial.exists() and partial.stat().st_size > size):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, *cut, "--resume"], env=environment, check=True, capture_output=True)
    assert timeless(partial) == timeless(finished)
    assert read(partial).outcome == read(finished).outcome is not None
