"""Table 1: what an iteration costs with every optimizer, side by side.

Each optimizer has a network of its own, with the same first weights, and the same batch of random
images. One repetition runs them all, in an order drawn anew, and each is compared with SGD in the
*same* repetition. What is printed is the median of those paired figures with their quartiles.
"""

import itertools
import json
import platform
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.quartiles import quartiles, ratios, spread
from experiments.optimizers import OPTIMIZERS
from experiments.run import Question, Run
from experiments.tasks.networks import vgg19

__all__ = ["measure", "table"]

_READS = {"aten::_local_scalar_dense", "aten::equal", "aten::nonzero"}


@dataclass(frozen=True)
class Constant:
    """VGG-19 on one batch of noise, over and over: a `Task` of 10,000 steps without evaluation."""

    batch: tuple[Tensor, Tensor]
    width: float
    name: str = "vgg19"
    steps: int = 10_000
    segments: int = 1
    epochs: float = 1.0
    threads: int | None = None

    def network(self) -> nn.Module:
        """Return VGG-19."""
        return vgg19(self.width)

    def batches(self, seed: int, segment: int) -> Iterator[Any]:
        """Yield the batch."""
        return itertools.repeat(self.batch, self.steps)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the cross-entropy."""
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure nothing."""
        return {}

    def described(self) -> dict[str, Any]:
        """Return the size of the batch."""
        return {"batch": len(self.batch[1])}


class Subject(Run):
    """A run that also knows how long its closures took."""

    def __init__(self, task: Constant, name: str, device: str = "cpu") -> None:
        # So small a rate that no optimizer diverges on noise.
        options = {"lr": 1e-4} if "lr" in OPTIMIZERS[name].takes() else {}
        super().__init__(task, Question(name, options=options, log_every=task.steps), device)
        self.forwards = 0
        self.inside: list[tuple[Any, Any]] = []  # when a closure began and ended

    def closure(self, backward: bool = True) -> Tensor:
        """Return the loss, as a run does, and stamp it."""
        start = _stamp(self.device)
        loss = super().closure(backward)
        self.forwards += 1
        self.inside.append((start, _stamp(self.device)))
        return loss

    def iterate(self) -> None:
        """One iteration of training."""
        self.step(self.task.batch)  # type: ignore[attr-defined]

    def timed(self, iterations: int) -> tuple[float, float]:
        """Return milliseconds for each iteration, and how many of them are the optimizer's own."""
        self.inside.clear()
        start = _stamp(self.device)
        for _ in range(iterations):
            self.iterate()
        whole = _milliseconds(start, _stamp(self.device))
        own = whole - sum(_milliseconds(*stamps) for stamps in self.inside)
        return whole / iterations, own / iterations


class Reads(TorchDispatchMode):
    """Counts the operators that read the device's memory back to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.name in _READS
        return func(*args, **(kwargs or {}))


def measure(
    names: Sequence[str], batch: int, repetitions: int, iterations: int, device: str, width: float
) -> dict[str, Any]:
    """Return every figure as a document that `json` can write."""
    images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(batch, device=device) % 10
    task = Constant((images, labels), width)
    subjects = {name: Subject(task, name, device) for name in names}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    draw = random.Random(0)
    for repetition in range(repetitions + 1):  # the first warms up, and is thrown away
        for name in draw.sample(list(names), len(names)):
            found = subjects[name].timed(iterations)
            if repetition:
                samples[name].append(found)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": batch,
        "iterations": iterations,
        "parameters": sum(p.numel() for p in subjects[names[0]].model.parameters()),
        "optimizers": {
            name: {
                "milliseconds": [whole for whole, _ in samples[name]],
                "step milliseconds": [own for _, own in samples[name]],
                **observed(subjects[name]),
            }
            for name in names
        },
    }


def observed(subject: Subject, iterations: int = 8) -> dict[str, float]:
    """Memory, forward passes and reads of the device, over some more iterations."""
    subject.forwards = 0
    with Reads() as reads:
        for _ in range(iterations):
            subject.iterate()
    params = list(subject.model.parameters())
    model = sum(p.numel() * p.element_size() for p in params)
    return {
        "memory": state_bytes(subject.optimizer, params) / model,
        "forwards": subject.forwards / iterations,
        "reads": reads.count / iterations,
    }


def state_bytes(optimizer: Any, params: Iterable[Tensor]) -> int:
    """The bytes of all tensors that an optimizer keeps, its parameters and gradients aside."""
    seen = {t.untyped_storage().data_ptr() for p in params for t in (p, p.grad) if t is not None}
    total = 0
    for tensor in _tensors([dict(optimizer.state), optimizer.param_groups, vars(optimizer)]):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
    return total


def _tensors(tree: Any) -> Iterable[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)


def _stamp(device: torch.device) -> Any:
    """The present moment, in the time of the device."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _milliseconds(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return 1e3 * (end - start)
    end.synchronize()
    return float(start.elapsed_time(end))


