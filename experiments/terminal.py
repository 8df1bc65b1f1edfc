"""What passes between a run and a person: a console, the progress, Ctrl-C."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["console", "interruptible", "progress", "say"]

WIDTH = 200  # where there is no terminal to ask
PAUSE = 10.0  # seconds from one line to the next, where there is no bar


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
    print("experiments:", message, file=sys.stderr, flush=True)


@contextmanager
def progress(total: int) -> Iterator[Callable[[int, str, bool], None]]:
    """Yield a function that shows how far a run of `total` steps has come, and what it is at.

    In a terminal it moves a bar. In a pipe, or a CI's log, it prints a line every ten seconds at
    the most, and in any case where its last argument says so.
    """
    if not (sys.stdout.isatty() and sys.stderr.isatty()) or os.environ.get("CI"):
        yield _lines(total)
        return
    with _bar() as bar:
        task = bar.add_task("training", total=total)
        yield lambda done, text, _: bar.update(task, completed=done, description=text)


def _lines(total: int) -> Callable[[int, str, bool], None]:
    began = said = time.monotonic()

    def show(done: int, text: str, due: bool) -> None:
        nonlocal said
        now = time.monotonic()
        if due or now - said >= PAUSE:
            said = now
            left = (now - began) * (total - done) / done / 60 if done else 0
            say(f"{text}, {done} of {total} steps" + (f", {left:.0f} min left" if left > 1 else ""))

    return show


def _bar() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    # Few refreshes: the thread that draws takes its time from the steps that are measured.
    return Progress(
        *columns, TimeRemainingColumn(), console=console(sys.stderr), refresh_per_second=2
    )


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
