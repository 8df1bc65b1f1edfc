"""The programs for plain torch and torchrun, at toy length."""

import pytest
from _examples import RANK, accuracy, example, rates

SHORT = ["--epochs", "4", "--window", "40"]  # of 42 or 43 steps an epoch


def test_a_loop_logs_every_step_and_draws_it(tmp_path):
    printed = example("torch_loop.py", *SHORT, "--out", tmp_path, cwd=tmp_path)
    header, *rows = (tmp_path / "torch_loop.csv").read_text().splitlines()
    last = dict(zip(header.split(","), rows[-1].split(","), strict=True))
    assert int(last["step"]) == len(rows) == int(last["count"]) == 4 * 43
    assert float(last["lr"]) == pytest.approx(0.1 * float(last["mean"]) / float(last["zenith"]))
    assert rates(printed)[-1] == pytest.approx(float(last["lr"]), abs=5e-5)
    assert rates(printed)[-1] < 0.1
    assert accuracy(printed) > 60
    assert (tmp_path / "torch_loop.png").read_bytes().startswith(b"\x89PNG")


def test_clipping_traps_and_does_not(tmp_path):
    printed = example("torch_clipping.py", cwd=tmp_path)  # as its docstring says
    trap, told, left, without = rates(printed)
    assert trap == 0.1
    assert told == pytest.approx(left, abs=2e-4)
    assert without < told < 0.08


def test_two_ranks_have_the_rate_of_one(tmp_path):
    two, one = (example("torch_ddp.py", *SHORT, cwd=tmp_path, ranks=ranks) for ranks in (2, 1))
    assert rates(two) == rates(one)
    assert len(rates(two)) == 4
    assert rates(two)[-1] < 0.1


def test_fsdp2_resumes(tmp_path):
    arguments = ["--checkpoint", "saved", "--epochs", "2", "--window", "40"]
    printed = "".join(
        example("torch_fsdp2.py", *arguments, cwd=tmp_path, ranks=ranks, through=[RANK])
        for ranks in (2, 1)
    )
    lines = [line.split(",")[0] for line in printed.splitlines()]
    assert lines == [f"epoch {epoch}: {42 * epoch} norms" for epoch in (1, 2, 3, 4)]
    assert rates(printed)[0] == 0.1
    assert 0 < rates(printed)[3] < rates(printed)[1] < 0.1
