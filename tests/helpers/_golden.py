"""The golden vectors, which `golden/make.py` makes, and how an adapter is held against them."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zenith

CASES = json.loads((Path(__file__).parents[1] / "golden" / "vectors.json").read_text())
COLUMNS = ("count", "mean", "zenith", "scale", "skipped")


def norms(case: dict[str, Any]) -> list[float]:
    """The norms of a case, all of them exact in float32."""
    return [float(norm) for norm in case["norms"]]


def assert_golden(case: dict[str, Any], states: Iterable[Any], tolerance: float) -> None:
    """Every field after every norm, and the ring: numbers to a tolerance, counts exactly.

    Args:
        case: one of `CASES`.
        states: the state of any framework after each of the norms; read as it comes.
        tolerance: relative.
    """
    documents = [zenith.to_dict(state) for state in states]
    assert len(documents) == len(case["norms"])
    for t, document in enumerate(documents):
        for name in COLUMNS:
            found, wanted = document[name], case[name][t]
            exact = name in ("count", "skipped")
            close = math.isclose(found, wanted, rel_tol=0 if exact else tolerance)
            assert close, f"{name} after norm {t} is {found!r}, not {wanted!r}"
    ring = documents[-1]["norms"]
    assert ring == case["ring"], "norms that are exact in float32 lie in the ring as they are"
