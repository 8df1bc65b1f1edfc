"""Make `vectors.json`: norms, and what Algorithm 1 makes of them in float64.

    python tests/golden/make.py          # and commit what it writes

Independent of everything in zenith/: the mean is a sum of fractions, rounded once. JSON has no NaN
and no infinity, so that every norm is written as a string that `float` reads.
"""

import json
import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any


def columns(norms: list[float], window: int) -> dict[str, list[Any]]:
    """Return every field of the state but the ring, each as it is after each of the norms."""
    accepted: list[float] = []
    mean = zenith = 0.0
    scale, skipped = 1.0, 0
    found: dict[str, list[Any]] = {n: [] for n in ("count", "mean", "zenith", "scale", "skipped")}
    for norm in norms:
        if not math.isfinite(norm):
            skipped += 1
        else:
            accepted.append(norm)
            if len(accepted) >= window:
                mean = float(sum(map(Fraction, accepted[-window:])) / window)
                zenith = max(zenith, mean)
                scale = mean / zenith if zenith > 0 else 1.0
        now = (len(accepted), mean, zenith, scale, skipped)
        for column, value in zip(found.values(), now, strict=True):
            column.append(value)
    return found


def ring(norms: list[float], window: int) -> list[float]:
    """Return the last `window` accepted norms in buffer order: norm i lies in slot i % window."""
    slots = [0.0] * window
    for i, norm in enumerate(filter(math.isfinite, norms)):
        slots[i % window] = norm
    return slots


def cases() -> dict[str, tuple[int, list[float]]]:
    """Return the window and the norms of every case, all of them exact in float32."""
    draw = random.Random(0)

    def noisy(size: float) -> float:
        return round(1024 * size * draw.lognormvariate(0, 0.5)) / 1024

    fall = [noisy(8 * 0.97**t) for t in range(60)]
    humps = [noisy(2 + math.sin(t / 7)) for t in range(90)]
    bad = {9: math.nan, 10: math.inf, 11: math.nan, 40: -math.inf}
    return {
        "by hand": (2, [3.0, 5.0, 1.0, 1.0, 7.0]),
        "window of one": (1, [4.0, 2.0, 8.0, 1.0]),
        "never full": (9, [1.0, 2.0, 3.0]),
        "all zero": (3, [0.0] * 7),
        "zero, then not": (2, [0.0, 0.0, 0.0, 6.0, 2.0, 0.0, 0.0]),
        "a spike": (4, [1.0] * 6 + [1e8] + [1.0] * 6),
        "falling": (10, fall),
        "up and down": (20, humps),
        "not finite": (5, [bad.get(t, norm) for t, norm in enumerate(fall)]),
        "not finite from the start": (2, [math.inf, math.nan, 2.0, math.nan, 4.0, 1.0]),
    }


def document() -> str:
    """Return the text of the file, with a case on each line."""
    lines = []
    for name, (window, norms) in cases().items():
        case = {"window": window, "norms": [str(norm) for norm in norms]}
        case.update(columns(norms, window), ring=ring(norms, window))
        lines.append(f"{json.dumps(name)}: {json.dumps(case)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    Path(__file__).with_name("vectors.json").write_text(document())
