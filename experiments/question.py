"""What a run is asked: by what optimizer, with which seed, and how."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from experiments.records import Record

__all__ = ["Question", "named", "parsed"]


_SIZES = ("hours", "epochs", "batch")  # of a run, where they are not its task's own


@dataclass(frozen=True)
class Question:
    """What a run is asked, besides its task.

    Attributes:
        optimizer: a name of `experiments.optimizers`.
        seed: of the initial weights, the batches and the noise of training (dropout).
        options: of the optimizer, as far as they are not its defaults.
        l2: the weight of half the squared norm of the parameters, which is added to the loss.
        hours: of training, evaluation left out, after which no further segment begins; by default
            the task's own, if it has any.
        log_every: steps from one `step` record to the next.
        epochs: of the run, where they are not the task's own.
        batch: in a batch, where it is not the task's own number.
        warm_up: steps in which the rate rises to what it is, evenly, from a thousandth of it.
        amp: whether the forward pass is in bfloat16, as far as `torch.autocast` has it.
        probes: what more to measure: names of `experiments.probes`, in any order.
    """

    optimizer: str
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    l2: float = 0.0
    hours: float | None = None
    log_every: int = 1
    epochs: int | None = None
    batch: int | None = None
    warm_up: int = 0
    amp: bool = False
    probes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The optimizer with what is not as by default: `OPTIMIZER[,lr=..][,l2=..][,amp]`."""
        own = {name: getattr(self, name) for name in ("l2", *_SIZES, "warm_up")}
        chosen = {**self.options, **{name: value for name, value in own.items() if value}}
        options = [f"{key}={value:g}" for key, value in chosen.items()]
        return ",".join([self.optimizer, *options, *(["amp"] if self.amp else [])])

    def asked(self) -> Record:
        """Return it for a header, which has the length of the run from the task."""
        asked = asdict(self)
        sized = {name: size for name in _SIZES if (size := asked[name])}
        del asked["epochs"], asked["batch"]
        rare = {"sized": sized, "probes": list(asked.pop("probes"))}
        rare |= {name: asked.pop(name) for name in ("warm_up", "amp")}
        return asked | {name: value for name, value in rare.items() if value}

    @classmethod
    def of(cls, header: Record) -> Self:
        """Return the question of a header."""
        own = {each.name: header[each.name] for each in fields(cls) if each.name in header}
        sized = dict.fromkeys(_SIZES) | header.get("sized", {})
        return cls(**own | sized)

    def path(self, task: str) -> Path:
        """Return where the records lie: `TASK/NAME/seed-N.jsonl`."""
        return Path(task, self.name, f"seed-{self.seed}.jsonl")


def parsed(name: str) -> tuple[str, dict[str, str]]:
    """Return the optimizer in the name of a question, and its options as they are written there.

    Examples:
        >>> parsed("zenith,lr=0.2,window=50")
        ('zenith', {'lr': '0.2', 'window': '50'})
    """
    slug, *options = name.split(",")
    pairs = (option.partition("=") for option in options)
    return slug, {key: value for key, _, value in pairs}


def named(slug: str, options: Mapping[str, str]) -> str:
    """Return the name for `parsed`; an option without a value stands alone."""
    return ",".join([slug, *(f"{key}={value}".rstrip("=") for key, value in options.items())])
