"""Draw the pictures of the documentation from records: `python docs/pictures/make.py`.

`rate.png` is a run on Fashion-MNIST; `how.png` shows the first run of `zenith demo` on the digits
at four moments. Both are ZENITH with seed 0.
"""

from pathlib import Path

from matplotlib.figure import Figure

from zenith.plot import plot
from zenith.records import rows

HERE = Path(__file__).parent
MOMENTS = {
    "1. the window fills": 0.11,
    "2. the zenith": 0.2,
    "3. the norm falls": 0.5,
    "4. it settles": 1.0,
}


def rate() -> None:
    """The norm and the rate of the whole run."""
    figure = plot(HERE.parent / "fashion-mnist" / "records.jsonl")
    figure.savefig(HERE / "rate.png", dpi=110)


def how() -> None:
    """The same run as far as it had come at four moments."""
    seen = rows(HERE / "digits.jsonl")
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    panels = figure.subplots(2, len(MOMENTS), sharex=True, sharey="row")
    for column, (title, part) in zip(panels.T, MOMENTS.items(), strict=True):
        plot(seen[: max(2, int(part * len(seen)))], axes=tuple(column))
        column[0].set(title=title, xlim=(0, seen[-1]["step"]))
        if column is not panels.T[0]:
            for axes in column:
                axes.set_ylabel("")
                axes.get_legend().remove()
    figure.savefig(HERE / "how.png", dpi=110)


if __name__ == "__main__":
    rate()
    how()
