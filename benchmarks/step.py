"""What one optimizer step costs: `python -m benchmarks.step`.

Every variant steps the same parameters with the same gradients. One repetition runs them all, in
an order drawn anew, and each is compared with plain fused SGD of the *same* repetition. What is
printed is the median over the repetitions of those paired figures, with their quartiles, so that a
machine whose speed wanders moves both sides alike. Within a repetition a variant first makes a few
steps that are not timed; its time is the median of the steps that are.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import SGD, Optimizer

import zenith
from benchmarks.quartiles import quartiles, ratios, spread
from zenith.torch import Zenith
from zenith.torch._norm import norm_or_number, partial_norms

LR = 1e-9  # so small that the parameters stay where they are
WINDOWS = (500, 15_000)
STATE_TARGET = "4 * window + 64"


@dataclass(frozen=True)
class Model:
    """The shapes of a model's parameters, and how long to look at it."""

    shapes: list[tuple[int, ...]]
    steps: int  # timed in each repetition
    warm_up: int  # not timed, before them
    targets: dict[str, str]  # of issue 2, by the name of a variant


@dataclass(frozen=True)
class Variant:
    """One thing to time: what to run, what it is compared with, what to put right after it."""

    name: str
    baseline: str
    run: Callable[[], object]
    restore: Callable[[], object] | None = None


@dataclass(frozen=True)
class Subject:
    """The tensors that all variants share."""

    params: list[Tensor]
    norm: float  # of all gradients together
    originals: list[Tensor]  # copies of the gradients

    @property
    def grads(self) -> list[Tensor]:
        """The gradients as they are now."""
        return [param.grad for param in self.params if param.grad is not None]

    def restore(self) -> None:
        """Undo what clipping did to the gradients."""
        torch._foreach_copy_(self.grads, self.originals)


def vgg19() -> list[tuple[int, ...]]:
    """VGG-19 without batch norm, as for CIFAR-10: 16 convolutions and one linear layer."""
    shapes: list[tuple[int, ...]] = []
    channels = 3
    for width, layers in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(layers):
            shapes += [(width, channels, 3, 3), (width,)]
            channels = width
    return [*shapes, (10, 512), (10,)]


MODELS = {
    "vgg19": Model(
        vgg19(),
        steps=3,
        warm_up=1,
        targets={"Zenith fused": "<= 1.55x", "Zenith fused, momentum": "<= 1.4x"},
    ),
    "small": Model(
        [(100, 100), (100,)] * 10,
        steps=50,
        warm_up=10,
        targets=dict.fromkeys(
            ["Zenith fused", "Zenith fused, momentum", "Zenith default"], "<= 80 us over"
        ),
    ),
}


# --- the variants


def subject(shapes: Sequence[tuple[int, ...]], device: torch.device) -> Subject:
    """Return parameters of these shapes with gradients, both random and the same in every run."""
    generator = torch.Generator().manual_seed(0)
    params = []
    for shape in shapes:
        param = torch.randn(shape, generator=generator).to(device).requires_grad_()
        param.grad = torch.randn(shape, generator=generator).to(device)
        params.append(param)
    originals = [param.grad.clone() for param in params if param.grad is not None]
    return Subject(params, float(norm_or_number(partial_norms(originals))), originals)


def filled(optimizer: Zenith, norm: float) -> Zenith:
    """Carry a state with a full window over, so that what is timed is the schedule at work."""
    window = optimizer.window
    optimizer.zenith_state = zenith.ZenithState(
        [norm] * window, count=window, mean=norm, zenith=2.0 * norm, scale=0.5, skipped=0
    )
    return optimizer


