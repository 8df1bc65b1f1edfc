"""What the tables of cost have in common: networks, and variants with a baseline each."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.cost.paired import differences, quartiles, ratios, spread
from experiments.machine import cores, processor
from experiments.markdown import grid
from experiments.tasks import shapes
from zenith import ZenithState

__all__ = ["NETWORKS", "Document", "full", "made", "table", "variants"]

Document = dict[str, Any]
NETWORKS = {"vgg19": shapes.vgg19(), "small": shapes.small(8)}  # small: the demo's for the digits
_MEASURES = {"milliseconds": "", "step milliseconds": "step: "}


def made(**versions: Any) -> Document:
    """With what a document was made: the machine, and what else there is to say."""
    return {"processor": processor(), "cores": cores(), **versions}


def full(window: int) -> ZenithState:
    """A schedule whose window is full, so that what is timed is the schedule at work."""
    return ZenithState([1.0] * window, window, mean=1.0, zenith=2.0, scale=0.5, skipped=0)


def variants(
    samples: Mapping[str, Sequence[float]], baselines: Mapping[str, str]
) -> dict[str, Document]:
    """The milliseconds of each variant, beside the name of its baseline."""
    return {
        name: {"baseline": baselines[name], "milliseconds": own} for name, own in samples.items()
    }


def table(document: Document) -> str:
    """A table in Markdown for each case."""
    return "\n\n".join(_of_case(name, case) for name, case in document["cases"].items())


def _of_case(name: str, case: Document) -> str:
    first = next(iter(case["variants"].values()))
    measures = {key: prefix for key, prefix in _MEASURES.items() if key in first}
    head = [f"{name}: {case['parameters']:,} parameters"]
    for prefix in measures.values():
        head += [f"{prefix}ms", f"{prefix}ratio", f"{prefix}ms more"]
    rows = [_row(variant, case["variants"], measures) for variant in case["variants"]]
    return grid([*head, "compared with"], rows)


def _row(name: str, others: Document, measures: Iterable[str]) -> list[str]:
    own, baseline = others[name], others[name]["baseline"]
    cells = [name]
    for key in measures:
        pair = own[key], others[baseline][key]
        median = quartiles(own[key])["median"]
        cells.append(f"{median:#.4g}".rstrip("."))
        digits = 3 if median < 100 else 0
        cells += (
            ["", ""]
            if name == baseline
            else [spread(ratios(*pair), 3), spread(differences(*pair), digits)]
        )
    return [*cells, "" if name == baseline else baseline]
