"""Table 1: what an iteration costs with every optimizer, side by side.

Each optimizer has a VGG-19 of its own, with the same first weights, and the same batch of random
images. An iteration is `Run.step`: the passes forward and backward, and the optimizer's own part.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.cost.cases import Document
from experiments.cost.paired import Quartiles, differences, quartiles, ratios, spread
from experiments.cost.timed import Timed, constant, machine, measured
from experiments.markdown import grid
from experiments.optimizers import BLOCKS, OPTIMIZERS, recipe

__all__ = ["draw", "measure", "short", "state_bytes", "table"]

_READS = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero"}
_SHORT = ("zenith", "ali-g", "schedule-free", "dog", "d-adaptation", "prodigy", "cocob")


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own has no types
    """Counts the operators that read the device's memory back to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.name in _READS
        return func(*args, **(kwargs or {}))


def measure(options: Any) -> Document:
    """Return every figure as a document that `json` can write."""
    rows = {name for block in BLOCKS.values() for name, _ in block}
    chosen = options.optimizers or (name for name in OPTIMIZERS if name in rows)
    names = list(dict.fromkeys(["sgd", *chosen]))
    recipes = {name: recipe(name, {}) for name in names}
    made_with, device = machine(options), options.device
    task = constant("vgg19", options.batch, device, options.width)
    runs = {name: Timed(task, name, by, device) for name, by in recipes.items()}
    samples = measured(runs, options.repetitions, options.iterations)
    return {
        "made": made_with,
        "batch": options.batch,
        "iterations": options.iterations,
        "parameters": sum(p.numel() for p in runs["sgd"].model.parameters()),
        "optimizers": {name: samples[name] | observed(runs[name]) for name in names},
    }


def observed(run: Timed, iterations: int = 4) -> dict[str, Any]:
    """Memory, forward passes and reads of the device, over a cycle of GeN."""
    run.inside.clear()
    with Reads() as reads:
        for _ in range(iterations):
            run.step(run.batch)
    params = list(run.model.parameters())
    averaged = run.averager.averaged_model.parameters() if run.averager else []
    kept = state_bytes(run.optimizer, params) + sum(p.nbytes for p in averaged)
    return {
        "memory": kept / sum(p.nbytes for p in params),
        "forwards": len(run.inside) / iterations,
        "reads": reads.count / iterations,
    }


def state_bytes(optimizer: Any, params: Iterable[Tensor]) -> int:
    """The bytes of all tensors that an optimizer keeps, its parameters and gradients aside."""
    known = {t.untyped_storage().data_ptr() for p in params for t in (p, p.grad) if t is not None}
    kept = _tensors([dict(optimizer.state), optimizer.param_groups, vars(optimizer)])
    storages = {s.data_ptr(): s.nbytes() for s in (tensor.untyped_storage() for tensor in kept)}
    return sum(size for place, size in storages.items() if place not in known)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        return iter([tree])
    parts = tree.values() if isinstance(tree, dict) else tree
    return chain.from_iterable(
        map(_tensors, parts if isinstance(tree, dict | list | tuple) else ())
    )


def _times(document: Document, name: str, measure: str) -> tuple[list[float], list[float]]:
    optimizers = document["optimizers"]
    return optimizers[name][measure], optimizers["sgd"][measure]


def extra(document: Document, name: str) -> Quartiles:
    """The time of an optimizer's iteration over SGD's of its repetition, in %."""
    of_sgd = ratios(*_times(document, name, "milliseconds"))
    return {key: 100 * (ratio - 1) for key, ratio in of_sgd.items()}


def in_the_step(document: Document, name: str) -> float:
    """The time of an optimizer's own part over SGD's, in % of SGD's iteration: medians.

    It leaves out forward and backward, whose time is the same for all but wanders.
    """
    over = differences(*_times(document, name, "step milliseconds"))["median"]
    return 100 * over / quartiles(document["optimizers"]["sgd"]["milliseconds"])["median"]


def ratio(document: Document, name: str) -> Quartiles:
    """The time of an optimizer's own part over SGD's of its repetition."""
    return ratios(*_times(document, name, "step milliseconds"))


def table(document: Document) -> str:
    """The document as a table in Markdown, beside the paper's."""
    head = ["optimizer", "ms / iteration", "extra %", "of that, in the step", "paper: extra %"]
    head += ["step / SGD's step", "memory, models", "paper: memory"]
    head += ["forward passes", "device reads"]
    return grid(head, (_row(document, name) for name in document["optimizers"]))


def _row(document: Document, name: str) -> list[str]:
    own, paper, compared = document["optimizers"][name], OPTIMIZERS[name].paper, name != "sgd"
    return [
        OPTIMIZERS[name].label,
        f"{quartiles(own['milliseconds'])['median']:.1f}",
        spread(extra(document, name), 1) if compared else "0",
        f"{in_the_step(document, name):.2f}" if compared else "0",
        f"{paper.extra:.1f}" if paper else "",
        spread(ratio(document, name), 2) if compared else "1",
        f"{own['memory']:.2f}",
        f"{paper.memory}" if paper else "",
        f"{own['forwards']:.2g}",
        f"{own['reads']:.3g}",
    ]


def short(document: Document, names: Iterable[str] = _SHORT) -> str:
    """The table of the README: what a step costs, for some of the optimizers."""
    optimizers = document["optimizers"]
    idle = extra(document, "sgd-cosine")["median"]
    rows = {
        "its step, in steps of SGD": lambda name: f"{ratio(document, name)['median']:#.3g}",
        "that step over SGD's, % of an iteration": lambda n: f"{in_the_step(document, n):.2f}",
        f"whole iterations over SGD's, % (SGD under a cosine: {idle:.1f})": lambda name: (
            f"{extra(document, name)['median']:.1f}"
        ),
        "memory, in models": lambda name: f"{optimizers[name]['memory']:.0f}",
    }
    head = ["", *(OPTIMIZERS[name].label for name in names)]
    return grid(head, ([title, *map(cell, names)] for title, cell in rows.items()))


def draw(document: Document) -> Any:
    """The extra time of each optimizer, ours and the paper's, as bars: a matplotlib figure."""
    from matplotlib.figure import Figure

    names = [name for name in document["optimizers"] if name != "sgd"]
    figures = [extra(document, name) for name in names]
    medians = [f["median"] for f in figures]
    errors = [[f["median"] - f["q1"] for f in figures], [f["q3"] - f["median"] for f in figures]]
    papers = [paper.extra if (paper := OPTIMIZERS[name].paper) else 0 for name in names]
    figure = Figure(figsize=(12, 0.35 * len(names) + 1.2), layout="constrained")
    axes, steps = figure.subplots(1, 2, sharey=True)
    rows = range(len(names))
    axes.barh([r - 0.2 for r in rows], medians, 0.4, xerr=errors, label="measured here")
    axes.barh([r + 0.2 for r in rows], papers, 0.4, label="paper")
    axes.set_yticks(list(rows), [OPTIMIZERS[name].label for name in names])
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlabel(f"extra time per iteration over SGD, % (VGG-19, batch {document['batch']})")
    axes.legend()
    steps.barh(list(rows), [ratio(document, name)["median"] for name in names], 0.4)
    steps.set_xlabel("the optimizer's own step, in steps of SGD")
    return figure
