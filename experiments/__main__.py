"""The experiments' command line: `python -m experiments --help`."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from experiments import overhead, scaling
from experiments.optimizers import OPTIMIZERS

# Where Keras and JAX are measured against what their own libraries have.
BENCHMARKS = {"keras": ("benchmarks.fit", []), "optax": ("benchmarks.jit", ["--rivals"])}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("overhead", help="table 1: what an iteration costs")
    cost.set_defaults(run=run_overhead)
    cost.add_argument("--framework", choices=["torch", *BENCHMARKS], default="torch")
    cost.add_argument("--batch", type=int, default=128, metavar="N", help="128 in the paper")
    cost.add_argument("--repetitions", type=int, default=10, metavar="N")
    cost.add_argument("--out", type=Path, metavar="DIR", help="write JSON, Markdown and picture")
    torch = cost.add_argument_group("of --framework torch")
    torch.add_argument(
        "--iterations",
        type=int,
        default=4,
        metavar="N",
        help="in a repetition; 4 for GeN",
    )
    torch.add_argument("--width", type=float, default=1.0, help="factor on VGG-19's channels")
    torch.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: never run")
    torch.add_argument("--optimizers", nargs="+", choices=list(OPTIMIZERS), metavar="NAME")
    growth = commands.add_parser("scaling", help="a step as parameters, tensors and window grow")
    growth.set_defaults(run=run_scaling)
    growth.add_argument("--repetitions", type=int, default=30, metavar="N")
    growth.add_argument("--largest", type=int, default=10**8, metavar="N", help="case to measure")
    growth.add_argument("--out", type=Path, metavar="DIR", help="write JSON, Markdown and picture")
    return parser.parse_args(argv)


def run_overhead(options: argparse.Namespace) -> None:
    """Measure what an iteration costs with every optimizer."""
    if options.framework != "torch":
        run_benchmark(options)
        return
    names = list(dict.fromkeys(["SGD", *(options.optimizers or OPTIMIZERS)]))
    sizes = (options.batch, options.repetitions, options.iterations)
    document = overhead.measure(names, *sizes, options.device, options.width)
    print(overhead.table(document))
    if options.out is not None:
        overhead.write(document, options.out)


def run_benchmark(options: argparse.Namespace) -> None:
    """Measure in another framework, by the benchmark that the package has for it."""
    module, more = BENCHMARKS[options.framework]
    argv = [*more, "--batch", str(options.batch), "--repetitions", str(options.repetitions)]
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        argv += ["--json", str(options.out / f"overhead-{options.framework}.json")]
    importlib.import_module(module).main(argv)


def run_scaling(options: argparse.Namespace) -> None:
    """Measure what a step costs as the work grows."""
    document = scaling.measured(options.repetitions, options.largest)
    print(scaling.table(document))
    if options.out is not None:
        scaling.write(document, options.out)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the files where that was asked for."""
    options = arguments(argv)
    options.run(options)


if __name__ == "__main__":
    main()