def optimizers(sub: Subject) -> Iterator[Variant]:
    """SGD and Zenith: fused and default form, with and without momentum, two windows."""
    for momentum, suffix in ((0.0, ""), (0.9, ", momentum")):
        baseline = f"SGD fused{suffix}"
        for form, fused in (("fused", True), ("default", None)):
            sgd = SGD(sub.params, lr=LR, momentum=momentum, fused=fused)
            yield Variant(f"SGD {form}{suffix}", baseline, sgd.step)
            own = Zenith(sub.params, lr=LR, momentum=momentum, fused=fused)
            yield Variant(f"Zenith {form}{suffix}", baseline, filled(own, sub.norm).step)
        own = Zenith(sub.params, lr=LR, window=WINDOWS[1], momentum=momentum, fused=True)
        name = f"Zenith fused{suffix}, window {WINDOWS[1]:,}"
        yield Variant(name, baseline, filled(own, sub.norm).step)


def clippers(sub: Subject) -> Iterator[Variant]:
    """Clipping, once where it cuts every gradient in half and once where it cuts nothing."""
    for what, factor in (("cutting", 0.5), ("idle", 2.0)):
        max_norm = factor * sub.norm
        sgd = SGD(sub.params, lr=LR, fused=True)
        given = filled(Zenith(sub.params, lr=LR, fused=True), sub.norm)
        own = Zenith(sub.params, lr=LR, max_grad_norm=max_norm, fused=True)
        runs = {
            "clip_grad_norm_ + SGD fused": _clip_then(sub, max_norm, sgd),
            "clip_grad_norm_ + Zenith fused(grad_norm=)": _clip_then_tell(sub, max_norm, given),
            "Zenith fused(max_grad_norm=)": filled(own, sub.norm).step,
        }
        for name, run in runs.items():
            yield Variant(f"{name}, {what}", "SGD fused", run, sub.restore)


def norms(sub: Subject) -> Iterator[Variant]:
    """The global norm alone: Zenith's and torch's."""

    def own() -> object:
        return norm_or_number(partial_norms(sub.grads))

    yield Variant("zenith norm alone", "SGD fused", own)
    yield Variant("torch get_total_norm alone", "SGD fused", lambda: get_total_norm(sub.grads))


def _clip_then(sub: Subject, max_norm: float, sgd: SGD) -> Callable[[], None]:
    def run() -> None:
        clip_grad_norm_(sub.params, max_norm)
        sgd.step()

    return run


def _clip_then_tell(sub: Subject, max_norm: float, own: Zenith) -> Callable[[], None]:
    def run() -> None:
        own.step(grad_norm=clip_grad_norm_(sub.params, max_norm))

    return run


# --- the measurement


def measure(
    model: Model, variants: Sequence[Variant], repetitions: int, device: torch.device
) -> dict[str, list[float]]:
    """Return microseconds a step: one number for each variant and repetition."""
    timed = _timed_on_cuda if device.type == "cuda" else _timed_on_cpu
    samples: dict[str, list[float]] = {variant.name: [] for variant in variants}
    draw = random.Random(0)
    for repetition in range(repetitions + 1):  # the first is thrown away
        for variant in draw.sample(variants, len(variants)):
            timed(variant, model.warm_up)
            seconds = timed(variant, model.steps)
            if repetition:
                samples[variant.name].append(1e6 * statistics.median(seconds))
    return samples


def _timed_on_cpu(variant: Variant, steps: int) -> list[float]:
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        variant.run()
        seconds.append(time.perf_counter() - start)
        if variant.restore is not None:
            variant.restore()
    return seconds


def _timed_on_cuda(variant: Variant, steps: int) -> list[float]:
    pairs = []
    for _ in range(steps):
        start, end = _cuda_event(), _cuda_event()
        start.record()
        variant.run()
        end.record()
        pairs.append((start, end))
        if variant.restore is not None:
            variant.restore()
    torch.cuda.synchronize()
    return [1e-3 * start.elapsed_time(end) for start, end in pairs]


