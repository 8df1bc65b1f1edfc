"""`ZenithCallback` for Lightning: the schedule's numbers in the Trainer's loggers."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback

from zenith.logs import MetricLog, Sink

__all__ = ["ZenithCallback"]


class ZenithCallback(Callback):  # type: ignore[misc]
    """Logs `zenith/grad_norm`, `mean`, `zenith`, `scale`, `lr` (in force) and more at every step.

    The device is read once in `trainer.log_every_n_steps` steps, for all of them together. A step
    has the number that Lightning gives the loss of its batch: the first is 0. Where several
    optimizers are under ZENITH, the names begin with `zenith0/`, `zenith1/` and so on.

    Args:
        sinks: where to log besides the Trainer's own loggers: see `zenith.logs`. They are called
            on the first rank alone, as the loggers are.

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
        candidates = [*trainer.optimizers, *schedulers]
        found = [candidate for candidate in candidates if hasattr(candidate, "zenith_state")]
        if not found:
            raise TypeError(
                "`configure_optimizers` must return a Zenith or a ZenithLR, "
                f"got {', '.join(type(candidate).__name__ for candidate in candidates)}"
            )
        for i, source in enumerate(found if trainer.is_global_zero else []):
            self._listen(trainer, source, "zenith/" if len(found) == 1 else f"zenith{i}/")

    def _listen(self, trainer: Any, source: Any, prefix: str) -> None:
        def to_loggers(step: int, numbers: Mapping[str, float]) -> None:
            prefixed = {prefix + name: number for name, number in numbers.items()}
            for logger in trainer.loggers:
                logger.log_metrics(prefixed, step)

        def after_step(*_: Any) -> None:
            log(source, step=trainer.global_step)

        log = MetricLog(to_loggers, *self._sinks, every=max(1, trainer.log_every_n_steps))
        optimizer = getattr(source, "optimizer", source)  # that of a ZenithLR
        self._logs.append(log)
        self._hooks.append(optimizer.register_step_post_hook(after_step))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Log what is waiting, and listen no more."""
        for hook in self._hooks:
            hook.remove()
        for log in self._logs:
            log.flush()
        self._hooks, self._logs = [], []

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Do so also where training was interrupted."""
        self.on_train_end(trainer, pl_module)
