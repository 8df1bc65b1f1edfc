"""The scheduler: the same schedule for any torch optimizer."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zenith import core
from zenith.core import ZenithState
from zenith.torch._norm import as_norm, norm_or_number, partial_norms, unscaled
from zenith.torch._optimizer import Zenith
from zenith.torch._state import advance, dtype_for, is_ignored, restored, snapshot, tensors

__all__ = ["ZenithLR"]


class ZenithLR(LRScheduler):
    r"""Scale the learning rate of any optimizer by the history of its gradient norm.

    .. math::
        \eta_t = \eta_0 \cdot \frac{\mu_t}{Z_t}

    where :math:`\mu_t` is the mean of the last `window` gradient norms, :math:`Z_t` the highest
    such mean so far and :math:`\eta_0` each group's initial rate (see `zenith.torch.Zenith`). As
    every LRScheduler it writes `group["lr"]`. It does so in a hook before `optimizer.step()`, so
    that the gradient of a step counts in the rate of that step; `scheduler.step()` may be called
    as often as a training loop likes, or never, and changes nothing.

    It wants its optimizer to itself: it sets the rate from each group's initial one, whatever
    another scheduler has written. For warm-up, or any other schedule on top, use `Zenith`. An
    optimizer that reads its rate before it calls its closure, as LBFGS does, applies each rate one
    step late.

    A norm that is known already, such as what `torch.nn.utils.clip_grad_norm_` returns, is handed
    on by `optimizer.step(grad_norm=...)`. A gradient that is not finite leaves the schedule as it
    is and counts in `zenith_state.skipped`; the optimizer makes of it what it would.

    Args:
        optimizer: any `torch.optim.Optimizer` but `Zenith`, which scales its rate itself.
        window: how many gradient norms the mean is taken over.

    Raises:
        TypeError: if `optimizer` is not an Optimizer or `window` not an integer.
        ValueError: if `window` is less than 1, or `optimizer` is a `Zenith`.

    Note:
        A float `group["lr"]` on a GPU has to be read back from the device at every step. A tensor
        `lr` there (with `fused=True` or `capturable=True`) is filled in place and never read.

    Examples:
        >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
        >>> optimizer = torch.optim.AdamW([weight], lr=0.01)
        >>> scheduler = ZenithLR(optimizer, window=1)
        >>> for gradient in [4.0, 2.0, 1.0]:
        ...     weight.grad = torch.tensor([gradient])
        ...     optimizer.step()
        ...     print(scheduler.get_last_lr())
        [0.01]
        [0.005]
        [0.0025]
    """

    def __init__(self, optimizer: Optimizer, window: int = 500) -> None:
        state = core.init(window)
        if isinstance(optimizer, Zenith):
            raise ValueError("`optimizer` must not be a Zenith, which scales its rate itself")
        self.window = len(state.norms)
        self._state = state
        super().__init__(optimizer)
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    @property
    def zenith_state(self) -> ZenithState:
        """A copy of the schedule's state as plain tensors; settable to any of the same window."""
        return snapshot(self._state, self._dtype)

    @zenith_state.setter
    def zenith_state(self, state: ZenithState) -> None:
        self._state = restored(state, self.window, self._dtype)

    @property
    def base_lrs(self) -> list[float | Tensor]:
        """The rates at scale 1: what each group had when it was first scheduled."""
        groups = self.optimizer.param_groups
        return [group.setdefault("initial_lr", _copy(group["lr"])) for group in groups]

    @base_lrs.setter
    def base_lrs(self, rates: list[float | Tensor]) -> None:
        groups = self.optimizer.param_groups
        if len(rates) != len(groups):
            raise ValueError(
                f"`base_lrs` must have a rate for each of {len(groups)} parameter groups, "
                f"got {len(rates)}"
            )
        for group, rate in zip(groups, rates, strict=True):
            group["initial_lr"] = _copy(rate)

    def step(self, epoch: int | None = None) -> None:
        """Change no rate: `optimizer.step()` does, from the gradient that it is about to use."""
        self._step_count += 1
        self.last_epoch += 1

    def get_lr(self) -> list[float | Tensor]:
        """Return the rates that the last optimizer step has used, one for each group."""
        return [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float | Tensor]:
        """Return the rates that the last optimizer step has used, one for each group."""
        return self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state as `torch.save` can write it."""
        state = {key: value for key, value in self.__dict__.items() if key not in _NOT_SAVED}
        zenith_state = tensors(self._state, self._dtype)._asdict()
        return state | {"base_lrs": self.base_lrs, "zenith_state": zenith_state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises:
            ValueError: if it is of another kind of scheduler, of another window, of another number
                of parameter groups, or impossible; then nothing has changed.
        """
        if missing := {"base_lrs", "window", "zenith_state"} - state_dict.keys():
            raise ValueError(f"the state_dict of a ZenithLR lacks {', '.join(sorted(missing))}")
        saved = ZenithState(**state_dict["zenith_state"])
        state = restored(saved, self.window, self._dtype)
        self.base_lrs = state_dict["base_lrs"]
        own = {k: v for k, v in state_dict.items() if k not in ("base_lrs", "zenith_state")}
        super().load_state_dict(own)
        self._state = state

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_hook"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # a copied or unpickled optimizer has lost its hooks
        self._hook = self.optimizer.register_step_pre_hook(self._before_step)

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Measure the gradient once, when it is there: now, or when the closure has returned."""
        kwargs = dict(kwargs)
        grad_norm = kwargs.pop("grad_norm", None)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._observe(grad_norm)
            return args, kwargs
        if grad_norm is not None:
            raise ValueError(
                f"`grad_norm` must be None where `closure` computes the gradient, got {grad_norm!r}"
            )
        measured = False

        def measuring() -> Any:
            nonlocal measured
            loss = closure()
            if not measured:
                self._observe(None)
                measured = True
            return loss

        if len(args) > 1:
            return (args[0], measuring, *args[2:]), kwargs
        return args, kwargs | {"closure": measuring}

    @torch.no_grad()
    def _observe(self, grad_norm: float | Tensor | None) -> None:
        groups = self.optimizer.param_groups
        grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        if not grads:
            return
        if grad_norm is None:
            norms = partial_norms(grads)
        else:
            norms = [as_norm(grad_norm, self._dtype, grads[0].device)]
        norm = norm_or_number(unscaled(norms, self.optimizer))
        found_inf = getattr(self.optimizer, "found_inf", None)
        ignored = is_ignored(norm, [group["lr"] for group in groups], found_inf)
        self._state = advance(self._state, norm, ignored, self._dtype)
        if ignored is not True:
            self._write_rates(ignored)

    def _write_rates(self, ignored: bool | Tensor) -> None:
        for group, base_lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            rate = base_lr * self._state.scale
            if isinstance(ignored, Tensor):
                rate = torch.where(ignored, group["lr"], rate)
            _set_lr(group, rate)

    @property
    def _dtype(self) -> torch.dtype:
        return dtype_for(p for group in self.optimizer.param_groups for p in group["params"])


def _set_lr(group: dict[str, Any], rate: float | Tensor) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate.squeeze() if isinstance(rate, Tensor) else rate)
    else:
        group["lr"] = float(rate)


_NOT_SAVED = ("optimizer", "_hook", "_state")


def _copy(lr: float | Tensor) -> float | Tensor:
    return lr.clone() if isinstance(lr, Tensor) else lr
