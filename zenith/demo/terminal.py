"""What passes between a run and a person: colours, a progress bar, Ctrl-C."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from zenith.demo.records import Record

WIDTH = 120  # where there is no terminal to ask


class _Console(Console):
    """rich's own would end the process with 1 where nobody reads the output any longer."""

    def on_broken_pipe(self) -> None:
        raise  # what is being handled


def console(stream: TextIO) -> Console:
    """Return a console that writes neither colours nor bars unless `stream` is a terminal."""
    # Said outright, because rich also takes FORCE_COLOR and other variables for a terminal.
    terminal = stream.isatty()
    width = None if terminal else WIDTH
    return _Console(
        file=stream, force_terminal=terminal, width=width, highlight=False, markup=False
    )


def say(message: str) -> None:
    """Print one line on stderr."""
    print("zenith:", message, file=sys.stderr)


def track(records: Iterable[Record], seeds: int, steps: int) -> Iterator[Record]:
    """Yield the records of a run as they come, under a progress bar where a person may see it.

    Args:
        records: of a run.
        seeds: how many there will be.
        steps: of each optimizer in the run of each seed.
    """
    watched = sys.stdout.isatty() and sys.stderr.isatty() and not os.environ.get("CI")
    # Few refreshes: the thread that draws takes its time from the steps that are measured.
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console(sys.stderr),
        refresh_per_second=2,
        disable=not watched,
    ) as progress:
        task = progress.add_task("training", total=seeds * steps)
        for record in records:
            if record["kind"] == "step":
                seed, step = record["seed"], record["step"]
                progress.update(
                    task,
                    completed=seed * steps + step,
                    description=f"seed {seed + 1} of {seeds}, loss {record['loss']:.3g}",
                )
            yield record


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed; a second Ctrl-C acts as ever."""
    pressed = threading.Event()
    earlier = signal.getsignal(signal.SIGINT)

    def press(_signal: int, _frame: FrameType | None) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, earlier)

    if earlier is not signal.SIG_IGN:  # as in a shell's background job
        signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, earlier)
