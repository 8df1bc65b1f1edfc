"""`ZenithCallback` for Lightning: the schedule's numbers in the Trainer's loggers."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback

from zenith.logs import MetricLog, Sink

__all__ = ["ZenithCallback"]


class ZenithCallback(Callback):  # type: ignore[misc]
    """Logs `zenith/grad_norm`, `mean`, `zenith`, `scale`, `lr` (in force) and more at every step.

    The device is read once in `trainer.log_every_n_steps` steps, for all of them together.

    Args:
        sinks: where to log besides the Trainer's own loggers: see `zenith.logs`.

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

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find ZENITH in what `configure_optimizers` returned."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        candidates = [*trainer.optimizers, *schedulers]
        found = [candidate for candidate in candidates if hasattr(candidate, "zenith_state")]
        if not found:
            raise TypeError(
                "`configure_optimizers` must return a Zenith or a ZenithLR, "
                f"got {', '.join(type(candidate).__name__ for candidate in candidates)}"
            )
        self._source = found[0]

        def to_loggers(step: int, numbers: Mapping[str, float]) -> None:
            prefixed = {f"zenith/{name}": number for name, number in numbers.items()}
            for logger in trainer.loggers:
                logger.log_metrics(prefixed, step)

        every = max(1, trainer.log_every_n_steps)
        self._log = MetricLog(to_loggers, *self._sinks, every=every, step=trainer.global_step)

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """Take the numbers of a step, if this batch made one."""
        if trainer.global_step > self._log.step:
            self._log(self._source)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Log what is waiting."""
        self._log.flush()
