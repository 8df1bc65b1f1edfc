"""Draw the pictures of the documentation from records: `python docs/pictures/make.py`.

Both show ZENITH with seed 0 in `python -m experiments demo`, on the handwritten digits: `rate.png`
the whole run, `how.png` as far as it had come at four moments.
"""

import gzip
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from zenith.plot import plot

HERE = Path(__file__).parent
RECORDS = HERE.parent / "digits" / "zenith" / "seed-0.jsonl.gz"
MOMENTS = {
    "1. the window fills": 0.11,
    "2. the zenith": 0.2,
    "3. the norm falls": 0.5,
    "4. it settles": 1.0,
}


def steps() -> list[dict[str, Any]]:
    """What was logged of the steps."""
    with gzip.open(RECORDS, "rt") as file:
        return [record for record in map(json.loads, file) if record["kind"] == "step"]


def rate() -> None:
    """The norm and the rate of the whole run."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    plot(steps(), axes=tuple(figure.subplots(1, 2, sharex=True)))
    figure.axes[0].set_xlabel("step")
    figure.savefig(HERE / "rate.png", dpi=110)


def how() -> None:
    """The same run as far as it had come at four moments."""
    seen = steps()
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    panels = figure.subplots(2, len(MOMENTS), sharex=True, sharey="row")
    for i, (title, part) in enumerate(MOMENTS.items()):
        column = panels[:, i]
        plot(seen[: max(2, int(part * len(seen)))], axes=tuple(column))
        column[0].set(title=title, xlim=(0, seen[-1]["step"]))
        if i > 0:
            for axes in column:
                axes.set_ylabel("")
                axes.get_legend().remove()
    figure.savefig(HERE / "how.png", dpi=110)


if __name__ == "__main__":
    rate()
    how()
