"""MultiWorkerMirroredStrategy with two worker processes: the scale and weights of one process."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _reference import ROUNDING

SCRIPT = Path(__file__).with_name("_keras_workers.py")


def addresses(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    found = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


def started(*arguments):
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def document(process):
    out, errors = process.communicate(timeout=1800)  # a worker whose fellow died waits for ever
    assert process.returncode == 0, errors[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def workers():
    cluster = addresses(2)
    processes = [started(str(i), *cluster) for i in range(2)]
    try:
        return [document(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_two_workers_have_the_scale_of_one_process(workers):
    alone = document(started())
    for name, wanted in alone.items():
        assert min(wanted["scales"]) < 0.9
        assert workers[0][name] == workers[1][name], "to the last bit"
        found = workers[0][name]
        assert found["scales"] == pytest.approx(wanted["scales"], rel=0, abs=ROUNDING)
        assert found["state"]["count"] == 10
        for ours, theirs in zip(found["weights"], wanted["weights"], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=ROUNDING)
