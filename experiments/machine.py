"""What this machine is, as far as the system tells, and what is installed."""

import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["cores", "lacking", "processor"]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@cache
def processor() -> str:
    """The model of the processor, where Linux tells it: by it one machine differs from the next."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().split("\n\n")[0].splitlines() if file.exists() else []
    told = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    names = ("model name", "cpu family", "model", "CPU implementer", "CPU part")
    model = [told[name] for name in names if name in told]
    return " ".join([platform.machine(), *model])


def lacking(modules: Iterable[str]) -> list[str]:
    """Return those of some modules that are not installed.

    Examples:
        >>> lacking(["os", "no_such_module"])
        ['no_such_module']
    """
    return [module for module in modules if find_spec(module) is None]
