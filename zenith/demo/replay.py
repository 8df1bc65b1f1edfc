"""What `zenith replay` prints and draws."""

import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zenith.demo.errors import UserError, reason
from zenith.demo.output import replace
from zenith.records import series
from zenith.replay import Replay, replay, warnings

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's
FORMATS = (".png", ".svg", ".pdf")


def show(path: Path, windows: Sequence[int], lr: float, column: str | None, out: Path) -> None:
    """Print a line for each window, the warnings on stderr, and write the picture.

    Raises:
        UserError: naming the path, if the norms cannot be read or the picture cannot be written.
    """
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"`--out` must end in {', '.join(FORMATS)}, got {out}")
    try:
        logged = series(path, column)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from error
    except ValueError as error:
        raise UserError(str(error)) from error
    if not any(0 <= norm < math.inf for norm in logged.values):
        raise UserError(f"{path}: no norm in `{logged.name}` is finite")
    replays = [replay(logged, window) for window in windows]
    try:
        drawn = picture(replays, lr, out.suffix[1:].lower())
    except (ValueError, OverflowError) as error:  # of matplotlib: norms near the largest number
        raise UserError(f"{path}: cannot be drawn ({error})") from error
    replace(out, drawn)
    print(f"{logged.name}: {len(logged.values)} norms, up to step {logged.steps[-1]:g}; lr {lr:g}")
    print(table([replay.summary(lr) for replay in replays]))
    print(f"The picture is {out}")
    for warning in warnings(logged, windows):
        print(f"zenith: warning: {warning}", file=sys.stderr)


def table(summaries: Sequence[dict[str, Any]]) -> str:
    """Return the summaries as columns of text."""
    names = list(summaries[0])
    cells = [names] + [[_text(summary[name]) for name in names] for summary in summaries]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    lines = [
        "  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in cells
    ]
    return "\n".join(lines)


def _text(value: Any) -> str:
    return "never" if value is None else f"{value:.5g}"


def picture(replays: Sequence[Replay], lr: float, form: str) -> bytes:
    """Return the picture of all windows over one another."""
    from matplotlib.figure import Figure

    from zenith.plot import plot

    figure = Figure(figsize=(10, 7), dpi=110, layout="constrained")
    axes = tuple(figure.subplots(2, 1, sharex=True))
    for i, result in enumerate(replays):
        label, color = f"window {result.window}", COLOURS[i % len(COLOURS)]
        plot(result.rows, lr=lr, label=label, color=color, axes=axes)
    file = io.BytesIO()
    figure.savefig(file, format=form)
    return file.getvalue()
