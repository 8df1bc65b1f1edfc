"""What a run was asked for, checked once, before anything is loaded or written."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zenith.demo.errors import UserError

OPTIMIZERS = ("zenith", "sgd", "sgd-cosine")
FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
LINES_PER_RUN = 400  # step records of one optimizer and seed, unless `--log-every` says otherwise
LARGEST_WINDOW = 1_000_000  # far beyond any run here; above it, the ring would just fill the memory


class Defaults(NamedTuple):
    """What suits some data: a run of 3,000 to 5,000 steps, and threads (None: as many as cores).

    A step on a few images of 8 x 8 is so short that a second thread costs more than it brings, and
    many times more on a machine that has something else to do.
    """

    epochs: int
    batch_size: int
    threads: int | None


DATA = {
    "digits": Defaults(epochs=36, batch_size=16, threads=1),
    "fashion-mnist": Defaults(epochs=10, batch_size=128, threads=None),
}


@dataclass(frozen=True)
class Settings:
    """The options of `zenith demo` that decide what is computed.

    Attributes:
        data: a key of `DATA`.
        optimizers: names out of `OPTIMIZERS`, in the order of the table.
        epochs: passes over the training images; None asks for the data's default.
        lr: the learning rate of every optimizer: the constant, the cosine's start, ZENITH's cap.
        window: ZENITH's window, in steps.
        momentum: of every optimizer, in [0, 1).
        seeds: how many seeds; they are 0, 1, ..., seeds - 1.
        batch_size: images in one step; None asks for the data's default.
        log_every: steps from one step record to the next; None asks for about `LINES_PER_RUN`.

    Raises:
        UserError: naming the option, the rule and the value.
    """

    data: str = "digits"
    optimizers: tuple[str, ...] = OPTIMIZERS
    epochs: int | None = None
    lr: float = 0.1
    window: int = 500
    momentum: float = 0.0
    seeds: int = 3
    batch_size: int | None = None
    log_every: int | None = None

    def __post_init__(self) -> None:
        """Check every option."""
        _require_known("--data", self.data, DATA)
        for name in self.optimizers:
            _require_known("--optimizers", name, OPTIMIZERS)
        once = len(set(self.optimizers)) == len(self.optimizers)
        _require(once, "--optimizers", "name each one once", ",".join(self.optimizers))
        for option in ("epochs", "window", "seeds", "batch_size", "log_every"):
            value = getattr(self, option)
            flag = "--" + option.replace("_", "-")
            _require(value is None or value >= 1, flag, "be an integer >= 1", value)
        fits = self.window <= LARGEST_WINDOW
        _require(fits, "--window", f"be at most {LARGEST_WINDOW}", self.window)
        _require(0 < self.lr < math.inf, "--lr", "be a finite number > 0", self.lr)
        _require(0 <= self.momentum < 1, "--momentum", "be at least 0 and below 1", self.momentum)


class Plan(NamedTuple):
    """The length of a run, known once the training images are counted.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in one step.
        steps_per_epoch: whole batches in an epoch; what is left of a shuffled epoch is left out.
        steps: in the whole run, of each optimizer and seed.
        log_every: steps from one step record to the next.
    """

    epochs: int
    batch_size: int
    steps_per_epoch: int
    steps: int
    log_every: int


def plan(settings: Settings, images: int) -> Plan:
    """Return the length of the run that `settings` asks for, on `images` training images.

    Raises:
        UserError: if one batch is more than all images.
    """
    defaults = DATA[settings.data]
    epochs = settings.epochs or defaults.epochs
    batch_size = settings.batch_size or min(defaults.batch_size, images)
    _require(batch_size <= images, "--batch-size", f"be at most {images}, all images", batch_size)
    per_epoch = images // batch_size
    steps = epochs * per_epoch
    log_every = settings.log_every or math.ceil(steps / LINES_PER_RUN)
    return Plan(epochs, batch_size, per_epoch, steps, log_every)


def data_folder(data: str, given: Path | None) -> Path:
    """Return where the files of Fashion-MNIST are: the folder that was given, or Debian's.

    Raises:
        UserError: if a folder was given for data that need none.
    """
    unused = given is not None and data != "fashion-mnist"
    _require(not unused, "--data-dir", "come with `--data fashion-mnist`", given)
    return given or FASHION_MNIST_DIR


def _require(holds: bool, option: str, rule: str, value: object) -> None:
    if not holds:
        raise UserError(f"`{option}` must {rule}, got {value}")


def _require_known(option: str, name: str, known: Collection[str]) -> None:
    _require(name in known, option, f"be one of {', '.join(known)}", repr(name))
