"""What one optimizer step costs in torch: SGD, ZENITH, clipping, and the norm alone.

All step the same parameters with the same gradients, and are compared with plain fused SGD. Within
a repetition each first makes a few steps that are not timed; its time is the median of those that
are.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import SGD

from experiments.cost.cases import Document, full, table, variants
from experiments.cost.paired import interleaved
from experiments.cost.timed import machine, maker, milliseconds, stamp
from zenith.torch import Zenith
from zenith.torch._norm import norm_or_number, partial_norms

__all__ = ["LR", "Subject", "Variant", "filled", "measure", "subject", "table", "timed"]

LR = 1e-9  # so small that the parameters stay where they are
LONG = 15_000
STEPS = {"vgg19": (3, 1), "small": (50, 10)}  # in a repetition: timed, and before them


class Variant(NamedTuple):
    """One thing to time: what to run, what it is compared with, what to put right after it."""

    name: str
    baseline: str
    run: Callable[[], Any]
    restore: Callable[[], object] = lambda: None


class Subject(NamedTuple):
    """The tensors that all variants share."""

    params: list[Tensor]
    originals: list[Tensor]  # copies of the gradients

    @property
    def grads(self) -> list[Tensor]:
        """The gradients as they are now."""
        return [param.grad for param in self.params if param.grad is not None]

    def restore(self) -> None:
        """Undo what clipping did to the gradients."""
        torch._foreach_copy_(self.grads, self.originals)

    def norm(self) -> object:
        """Take ZENITH's norm of all gradients together."""
        return norm_or_number(partial_norms(self.grads))


def subject(shapes: Sequence[Sequence[int]], device: str = "cpu") -> Subject:
    """Return parameters of these shapes with gradients, both random and the same in every run."""
    generator = torch.Generator().manual_seed(0)
    params = []
    for shape in shapes:
        param = torch.randn(*shape, generator=generator).to(device).requires_grad_()
        param.grad = torch.randn(*shape, generator=generator).to(device)
        params.append(param)
    return Subject(params, [param.grad.clone() for param in params])  # type: ignore[union-attr]


def filled(params: list[Tensor], **options: Any) -> Zenith:
    """Return ZENITH with a full window."""
    optimizer = Zenith(params, lr=LR, **options)
    optimizer.zenith_state = full(optimizer.window)
    return optimizer


def optimizers(sub: Subject) -> Iterator[Variant]:
    """SGD and ZENITH: fused and default form, with and without momentum, two windows."""
    for momentum, suffix in ((0.0, ""), (0.9, ", momentum")):
        for form, fused in (("fused", True), ("default", None)):
            sgd = SGD(sub.params, lr=LR, momentum=momentum, fused=fused)
            own = filled(sub.params, momentum=momentum, fused=fused)
            yield Variant(f"SGD {form}{suffix}", f"SGD fused{suffix}", sgd.step)
            yield Variant(f"ZENITH {form}{suffix}", f"SGD fused{suffix}", own.step)
        own = filled(sub.params, window=LONG, momentum=momentum, fused=True)
        yield Variant(f"ZENITH fused{suffix}, window {LONG:,}", f"SGD fused{suffix}", own.step)


def clippers(sub: Subject) -> Iterator[Variant]:
    """Clipping, once where it cuts every gradient in half and once where it cuts nothing."""
    sgd, told = SGD(sub.params, lr=LR, fused=True), filled(sub.params, fused=True)
    norm = float(get_total_norm(sub.originals))
    for what, largest in (("cutting", 0.5 * norm), ("idle", 2.0 * norm)):
        clip = partial(clip_grad_norm_, sub.params, largest)
        own = filled(sub.params, max_grad_norm=largest, fused=True)
        runs: dict[str, Callable[[], Any]] = {
            "clip_grad_norm_ + SGD fused": partial(_clip_then_step, clip, sgd),
            "clip_grad_norm_ + ZENITH fused(grad_norm=)": partial(_clip_then_tell, clip, told),
            "ZENITH fused(max_grad_norm=)": own.step,
        }
        for name, run in runs.items():
            yield Variant(f"{name}, {what}", "SGD fused", run, sub.restore)


def _clip_then_step(clip: Callable[[], Tensor], optimizer: SGD) -> None:
    clip()
    optimizer.step()


def _clip_then_tell(clip: Callable[[], Tensor], optimizer: Zenith) -> None:
    optimizer.step(grad_norm=clip())


def norms(sub: Subject) -> Iterator[Variant]:
    """The global norm alone: ZENITH's and torch's."""
    yield Variant("ZENITH's norm alone", "SGD fused", sub.norm)
    yield Variant("get_total_norm alone", "SGD fused", lambda: get_total_norm(sub.grads))


def timed(variant: Variant, steps: int, before: int, device: torch.device) -> Callable[[], float]:
    """Return what measures the median milliseconds of some steps, after some `before` them."""

    def once() -> tuple[Any, Any]:
        start = stamp(device)
        variant.run()
        stamps = start, stamp(device)
        variant.restore()
        return stamps

    def run() -> float:
        stamps = [once() for _ in range(before + steps)][before:]
        return statistics.median(milliseconds(*pair) for pair in stamps)

    return run


def measure(options: Any) -> Document:
    """Return the milliseconds of every variant for each of the networks."""
    return {
        "made": machine(options),
        "cases": {n: _case(n, options.repetitions, options.device) for n in options.models},
    }


def _case(name: str, repetitions: int, device: str) -> Document:
    sub = subject([param.shape for param in maker(name)().parameters()], device)
    all_of_them = [*optimizers(sub), *clippers(sub), *norms(sub)]
    runs = {v.name: timed(v, *STEPS[name], torch.device(device)) for v in all_of_them}
    samples = interleaved(runs, repetitions)
    return {
        "parameters": sum(param.numel() for param in sub.params),
        "tensors": len(sub.params),
        "variants": variants(samples, {v.name: v.baseline for v in all_of_them}),
    }
