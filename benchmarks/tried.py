"""What was tried to make the step cheaper, and is not in the package: `python -m benchmarks.tried`.

"iteration" is a forward and a backward pass and a step; "step" is the step in it, after passes
that have pushed it out of the caches. Each is compared with fused SGD of the same repetition; what
is printed is the median of the paired ratios, with their quartiles.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from benchmarks.quartiles import quartiles, ratios, spread
from zenith.torch import Zenith
from zenith.torch._norm import norm_of, partial_norms

LR, WINDOW = 1e-6, 20


class Hooked(Zenith):
    """Takes the norm of each gradient as it is accumulated, while it is in the cache.

    It cannot know whether the gradient is changed after that: accumulated, unscaled or clipped.
    """

    def __init__(self, params: Iterable[nn.Parameter], **options: Any) -> None:
        params = list(params)
        super().__init__(params, **options)
        self.norms: dict[nn.Parameter, Tensor] = {}
        for param in params:
            param.register_post_accumulate_grad_hook(self._take)

    def _take(self, param: Tensor) -> None:
        gradient = param.grad.detach()  # type: ignore[union-attr]
        self.norms[param] = norm_of(partial_norms([gradient]))  # type: ignore[index]

    def _measure(self, batches: Any, grad_norm: Any) -> tuple[list[Tensor], list[Tensor]]:
        norms = list(self.norms.values())
        return norms, norms


class Reversed(Zenith):
    """Steps from the last parameter to the first, of whose gradients the cache may hold some."""

    def _descend(self, batch: Any, scale: Any, keep: Any) -> None:
        turned = batch._replace(params=batch.params[::-1], grads=batch.grads[::-1])
        super()._descend(turned, scale, keep)


def compiled(params: Iterable[nn.Parameter], **options: Any) -> Any:
    """Zenith whose step torch.compile has taken apart and fused."""
    optimizer = Zenith(params, **options)
    optimizer.step = torch.compile(optimizer.step)  # type: ignore[method-assign]
    return optimizer


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], Any]] = {
    "SGD": lambda params: SGD(params, lr=LR, fused=True),
    "SGD again": lambda params: SGD(params, lr=LR, fused=True),
    "Zenith": lambda params: Zenith(params, lr=LR, window=WINDOW, fused=True),
    "Zenith, hooks": lambda params: Hooked(params, lr=LR, window=WINDOW, fused=True),
    "Zenith, reversed": lambda params: Reversed(params, lr=LR, window=WINDOW, fused=True),
    "Zenith, compiled": lambda params: compiled(params, lr=LR, window=WINDOW),
}


def small() -> nn.Module:
    """102,010 parameters in 22 tensors."""
    torch.manual_seed(0)
    layers = [layer for _ in range(10) for layer in (nn.Linear(100, 100), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(100, 10))


def large() -> nn.Module:
    """VGG-19 for CIFAR-10."""
    from experiments.tasks.networks import vgg19

    return vgg19()


CASES = {"small": (small, (100,), 10), "vgg19": (large, (3, 32, 32), 1)}  # and iterations together


def measure(
    name: str, names: Sequence[str], batch: int, repetitions: int
) -> dict[str, list[tuple[float, float]]]:
    """Return milliseconds of an iteration and of its step: a pair for each repetition."""
    network, shape, iterations = CASES[name]
    inputs, labels = torch.randn(batch, *shape), torch.arange(batch) % 10
    subjects = {}
    for optimizer in names:
        model = network()
        subjects[optimizer] = (model, OPTIMIZERS[optimizer](model.parameters()))

    def iterate(model: nn.Module, optimizer: Any) -> float:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        start = time.perf_counter()
        optimizer.step()
        return time.perf_counter() - start

    for subject in subjects.values():  # until the window is full
        for _ in range(WINDOW + 1):
            iterate(*subject)
    samples: dict[str, list[tuple[float, float]]] = {optimizer: [] for optimizer in names}
    draw = random.Random(0)
    for _ in range(repetitions):
        for optimizer in draw.sample(list(names), len(names)):
            iterate(*subjects[optimizer])  # not timed
            start = time.perf_counter()
            step = sum(iterate(*subjects[optimizer]) for _ in range(iterations))
            whole = time.perf_counter() - start
            samples[optimizer].append((1e3 * whole / iterations, 1e3 * step / iterations))
    return samples


def table(samples: dict[str, list[tuple[float, float]]]) -> str:
    """The report as text."""
    lines = [f"{'':<20}{'ms':>9}{'step ms':>10}  {'iteration / SGD':>24}  {'step / SGD':>20}"]
    base_wholes, base_steps = zip(*samples["SGD"], strict=True)
    for name, own in samples.items():
        wholes, steps = zip(*own, strict=True)
        iteration = spread(ratios(wholes, base_wholes), 3)
        step = spread(ratios(steps, base_steps), 2)
        whole_ms, step_ms = (quartiles(sample)["median"] for sample in (wholes, steps))
        lines.append(f"{name:<20}{whole_ms:>9.2f}{step_ms:>10.3f}  {iteration:>24}  {step:>20}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tried", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", choices=list(CASES), default="small")
    parser.add_argument("--batch", type=int, default=32, metavar="N")
    parser.add_argument("--repetitions", type=int, default=40, metavar="N")
    parser.add_argument("--optimizers", nargs="+", choices=list(OPTIMIZERS), metavar="NAME")
    options = parser.parse_args(argv)
    names = list(dict.fromkeys(["SGD", *(options.optimizers or OPTIMIZERS)]))
    print(table(measure(options.model, names, options.batch, options.repetitions)))


if __name__ == "__main__":
    main()
