"""The scheduler: the same schedule for any torch optimizer."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from zenith import core
from zenith.core import ZenithState
from zenith.torch._hooks import on_step
from zenith.torch._norm import norm_or_number
from zenith.torch._optimizer import Zenith
from zenith.torch._rates import Loan, Rate, fill, like, scaled
from zenith.torch._saved import alive
from zenith.torch._state import (
    dtype_for,
    from_scaler,
    measured,
    observe,
    restored,
    snapshot,
    tensors,
)

__all__ = ["ZenithLR"]

_schedulers: "weakref.WeakKeyDictionary[Optimizer, weakref.ref[ZenithLR]]"
_schedulers = weakref.WeakKeyDictionary()  # by the optimizer that they scale


class ZenithLR(LRScheduler):
    """Scale the learning rate of any optimizer by the history of its gradient norm.

    A step is made at `lr * mean / zenith`, where `lr` is each group's own rate, `mean` the mean of
    the last `window` gradient norms, this step's included, and `zenith` the highest such mean so
    far; until `window` norms are known at `lr` (see `zenith.torch.Zenith`).

    `group["lr"]` stays the user's own: a hook puts the scaled rate there as `optimizer.step()`
    begins, and another puts back what was there as it ends. So warm-up, any other scheduler beside
    this one, a learning rate finder and a hand that writes `group["lr"]` all compose: ZENITH
    multiplies what it finds. `scheduler.step()` may be called as often as a training loop likes, or
    never, and changes no rate. Within a `SequentialLR` it stands for the constant initial rate.

    A norm that is known already, such as what `torch.nn.utils.clip_grad_norm_` returns, is handed
    on by `optimizer.step(grad_norm=...)`; beside a closure it is the norm of the gradients that the
    closure leaves. A gradient that is not finite leaves the schedule as it is and counts in
    `zenith_state.skipped`; the optimizer makes of it what it would. LBFGS, which reads its rate
    before it calls its closure, applies each scale one step late.

    The optimizer refers to the scheduler weakly: keep it for as long as it is to scale.

    Args:
        optimizer: any `torch.optim.Optimizer` whose `step` runs torch's step hooks, but `Zenith`,
            which scales its rate itself.
        window: how many gradient norms the mean is taken over.

    Raises:
        TypeError: if `window` is not an integer, or `optimizer` not an Optimizer, or one that wraps
            another and whose `step` runs no hooks.
        ValueError: if `window` is less than 1, or `optimizer` is a `Zenith` or has a `ZenithLR`, or
            wraps one that is or has.

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
        ...     print(scheduler.get_last_lr(), optimizer.param_groups[0]["lr"])
        [0.01] 0.01
        [0.005] 0.01
        [0.0025] 0.01

    Source: Saha, "ZENITH: Automated Gradient Norm Informed Stochastic Optimization",
    arXiv 2601.15212, equations 1 to 3 and Algorithm 1.
    """

    def __init__(self, optimizer: Optimizer, window: int = 500) -> None:
        state = core.init(window)
        _check(optimizer)
        self.window = len(state.norms)
        self._state = state
        self._rates: list[Rate] = []  # in force at the last step
        super().__init__(optimizer)
        self._attach()

    @property
    def zenith_state(self) -> ZenithState:
        """A copy of the schedule's state as plain tensors; settable to any of the same window."""
        return snapshot(self._state, self._dtype)

    @zenith_state.setter
    def zenith_state(self, state: ZenithState) -> None:
        self._state = restored(state, self.window, self._dtype)

    def zenith_metrics(self) -> dict[str, Any]:
        """Return what a log wants to show of the last step, with no copy from the device.

        Returns:
            `lr` (the rate in force of the first group), `grad_norm` (the last accepted norm, 0
            before the first), `mean`, `zenith`, `scale`, `count` and `skipped`: plain numbers, or
            0-dim tensors on the device.
        """
        rates = self._in_force()
        return {"lr": rates[0] if rates else None, **core.metrics(self._state)}

    def get_last_lr(self) -> list[Rate]:
        """Return the rates in force at the last step, `lr * scale`, one for each parameter group.

        Before the first step, and for a group added since the last, it is the rate of a step at
        the present scale.
        """
        rates = zip(self.optimizer.param_groups, self._in_force(), strict=True)
        return [like(group["lr"], rate) for group, rate in rates]

    @property
    def _last_lr(self) -> list[Rate]:  # type: ignore[override]
        return self.get_last_lr()

    def get_lr(self) -> list[Rate]:
        """Return the rates before they are scaled: what `group["lr"]` holds between two steps."""
        return [like(group["lr"], group["lr"]) for group in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        """Change no rate: `optimizer.step()` does, from the gradient that it is about to use."""
        handed_over = epoch == 0 and self.last_epoch < 0  # by an older SequentialLR
        self._step_count += 1
        self.last_epoch += 1
        if handed_over:
            self._update_lr(0)

    def detach(self) -> None:
        """Take it off its optimizer, which from now on steps at `group["lr"]` as it is."""
        self._detach()
        _schedulers.pop(self.optimizer, None)

    def state_dict(self) -> dict[str, Any]:
        """Return the schedule's state as `torch.save` can write it."""
        return {
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "_last_lr": self.get_last_lr(),
            "window": self.window,
            "zenith_state": tensors(self._state, self._dtype)._asdict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises:
            ValueError: if it is of another kind of scheduler, of another window, or impossible;
                then nothing has changed.
        """
        if missing := {"window", "zenith_state"} - state_dict.keys():
            raise ValueError(f"the state_dict of a ZenithLR lacks {', '.join(sorted(missing))}")
        self.zenith_state = ZenithState(**state_dict["zenith_state"])
        self.last_epoch = state_dict.get("last_epoch", self.last_epoch)
        self._step_count = state_dict.get("_step_count", self._step_count)
        self._rates = list(state_dict.get("_last_lr", []))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_detach"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _check(state["optimizer"])
        self.__dict__.update(state)  # a copied or unpickled optimizer has lost its hooks
        self._attach()

    def _attach(self) -> None:
        optimizer = self.optimizer
        _schedulers[optimizer] = weakref.ref(self)
        self._loan = Loan()
        take_back = _weak(self._take_back)
        hooks = on_step(optimizer, _weak(self._before_step), take_back, failed=take_back)
        self._detach = weakref.finalize(self, hooks.remove)
        self._detach.atexit = False

    def _update_lr(self, epoch: int | None = None) -> None:
        """Begin at the initial rates, as every scheduler does that a SequentialLR hands over to."""
        self.last_epoch = 0 if epoch is None else epoch
        for group in self.optimizer.param_groups:
            fill(group, group.get("initial_lr", group["lr"]))

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Measure the gradient once, when it is there: now, or when the closure has returned."""
        self._take_back()  # of a step that has raised where nothing saw it
        kwargs = dict(kwargs)
        grad_norm = kwargs.pop("grad_norm", None)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self._scale(grad_norm)
            return args, kwargs
        measuring = self._measuring(closure, grad_norm)
        self._lend()  # for LBFGS, which reads its rate before it calls its closure
        if len(args) > 1:
            return (args[0], measuring, *args[2:]), kwargs
        return args, kwargs | {"closure": measuring}

    def _measuring(self, closure: Callable[[], Any], grad_norm: Any) -> Callable[[], Any]:
        """The closure, which finds the user's own rates in the groups, and scales them after."""
        measured = False

        def measuring() -> Any:
            nonlocal measured
            self._take_back()
            loss = closure()
            if measured:
                self._lend()
            else:
                self._scale(grad_norm)
            measured = True
            return loss

        return measuring

    @torch.no_grad()
    def _scale(self, grad_norm: Rate | None) -> None:
        """Observe this step's gradient, and put the rates in force into the groups."""
        ignored = self._observe(grad_norm)
        before, rates = self._in_force(), self._lend()
        if ignored is True:
            return
        if isinstance(ignored, Tensor):
            pairs = zip(before, rates, strict=True)
            rates = [torch.where(ignored, last, rate) for last, rate in pairs]
        self._rates = rates

    def _observe(self, grad_norm: Rate | None) -> bool | Tensor:
        """Advance the schedule, and return whether this step leaves it as it is."""
        groups = self.optimizer.param_groups
        grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        if not grads:
            return True
        dtype, (grad_scale, found_inf) = self._dtype, from_scaler(self.optimizer)
        norm = norm_or_number(measured(grads, grad_norm, dtype, grad_scale))
        rates = [lr if isinstance(lr, Tensor) else float(lr) for lr in (g["lr"] for g in groups)]
        self._state, ignored = observe(self._state, norm, norm, rates, dtype, found_inf)
        return ignored

    def _lend(self) -> list[Rate]:
        return self._loan.lend(self.optimizer.param_groups, self._state.scale)

    def _take_back(self, *_: Any) -> None:
        self._loan.take_back()

    def _in_force(self) -> list[Rate]:
        """The rates of the last step, and of a group that it did not know the present one."""
        groups, scale = self.optimizer.param_groups, self._state.scale
        last = self._rates[: len(groups)]
        return last + [scaled(group["lr"], scale) for group in groups[len(last) :]]

    @property
    def _dtype(self) -> torch.dtype:
        return dtype_for(p for group in self.optimizer.param_groups for p in group["params"])


def _check(optimizer: Any) -> None:
    if isinstance(optimizer, Zenith):
        raise ValueError("`optimizer` must not be a Zenith, which scales its rate itself")
    kind = type(optimizer)
    hooked = getattr(getattr(kind, "step", None), "hooked", False)  # as torch marks it
    if not (hooked and hasattr(optimizer, "_optimizer_step_pre_hooks")):
        raise TypeError(
            "`optimizer` must be an Optimizer whose `step` runs torch's step hooks, which a "
            f"{kind.__name__} is not: make ZenithLR on the optimizer inside"
        )
    if any(_share_groups(optimizer, other) for other in alive):
        raise ValueError(
            "`optimizer` must not share its parameter groups with a Zenith, "
            "which scales their rate itself"
        )
    having = [other for other, scheduler in _schedulers.items() if scheduler() is not None]
    if any(_share_groups(optimizer, other) for other in having):
        raise ValueError(
            "`optimizer` must not have a ZenithLR yet, nor share its parameter groups with one "
            "that has, or its rate would be scaled twice: call .detach() of that ZenithLR"
        )


def _share_groups(one: Optimizer, other: Optimizer) -> bool:
    """Whether they are the same, or one wraps the other."""
    ids = {id(group) for group in other.param_groups}
    return one is other or any(id(group) in ids for group in one.param_groups)


def _weak(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method for as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call(*args: Any) -> Any:
        alive = reference()
        return None if alive is None else alive(*args)

    return call