def extra(document: dict[str, Any], name: str) -> dict[str, float]:
    """The quartiles of the time of an optimizer's iteration over SGD's of its repetition, in %."""
    own, sgd = (document["optimizers"][n]["milliseconds"] for n in (name, "sgd"))
    return quartiles([100 * (ours / theirs - 1) for ours, theirs in zip(own, sgd, strict=True)])


def in_the_step(document: dict[str, Any], name: str) -> float:
    """The time of an optimizer's step over SGD's, in % of SGD's iteration: medians.

    It leaves out forward and backward, whose time is the same for all but wanders.
    """
    own, sgd = (document["optimizers"][n]["step milliseconds"] for n in (name, "sgd"))
    over = quartiles([ours - theirs for ours, theirs in zip(own, sgd, strict=True)])["median"]
    return 100 * over / quartiles(document["optimizers"]["sgd"]["milliseconds"])["median"]


def ratio(document: dict[str, Any], name: str) -> dict[str, float]:
    """The quartiles of an optimizer's step over SGD's of its repetition."""
    own, sgd = (document["optimizers"][n]["step milliseconds"] for n in (name, "sgd"))
    return ratios(own, sgd)


def table(document: dict[str, Any]) -> str:
    """The document as a table in Markdown, beside the paper's."""
    head = (
        "| optimizer | ms / iteration | extra % | of that, in the step | paper: extra % |"
        " step / SGD's step | memory, models | paper: memory | forward passes | device reads |"
    )
    lines = [head, "|---|" + "--:|" * 9]
    for name, own in document["optimizers"].items():
        paper = OPTIMIZERS[name].paper
        cells = [
            OPTIMIZERS[name].label,
            f"{quartiles(own['milliseconds'])['median']:.1f}",
            spread(extra(document, name), 1) if name != "sgd" else "0",
            f"{in_the_step(document, name):.2f}" if name != "sgd" else "0",
            f"{paper.extra:.1f}" if paper else "",
            spread(ratio(document, name), 2) if name != "sgd" else "1",
            f"{own['memory']:.2f}",
            f"{paper.memory}" if paper else "",
            f"{own['forwards']:.2g}",
            f"{own['reads']:.3g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(document: dict[str, Any], folder: Path) -> None:
    """Write the figures, the table and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "overhead.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "overhead.md").write_text(table(document) + "\n")
    draw(document, folder / "overhead.png")


def draw(document: dict[str, Any], path: Path) -> None:
    """The extra time of each optimizer, ours and the paper's, as bars."""
    from matplotlib import pyplot as plt

    names = [name for name in document["optimizers"] if name != "sgd"]
    figures = [extra(document, name) for name in names]
    medians = [f["median"] for f in figures]
    errors = [
        [f["median"] - f["q1"] for f in figures],
        [f["q3"] - f["median"] for f in figures],
    ]
    papers = [OPTIMIZERS[name].paper for name in names]
    size = (12, 0.35 * len(names) + 1.2)
    fig, (axes, steps) = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    rows = range(len(names))
    axes.barh([r - 0.2 for r in rows], medians, 0.4, xerr=errors, label="measured here")
    axes.barh([r + 0.2 for r in rows], [p.extra if p else 0 for p in papers], 0.4, label="paper")
    axes.set_yticks(list(rows), [OPTIMIZERS[name].label for name in names])
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlabel(f"extra time per iteration over SGD, % (VGG-19, batch {document['batch']})")
    axes.legend()
    steps.barh(list(rows), [ratio(document, name)["median"] for name in names], 0.4)
    steps.set_xlabel("the optimizer's own step, in steps of SGD")
    fig.savefig(path, dpi=120)
    plt.close(fig)
