"""One run of `zenith demo`, from the options to the table."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from zenith.demo import output, own_version
from zenith.demo.data import Data, load
from zenith.demo.model import network
from zenith.demo.records import FORMAT, Record
from zenith.demo.report import report
from zenith.demo.settings import DATA, Plan, Settings, plan
from zenith.demo.terminal import interruptible, say, track
from zenith.demo.train import train

DONE, INTERRUPTED = 0, 130


def run(settings: Settings, data_dir: Path, out: Path) -> int:
    """Train as `settings` says, write the records into `out`, and report on them.

    Args:
        settings: what is asked for.
        data_dir: where the files of Fashion-MNIST are.
        out: the folder to write.

    Returns:
        The exit code: 0, or 130 after Ctrl-C, when what was finished is kept and reported.

    Raises:
        UserError: if the data cannot be read or the folder cannot be written.
    """
    data = load(settings.data, data_dir)
    length = plan(settings, len(data.train_images))
    output.claim(out)
    if "zenith" in settings.optimizers and settings.window > length.steps:
        say(
            f"warning: `--window` {settings.window} is longer than the run of {length.steps} "
            "steps, so ZENITH will be SGD at a constant rate"
        )
    with interruptible() as stopped, threads(DATA[settings.data].threads):
        finished = False
        with output.recording(out) as write:
            write(header(settings, length, data))
            records = train(settings, length, data, stopped)
            for record in track(records, settings.seeds, length.steps):
                write(record)
                finished = finished or record["kind"] == "result"
        if not finished:
            output.discard(out)
            say("interrupted before the first epoch was finished; kept nothing")
            return INTERRUPTED
        output.keep(out)
    report(out)
    if stopped():
        say(f"interrupted; what was finished is kept in {out}")
        return INTERRUPTED
    return DONE


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch compute with so many threads; None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def header(settings: Settings, length: Plan, data: Data) -> Record:
    """Return the first record of a run; `zenith.demo.records` says what is in it."""
    model = network(data.train_images.shape[-1])
    return {
        "kind": "run",
        "format": FORMAT,
        **asdict(settings),
        **length._asdict(),
        "train_images": len(data.train_images),
        "test_images": len(data.test_images),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "zenith-optim": own_version(),
        },
    }
