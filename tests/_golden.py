"""The golden vectors, which `golden/make.py` makes, and how an adapter is held against them."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CASES = json.loads((Path(__file__).parent / "golden" / "vectors.json").read_text())
COLUMNS = ("count", "mean", "zenith", "scale", "skipped")


def norms(case: dict[str, Any]) -> list[float]:
    """The norms of a case, all of them exact in float32."""
    return [float(norm) for norm in case["norms"]]


def assert_golden(case: dict[str, Any], states: Iterable[Any], tolerance: float) -> None:
    """Every field after every norm, and the ring: numbers to a tolerance, counts exactly."""
    states = list(states)
    assert len(states) == len(case["norms"])
    for t, state in enumerate(states):
        for name in COLUMNS:
            found, wanted = float(getattr(state, name)), case[name][t]
            exact = name in ("count", "skipped")
            close = math.isclose(found, wanted, rel_tol=0 if exact else tolerance)
            assert close, f"{name} after norm {t} is {found!r}, not {wanted!r}"
    ring = [float(norm) for norm in states[-1].norms]
    assert ring == case["ring"], "norms that are exact in float32 lie in the ring as they are"
