"""The experiments' command line: `python -m experiments --help`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import tasks
from experiments.arguments import count, number, size
from experiments.errors import UserError

# Where Keras and JAX are measured against what their own libraries have.
BENCHMARKS = {"keras": ("benchmarks.fit", []), "optax": ("benchmarks.jit", ["--rivals"])}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="train one network by one optimizer with one seed"))
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
    torch.add_argument("--optimizers", nargs="+", metavar="NAME")
    growth = commands.add_parser("scaling", help="a step as parameters, tensors and window grow")
    growth.set_defaults(run=run_scaling)
    growth.add_argument("--repetitions", type=int, default=30, metavar="N")
    growth.add_argument("--largest", type=int, default=10**8, metavar="N", help="case to measure")
    growth.add_argument("--out", type=Path, metavar="DIR", help="write JSON, Markdown and picture")
    return parser.parse_args(argv)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_one)
    parser.add_argument("task", metavar="TASK", help=" or ".join(tasks.NAMES))
    parser.add_argument("--optimizer", required=True, metavar="NAME")
    parser.add_argument("--seed", type=count, default=0, metavar="N")
    parser.add_argument("--lr", type=number, metavar="X", help="by default the optimizer's own")
    parser.add_argument("--window", type=size, metavar="N", help="of ZENITH, in steps")
    parser.add_argument("--momentum", type=number, metavar="X")
    parser.add_argument(
        "--l2", type=number, default=0.0, metavar="X", help="half of it times ||p||^2 in the loss"
    )
    parser.add_argument("--epochs", type=size, metavar="N", help="by default the task's own")
    parser.add_argument("--hours", type=number, metavar="X", help="of training, at the most")
    parser.add_argument("--batch-size", type=size, metavar="N")
    parser.add_argument("--log-every", type=size, default=10, metavar="N", help="steps")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the files of the task")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def run_one(options: argparse.Namespace) -> None:
    """Train one run, or go on with it; a line for each evaluation."""
    from experiments.optimizers import recipe
    from experiments.run import Question, Run, checked_device
    from experiments.train import train

    chosen = {name: getattr(options, name) for name in ("lr", "window", "momentum")}
    given = {name: value for name, value in chosen.items() if value is not None}
    recipe(options.optimizer, given)  # before the data are loaded
    device = checked_device(options.device)
    task = tasks.load(options.task, options.data, options.epochs, options.batch_size)
    question = Question(
        options.optimizer, options.seed, given, options.l2, options.hours, options.log_every
    )
    run = Run(task, question, device)
    for _, record in train(task, [run], options.out, options.resume):
        if record["kind"] != "step":
            print(", ".join(f"{name} {value}" for name, value in record.items()), flush=True)


def run_overhead(options: argparse.Namespace) -> None:
    """Measure what an iteration costs with every optimizer."""
    if options.framework != "torch":
        run_benchmark(options)
        return
    from experiments import overhead
    from experiments.optimizers import OPTIMIZERS, recipe

    names = list(dict.fromkeys(["sgd", *(options.optimizers or OPTIMIZERS)]))
    for name in names:
        recipe(name, {})
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
    from experiments import scaling

    document = scaling.measured(options.repetitions, options.largest)
    print(scaling.table(document))
    if options.out is not None:
        scaling.write(document, options.out)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command says; return the exit code.

    Returns:
        0 when all went well, 2 after a mistake that stderr names in one line, 130 after Ctrl-C.
    """
    options = arguments(argv)
    try:
        options.run(options)
    except UserError as error:
        print(f"experiments: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("experiments: interrupted; what is finished is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
