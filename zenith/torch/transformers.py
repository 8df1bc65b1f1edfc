"""`ZenithCallback` for Hugging Face's Trainer: the schedule's numbers in its log history."""

from typing import Any

from transformers import TrainerCallback

from zenith.logs import MetricLog, Sink, find

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

    Warns:
        ZenithWarning: as training starts, if the Trainer clips (by default, to 1) before ZENITH can
            measure, lets the rate fall linearly (by default, to 0), or makes no more steps than the
            window has; later where the norms show it.

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
        self._source: Any = None
        self._last: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Find ZENITH in the Trainer's optimizer or scheduler."""
        optimizer, scheduler = objects.get("optimizer"), objects.get("lr_scheduler")
        inner = getattr(optimizer, "optimizer", optimizer)  # what Accelerate has wrapped
        rule = "the Trainer's optimizer must be a Zenith, or its scheduler a ZenithLR"
        source = find([inner, scheduler], rule)[0]
        self._source = source if state.is_world_process_zero else None
        if self._source is None:
            return
        every = max(1, int(state.logging_steps or 1))
        sinks = (self._remember, *self._sinks)
        self._log = MetricLog(*sinks, every=every, step=state.global_step, remedy=_REMEDY)
        to_come = state.max_steps - state.global_step
        self._log.expect(source, to_come, _clipping(args), _scheduling(scheduler))

    def on_step_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Take the numbers of a step."""
        if self._source is not None:
            self._log(self._source, step=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **objects: Any) -> None:
        """Add the last step's numbers to the entry that is being logged."""
        of_training = logs and "loss" in logs  # not an evaluation, nor the summary at the end
        if self._source is not None and of_training:
            self._log.flush()
            logs.update(self._last)
            state.log_history[-1].update(self._last)

    def on_train_end(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        """Log what is waiting."""
        if self._source is not None:
            self._log.flush()
            self._log.watch.ended()

    def _remember(self, step: int, numbers: Any) -> None:
        self._last = {f"zenith/{name}": number for name, number in numbers.items()}


_REMEDY = (
    "Leave the clipping to ZENITH: TrainingArguments(max_grad_norm=0) and "
    "Zenith(max_grad_norm=...)."
)


def _clipping(args: Any) -> str:
    bound = args.max_grad_norm
    return f"the Trainer clips gradients, `max_grad_norm={bound}`" if bound else ""


def _scheduling(scheduler: Any) -> str:
    """What the Trainer makes of a rate where nothing was said."""
    inner = getattr(scheduler, "scheduler", scheduler)  # what Accelerate has wrapped
    rules = [getattr(rule, "func", rule) for rule in getattr(inner, "lr_lambdas", ())]
    if not any("linear_schedule" in getattr(rule, "__name__", "") for rule in rules):
        return ""
    return (
        "The Trainer's linear schedule, its default, takes the rate to 0 under ZENITH: "
        'TrainingArguments(lr_scheduler_type="constant") leaves it to ZENITH.'
    )
