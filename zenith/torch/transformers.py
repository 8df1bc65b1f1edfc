"""`ZenithCallback` for Hugging Face's Trainer: the schedule's numbers in its log history."""

from typing import Any

from transformers import TrainerCallback

from zenith.logs import MetricLog, Sink

__all__ = ["ZenithCallback"]


class ZenithCallback(TrainerCallback):  # type: ignore[misc]
    """Logs `zenith/grad_norm`, `mean`, `zenith`, `scale`, `lr` (in force) and more.

    They are added to each entry of the training loss that the Trainer logs (every
    `logging_steps`), and so to `trainer_state.json`; sinks are given those of every step, in the
    first process alone. The device is read once for each entry.

    Args:
        sinks: where to log every step: see `zenith.logs`. The Trainer's own reports to TensorBoard
            and Weights & Biases are made before a callback of yours is called, so hand
            `to_tensorboard(writer)` or `to_wandb(wandb.run)` over for those.

    Raises:
        TypeError: as training starts, if neither the optimizer is a `zenith.torch.Zenith` nor the
            scheduler a `ZenithLR`.

    Examples:
        ```python
        trainer = Trainer(model, arguments, callbacks=[ZenithCallback()], ...)
        ```
    """

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._last: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Find ZENITH in the Trainer's optimizer or scheduler."""
        optimizer, scheduler = objects.get("optimizer"), objects.get("lr_scheduler")
        inner = getattr(optimizer, "optimizer", optimizer)  # what Accelerate has wrapped
        found = [x for x in (inner, scheduler) if hasattr(x, "zenith_state")]
        if not found:
            raise TypeError(
                "the Trainer's optimizer must be a Zenith, or its scheduler a ZenithLR, "
                f"got {type(inner).__name__} and {type(scheduler).__name__}"
            )
        self._source = found[0]
        every = max(1, int(state.logging_steps or 1))
        sinks = self._sinks if state.is_world_process_zero else ()
        self._log = MetricLog(self._remember, *sinks, every=every, step=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Take the numbers of a step."""
        self._log(self._source, step=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **objects: Any) -> None:
        """Add the last step's numbers to the entry that is being logged."""
        if logs and "loss" in logs:  # not an evaluation, nor the summary at the end
            self._log.flush()
            logs.update(self._last)
            state.log_history[-1].update(self._last)

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Log what is waiting."""
        self._log.flush()

    def _remember(self, step: int, numbers: Any) -> None:
        self._last = {f"zenith/{name}": number for name, number in numbers.items()}
