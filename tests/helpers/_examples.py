"""Runs the programs of examples/ as their users do: in a process, and in a folder of their own."""

import re
import subprocess
import sys
from pathlib import Path

from _commands import environment

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RANK = Path(__file__).with_name("_rank.py")  # for a rank that cannot let go of its process group


def example(name, *arguments, cwd, ranks=0, through=()):
    """What the program printed.

    With `ranks`, under torchrun with so many processes; `through` another program that runs it.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*(launcher if ranks else []), *through, EXAMPLES / name, *arguments]
    result = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment(PYTHONWARNINGS="default"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def rates(printed):
    """Every rate in what a program printed."""
    return [float(rate) for rate in re.findall(r"rate (\d\.\d+)", printed)]


def accuracy(printed):
    """The last accuracy, in per cent."""
    return float(re.findall(r"accuracy (\d+\.\d+) %", printed)[-1])
