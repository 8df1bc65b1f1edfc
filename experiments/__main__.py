"""The experiments' command line: `python -m experiments --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import cost, tasks
from experiments.arguments import count, number, rate, share, size, window
from zenith.cli import Parser, guarded

if TYPE_CHECKING:
    from experiments.question import Question

# What to install for a module, where its own name does not say it.
PACKAGES = {"curvlinops": "curvlinops-for-pytorch", "dog": "dog-optimizer"} | dict.fromkeys(
    ("matplotlib", "numpy", "rich", "scipy", "sklearn", "torch"), '".[demo]"'
)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_demo(commands.add_parser("demo", help="ZENITH beside SGD and SGD + cosine, on images"))
    _add_report(commands.add_parser("report", help="tables and pictures from records alone"))
    listing = commands.add_parser("list", help="the tasks, the optimizers, and the paper's tables")
    listing.set_defaults(run=show_list)
    _add_run(commands.add_parser("run", help="train one network by one optimizer with one seed"))
    _add_study(commands.add_parser("study", help="all runs of a table or figure, and its report"))
    _add_scenes(commands.add_parser("scenes", help="write small scenes in COCO's format"))
    _add_check(commands.add_parser("check", help="make a sample of the runs in a folder anew"))
    cost.add_commands(commands)
    return parser.parse_args(argv)


SCALES = ["toy", "desk", "paper"]
_OF_DEMO, _OF_STUDIES = Path("zenith-demo"), Path("zenith-studies")
_RESULTS = Path(__file__).parent / "results"
_STUDIES = f"of records and reports, shared by all studies; by default {_OF_STUDIES}"
_WEIGHTS = "ResNet-50's of ImageNet, for COCO; or none, to begin at random"

Option = tuple[str, Any, str, Any, str]  # name, type, metavar, default, help

_DEMO: list[Option] = [
    ("--data", str, "NAME", "digits", f"{' or '.join(tasks.NAMES)}; by default digits"),
    (
        "--data-dir",
        Path,
        "DIR",
        None,
        f"folder with {tasks.FASHION_MNIST_FILES}; by default {tasks.FASHION_MNIST_DIR}",
    ),
    ("--optimizers", str, "NAME,...", "zenith,sgd,sgd-cosine", "by default zenith,sgd,sgd-cosine"),
    ("--seeds", size, "N", 3, "how many: 0, 1, ..., N - 1; by default 3"),
    ("--out", Path, "DIR", _OF_DEMO, f"by default {_OF_DEMO}"),
]
_RUN: list[Option] = [
    ("--seed", count, "N", 0, "by default 0"),
    ("--l2", number, "X", 0.0, "half of it times ||p||^2 in the loss"),
    ("--hours", rate, "X", None, "of training, at the most"),
    ("--data", Path, "DIR", None, "the files of the task"),
    ("--weights", Path, "FILE", None, _WEIGHTS),
    ("--warm-up", count, "N", 0, "steps in which the rate rises from a thousandth; by default 0"),
]
_BOTH: list[Option] = [
    ("--lr", rate, "X", None, "by default the optimizer's own, often 0.1"),
    ("--window", window, "N", None, "of ZENITH, in steps; by default 500"),
    ("--momentum", share, "X", None, "by default the optimizer's own, often 0"),
    ("--epochs", size, "N", None, "by default the task's own"),
    ("--batch-size", size, "N", None, "images; by default the task's own"),
    ("--log-every", size, "N", None, "steps; by default 10, or in the demo 400 lines a run"),
]


def _add(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    for name, kind, metavar, default, text in [*options, *_BOTH]:
        parser.add_argument(name, type=kind, metavar=metavar, default=default, help=text)
    parser.add_argument(
        "--resume", action="store_true", help="go on with what was cut, from its last evaluation"
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_demo)
    parser.description = (
        "Train a small network with each optimizer, from the same initial weights and on the same "
        "batches, and compare them: a table, records (JSON lines), a summary (JSON) and a picture "
        "(PNG). An earlier demo in the same folder is replaced."
    )
    _add(parser, _DEMO)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_report)
    add = parser.add_argument
    add("folder", type=Path, nargs="?", metavar="DIR", help="by default that of demo, or of study")
    add("--study", metavar="NAME", help="its tables and figures, see `list`; or `all` of them")
    add("--scale", choices=SCALES, default="desk", help="of the study; by default desk")
    add("--seeds", type=size, metavar="N", help="of the study")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_one)
    parser.add_argument("task", metavar="TASK", help=" or ".join(tasks.NAMES))
    parser.add_argument("--optimizer", required=True, metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--amp", action="store_true", help="forward passes in bfloat16")
    _add(parser, _RUN)


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_study)
    parser.description = (
        "Make every run of a study that is not there yet, go on with what was cut, and report."
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="see `list`")
    add("--scale", choices=SCALES, default="desk", help="by default desk")
    add("--tasks", metavar="NAME,...", help="those of them whose data are there; by default all")
    add("--seeds", type=size, metavar="N", help="how many: 0, 1, ..., N - 1; or the study's own")
    add("--jobs", type=size, metavar="N", default=1, help="processes of a thread; by default 1")
    add("--out", type=Path, metavar="DIR", default=_OF_STUDIES, help=_STUDIES)
    add("--data", type=Path, metavar="DIR", help="the files of the tasks")
    add("--weights", type=Path, metavar="FILE", help=_WEIGHTS)
    add("--device", choices=["cpu", "cuda"], default="cpu")


def _add_scenes(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=write_scenes)
    parser.description = (
        "Write small scenes of clothes and digits, with boxes, masks and keypoints in COCO's "
        "format. The tasks scenes-* make their own at their first run, and take others by --data."
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="a new one")
    for name, own in (("--train", tasks.SCENES_TRAIN), ("--val", tasks.SCENES_TEST)):
        add(name, type=size, metavar="N", default=own, help=f"scenes; by default {own}")
    add("--seed", type=count, metavar="N", default=0, help="by default 0")
    files = f"folder with {tasks.FASHION_MNIST_FILES}; by default {tasks.FASHION_MNIST_DIR}"
    add("--data-dir", type=Path, metavar="DIR", help=files)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run_check)
    parser.description = (
        "Make some of the runs in a folder anew, and compare: on the same machine the records are "
        "the same, and on another the accuracy is within the spread of the seeds."
    )
    add = parser.add_argument
    add("folder", type=Path, nargs="?", metavar="DIR", default=_RESULTS, help="by default ours")
    add("--sample", type=size, metavar="N", default=5, help="how many; by default 5")
    add("--seed", type=count, metavar="N", default=0, help="of the choice; by default 0")
    add("--jobs", type=size, metavar="N", default=1, help="processes of a thread; by default 1")
    add("--data", type=Path, metavar="DIR", help="the files of the tasks")
    add("--weights", type=Path, metavar="FILE", help=_WEIGHTS)


def run_demo(options: argparse.Namespace) -> int:
    """Compare ZENITH with SGD."""
    from experiments import demo

    return demo.run(options)


def run_report(options: argparse.Namespace) -> None:
    """Report on what records there are."""
    if not options.study:
        from experiments.report import report_all

        report_all(options.folder or _OF_DEMO)
        return
    from experiments import study

    asked = options.scale, options.folder or _OF_STUDIES, options.seeds
    if options.study == "all":
        study.reports(*asked)
    else:
        study.report(options.study, *asked)


def run_study(options: argparse.Namespace) -> int:
    """Make the runs of a study, and report."""
    from experiments import study

    if options.name == "table1":
        sizes = ["--batch", "2", "--width", "0.05", "--repetitions", "1", "--iterations", "1"]
        toy = sizes if options.scale == "toy" else []
        own = ["--device", options.device, "--out", str(options.out / "table1")]
        return main(["cost", "overhead", *toy, *own])
    return study.run(options)


def write_scenes(options: argparse.Namespace) -> None:
    """Write scenes."""
    from experiments.tasks import scenes

    own = options.train, options.val, options.seed
    print(f"scenes are in {scenes.write(options.folder, options.data_dir, *own)}")


def run_check(options: argparse.Namespace) -> int:
    """Make a sample of runs anew."""
    from experiments import check

    return check.run(options)


def show_list(_options: argparse.Namespace) -> None:
    """Print what there is."""
    from experiments.listing import listing

    print(listing(PACKAGES))


def run_one(options: argparse.Namespace) -> None:
    """Train one run, or go on with it; a line for each evaluation."""
    from experiments import parallel
    from experiments.optimizers import recipe
    from experiments.run import Run, checked_device
    from experiments.train import train

    chosen = {name: getattr(options, name) for name in ("lr", "window", "momentum")}
    given = {name: value for name, value in chosen.items() if value is not None}
    given = recipe(options.optimizer, given).chosen(given)  # before the data are loaded
    device = checked_device(options.device)
    task = tasks.load(
        options.task, options.data, options.epochs, options.batch_size, options.weights
    )
    question = _question(options, given)
    with parallel.joined(device) as own:
        for _, record in train(task, [Run(task, question, own)], options.out, options.resume):
            if record["kind"] != "step" and parallel.leads():
                print(", ".join(f"{name} {value}" for name, value in record.items()), flush=True)


def _question(options: argparse.Namespace, given: dict[str, Any]) -> "Question":
    from experiments.question import Question

    return Question(
        options.optimizer,
        options.seed,
        given,
        options.l2,
        options.hours,
        options.log_every or 10,
        options.epochs,
        options.batch_size,
        options.warm_up,
        options.amp,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command says; return the exit code.

    Returns:
        0 when all went well, 2 after a mistake that stderr names in one line, 130 after Ctrl-C.
    """

    def work() -> int:
        options = arguments(argv)
        return options.run(options) or 0

    return guarded("experiments", work, PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