def _cuda_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def row(variant: Variant, samples: dict[str, list[float]], target: str) -> dict[str, Any]:
    """One line of the table: the time, and its paired comparison with the baseline."""
    own = samples[variant.name]
    baseline = samples[variant.baseline]
    return {
        "name": variant.name,
        "baseline": variant.baseline,
        "microseconds": quartiles(own),
        "ratio": ratios(own, baseline),
        "over_microseconds": quartiles([a - b for a, b in zip(own, baseline, strict=True)]),
        "target": target,
    }


# --- memory


def state_bytes(optimizer: Optimizer) -> int:
    """The bytes of every tensor in `optimizer.state_dict()`."""
    return _tensor_bytes(optimizer.state_dict())


def _tensor_bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_tensor_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_tensor_bytes, value))
    return 0


def extra_state(sub: Subject, window: int) -> dict[str, Any]:
    """What Zenith keeps beyond SGD's own state, after a step of each."""
    kept = []
    for optimizer in (
        SGD(sub.params, lr=LR, momentum=0.9),
        Zenith(sub.params, lr=LR, window=window, momentum=0.9),
    ):
        optimizer.step()
        kept.append(state_bytes(optimizer))
    target = 4 * window + 64
    return {"window": window, "bytes": kept[1] - kept[0], "target": target}


# --- the report


def report(name: str, repetitions: int, device: torch.device) -> dict[str, Any]:
    """Measure one model."""
    model = MODELS[name]
    sub = subject(model.shapes, device)
    variants = [*optimizers(sub), *clippers(sub), *norms(sub)]
    samples = measure(model, variants, repetitions, device)
    return {
        "parameters": sum(param.numel() for param in sub.params),
        "tensors": len(sub.params),
        "steps_per_repetition": model.steps,
        "rows": [row(v, samples, model.targets.get(v.name, "")) for v in variants],
        "state": [extra_state(sub, window) for window in WINDOWS],
    }


def table(name: str, result: dict[str, Any]) -> str:
    """The report of one model as text."""
    milliseconds = result["rows"][0]["microseconds"]["median"] >= 1000
    unit, divisor = ("ms", 1000.0) if milliseconds else ("us", 1.0)
    lines = [
        f"{name}: {result['parameters']:,} parameters in {result['tensors']} tensors",
        f"{'':52}{unit:>9}  {'ratio to SGD fused':>20}  {'us over it':>24}  target",
    ]
    for line in result["rows"]:
        median = line["microseconds"]["median"] / divisor
        ratio, over = spread(line["ratio"], 2), spread(line["over_microseconds"], 0)
        text = f"{line['name']:<52}{median:>9.2f}  {ratio:>20}  {over:>24}  {line['target']}"
        lines.append(text.rstrip())
    lines.append(f"bytes of optimizer state beyond SGD's own (target: {STATE_TARGET})")
    for state in result["state"]:
        text = f"window {state['window']:,}"
        lines.append(f"{text:<52}{state['bytes']:>9,}  (target: {state['target']:,})")
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repetitions", type=_positive, default=30, metavar="N")
    parser.add_argument("--models", type=_models, default=list(MODELS), metavar=",".join(MODELS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--threads",
        type=_positive,
        default=torch.get_num_threads(),
        metavar="N",
        help="of the CPU; with 1, other programs on the machine disturb far less",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def _models(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in MODELS]:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(MODELS)}, got {unknown[0]!r}")
    return names


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print one table for each model, and write the figures where that was asked for."""
    options = arguments(argv)
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    processor = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    document: dict[str, Any] = {
        "torch": str(torch.__version__),
        "device": options.device,
        "processor": processor,
        "threads": options.threads,
        "repetitions": options.repetitions,
        "models": {},
    }
    print(
        f"torch {document['torch']} on {device} ({processor}), {document['threads']} threads; "
        f"medians of {options.repetitions} paired repetitions [quartiles]"
    )
    for name in options.models:
        result = report(name, options.repetitions, device)
        document["models"][name] = result
        print(f"\n{table(name, result)}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
