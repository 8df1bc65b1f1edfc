"""Sharded training under jit, on 8 devices of one process and on those of two processes."""

import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from _reference import ROUNDING

SCRIPT = Path(__file__).with_name("_optax_mesh.py")
LAYOUTS = ("data", "fsdp", "tensor", "fsdp and tensor")


def started(*arguments, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def document(process):
    out, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def one():
    return document(started(devices=8))


@pytest.fixture(scope="module")
def two():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [started(address, "2", str(i), devices=4) for i in range(2)]
    try:
        return [document(process) for process in processes]
    finally:
        for process in processes:
            process.kill()


def assert_like_one_device(run, layout):
    assert min(run["alone"]["scales"]) < 0.8
    assert run[layout]["scales"] == pytest.approx(run["alone"]["scales"], rel=0, abs=ROUNDING)
    assert run[layout]["error"] < ROUNDING
    assert run[layout]["stayed"], "the sharding of parameters and state must stay what it was"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_8_devices_have_the_scale_of_one(one, layout):
    assert one["devices"] == [8, 8]
    assert_like_one_device(one, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_have_the_scale_of_one(two, layout):
    for run in two:
        assert run["devices"] == [8, 4]
        assert_like_one_device(run, layout)
    assert two[0][layout]["scales"] == two[1][layout]["scales"], "to the last bit"


def scalars(collectives):
    """How many numbers the collectives of scalars carry, and how many collectives there are."""
    types = [kind for kind, _ in collectives if "f32[]" in kind]
    return sum(len(re.findall(r"f32\[\]", kind)) for kind in types), len(collectives)


def traffic(collectives):
    """How often each collective is called, and with arrays of which shapes, in any order."""
    shapes = [
        (name, shape) for kind, name in collectives for shape in re.findall(r"\w+\[[\d,]*\]", kind)
    ]
    return Counter(name for _, name in collectives), Counter(shapes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_norm_adds_what_clip_by_global_norm_does(one, layout):
    found = one[layout]["collectives"]
    assert traffic(found["zenith"]) == traffic(found["clip"])
    (more, ours), (none, sgds) = scalars(found["zenith"]), scalars(found["sgd"])
    assert none == 0
    if layout == "data":
        assert (more, ours) == (0, sgds), "of a gradient that every device has whole"
    elif layout in ("fsdp", "tensor"):
        assert more == 3, "a scalar for each sharded array"
        assert ours - sgds in (1, 3), "in one all-reduce, unless an older XLA has not joined them"
