"""What the machine is, as the system tells it."""

import platform
from pathlib import Path

from experiments.machine import processor


def test_the_processor_is_told_by_its_model():
    told = processor()
    assert told.split()[0] == platform.machine()
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            assert f" {value.strip()}" in told
