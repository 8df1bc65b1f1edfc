"""Accelerate on two processes of torchrun: the steps of one process, its own checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _examples import RANK
from _reference import ROUNDING
from _trainers import CUT, Network, loader, plain_loop, zenith
from accelerate import Accelerator

import zenith as package

SCRIPT = Path(__file__).with_name("_trainers_accelerate.py")


def launched(folder, *arguments):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    source = str(Path(package.__file__).parents[1])
    result = subprocess.run(
        [*launch, str(RANK), str(SCRIPT), str(folder), *arguments],
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


def test_it_hands_a_norm_on():
    """As docs/clipping.md has it: Accelerate's own optimizer passes no keyword on."""
    accelerator = Accelerator(cpu=True)
    model = Network()
    optimizer, _ = zenith(model.parameters())
    known = {}

    def with_norm(_, args, kwargs):
        return args, {**kwargs, **known}

    optimizer.register_step_pre_hook(with_norm)
    prepared, stepper, data = accelerator.prepare(model, optimizer, loader())
    rates = []
    for batch in data:
        stepper.zero_grad()
        accelerator.backward(prepared(**batch)["loss"])
        known["grad_norm"] = accelerator.clip_grad_norm_(prepared.parameters(), 1e-3)
        stepper.step()
        rates += optimizer.get_last_lr()
    wanted_rates, wanted_weights = plain_loop(lambda p: zenith(p, max_grad_norm=1e-3))
    assert min(rates) < 0.08
    assert rates == pytest.approx(wanted_rates, rel=1e-6)
    weights = [p.detach() for p in model.parameters()]
    torch.testing.assert_close(weights, wanted_weights, rtol=1e-5, atol=1e-6)
