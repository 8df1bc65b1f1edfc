"""Accelerate on two processes of torchrun: the steps of one process, its own checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _reference import ROUNDING
from _trainers import CUT, plain_loop, zenith

import zenith as package

SCRIPT = Path(__file__).with_name("_trainers_accelerate.py")


def launched(folder, *arguments):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    source = str(Path(package.__file__).parents[1])
    result = subprocess.run(
        [*launch, str(SCRIPT), str(folder), *arguments],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": source,
            "ACCELERATE_USE_CPU": "true",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    runs = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert runs[0] == runs[1], "ranks must agree to the last bit"
    assert runs[0]["ranks"] == 2
    return runs[0]


def test_two_processes_take_the_steps_of_one_and_resume(tmp_path):
    rates, weights = plain_loop(zenith)
    whole = launched(tmp_path)
    assert min(whole["rates"]) < 0.08
    assert whole["rates"] == pytest.approx(rates, rel=ROUNDING)
    for ours, theirs in zip(whole["weights"], weights, strict=True):
        torch.testing.assert_close(torch.tensor(ours), theirs, rtol=1e-4, atol=1e-5)
    resumed = launched(tmp_path, "--resume")
    assert resumed["rates"] == whole["rates"][CUT:], "to the last bit"
    assert resumed["weights"] == whole["weights"]
