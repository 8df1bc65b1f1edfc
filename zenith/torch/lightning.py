"""`ZenithCallback` for Lightning: the schedule's numbers in the Trainer's loggers."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback

from zenith.logs import MetricLog, Sink, find
from zenith.torch._hooks import on_step

__all__ = ["ZenithCallback"]


class ZenithCallback(Callback):  # type: ignore[misc]
    """Logs `zenith/grad_norm`, `mean`, `zenith`, `scale`, `lr` (in force) and more at every step.

    The device is read once in `trainer.log_every_n_steps` steps, for all of them together. A step
    has the number that Lightning gives the loss of its batch: the first is 0. Where several
    optimizers are under ZENITH, the names begin with `zenith0/`, `zenith1/` and so on.

    Args:
        sinks: where to log besides the Trainer's own loggers: see `zenith.logs`. They are called
            on the first rank alone, as the loggers are.

    Warns:
        ZenithWarning: as training starts, if the Trainer clips (`gradient_clip_val`) before ZENITH
            can measure, or the run is no longer than the window; later where the norms show it.

    Raises:
        TypeError: as training starts, if no optimizer is a `zenith.torch.Zenith`, and no scheduler
            a `ZenithLR`.

    Examples:
        ```python
        trainer = Trainer(callbacks=[ZenithCallback()], logger=CSVLogger("logs"))
        ```
    """

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._logs: list[MetricLog] = []
        self._hooks: list[Any] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find ZENITH in what `configure_optimizers` returned, and listen to its steps."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        rule = "`configure_optimizers` must return a Zenith or a ZenithLR"
        found = find([*trainer.optimizers, *schedulers], rule)
        for i, source in enumerate(found if trainer.is_global_zero else []):
            self._listen(trainer, source, "zenith/" if len(found) == 1 else f"zenith{i}/")

    def _listen(self, trainer: Any, source: Any, prefix: str) -> None:
        def to_loggers(step: int, numbers: Mapping[str, float]) -> None:
            prefixed = {prefix + name: number for name, number in numbers.items()}
            for logger in trainer.loggers:
                logger.log_metrics(prefixed, step)

        def after_step(*_: Any) -> None:
            log(source, step=trainer.global_step)

        every = max(1, trainer.log_every_n_steps)
        log = MetricLog(to_loggers, *self._sinks, every=every, remedy=_REMEDY)
        log.expect(source, _steps_to_come(trainer), _clipping(trainer))
        optimizer = getattr(source, "optimizer", source)  # that of a ZenithLR
        self._logs.append(log)
        self._hooks.append(on_step(optimizer, after=after_step))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Log what is waiting, and listen no more."""
        logs = self._logs
        self._stop()
        for log in logs:
            log.watch.ended()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Do so also where training was interrupted."""
        self._stop()

    def _stop(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for log in self._logs:
            log.flush()
        self._hooks, self._logs = [], []


_REMEDY = (
    "Leave the Trainer's `gradient_clip_val` at None, and the clipping to "
    "`Zenith(max_grad_norm=...)`."
)


def _clipping(trainer: Any) -> str:
    value = trainer.gradient_clip_val
    return f"the Trainer clips gradients, `gradient_clip_val={value}`" if value else ""


def _steps_to_come(trainer: Any) -> float:
    """How many updates the Trainer will make, if it is the one that makes them."""
    if not trainer.lightning_module.automatic_optimization:
        return math.inf
    return float(trainer.estimated_stepping_batches - trainer.global_step)
