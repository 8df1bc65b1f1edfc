"""How pictures look: their style, a colour for every optimizer, and PNG bytes that repeat."""

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.optimizers import OPTIMIZERS
from experiments.question import parsed

__all__ = ["colour", "dash", "rendered", "shades"]

_STYLE: dict[Any, Any] = {
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
_GREY = "0.5"  # a recipe's colour where none was chosen
# Of tab20, the strong ones first, without what is too like ZENITH's blue and cosine's green.
_PALETTE = [i for i in (*range(0, 20, 2), *range(1, 20, 2)) if i not in (0, 1, 4)]
_DASHES = ("-", "--", "-.", ":")


def rendered(draw: Callable[[], Figure], style: Mapping[Any, Any]) -> bytes:
    """Return the figure that `draw` returns as a PNG, the same bytes for the same figure."""
    # A Figure without pyplot has no global state and no window, and Agg renders it everywhere.
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, **style}):
        file = io.BytesIO()
        draw().savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()


def colour(name: str) -> Any:
    """Return the colour of an optimizer, the same in every picture, as matplotlib has it."""
    slug = parsed(name)[0]
    own = OPTIMIZERS[slug].color
    if own != _GREY:
        return own
    grey = [slug for slug, recipe in OPTIMIZERS.items() if recipe.color == _GREY]
    return mpl.colormaps["tab20"](_PALETTE[grey.index(slug) % len(_PALETTE)])


def dash(name: str, names: Iterable[str]) -> str:
    """Return what tells the lines of one optimizer with several options apart."""
    slug = parsed(name)[0]
    same = [other for other in names if parsed(other)[0] == slug]
    return _DASHES[(_DASHES.index(OPTIMIZERS[slug].dash) + same.index(name)) % len(_DASHES)]


def shades(count: int, colours: str = "viridis") -> list[Any]:
    """Return so many colours, from one end of one of matplotlib's maps to near the other."""
    return [mpl.colormaps[colours](0.9 * i / max(1, count - 1)) for i in range(count)]
