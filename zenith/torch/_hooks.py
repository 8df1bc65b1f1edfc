"""What happens at a step of an optimizer: once for each call, however its class is built."""

import functools
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

from torch.optim import Optimizer

__all__ = ["StepHooks", "on_step"]

_Before: TypeAlias = Callable[[Any, Any, Any], tuple[Any, Any] | None]
_After: TypeAlias = Callable[[Any, Any, Any], object]

# The code by which torch replaces the `step` of a class, and which calls the hooks.
_HOOKED_STEP = Optimizer.profile_hook_step(lambda self: None).__code__


def on_step(
    optimizer: Optimizer,
    before: _Before | None = None,
    after: _After | None = None,
    *,
    failed: Callable[[], object] | None = None,
) -> "StepHooks":
    """Call `before` and `after` once for each outermost call of the optimizer's `step`.

    torch itself calls its hooks for each class whose `step` is entered: twice where a subclass
    calls `super().step()`. And it calls no post-hook where `step` raises.

    Args:
        optimizer: of a class whose `step` runs hooks.
        before: a step pre-hook: `before(optimizer, args, kwargs)` returns None, or other arguments.
        after: a step post-hook: `after(optimizer, args, kwargs)`; beside a `before` the first one.
        failed: called without arguments as an exception leaves `optimizer.step(...)`.

    Returns:
        A handle, whose `.remove()` takes them off.
    """
    return StepHooks(optimizer, before, after, failed)


class StepHooks:
    """The handle that `on_step` returns."""

    def __init__(
        self,
        optimizer: Optimizer,
        before: _Before | None,
        after: _After | None,
        failed: Callable[[], object] | None,
    ) -> None:
        self._before, self._after, self._depth = before, after, 0
        self._handles: list[Any] = [
            optimizer.register_step_pre_hook(self._enter),
            optimizer.register_step_post_hook(self._leave),
        ]
        if before is not None:  # what it has changed is put back before any other hook looks
            hooks: Any = optimizer._optimizer_step_post_hooks  # an OrderedDict
            hooks.move_to_end(self._handles[1].id, last=False)
        if failed is not None:
            self._handles.append(_Guard(optimizer, failed))

    def remove(self) -> None:
        """Call nothing any more."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        # Where a step has raised the depth is stale, so that the stack has the last word.
        nested = self._depth > 0 and _is_nested(optimizer)
        self._depth = self._depth + 1 if nested else 1
        return None if nested or self._before is None else self._before(optimizer, args, kwargs)

    def _leave(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        nested = self._depth > 1 and _is_nested(optimizer)
        self._depth = self._depth - 1 if nested else 0
        if not nested and self._after is not None:
            self._after(optimizer, args, kwargs)


class _Guard:
    """Wraps the `step` of one optimizer, as an LRScheduler does, to see what it raises."""

    def __init__(self, optimizer: Optimizer, failed: Callable[[], object]) -> None:
        own, of_class = vars(optimizer).get("step"), type(optimizer).step
        self._own, self._optimizer = own, weakref.ref(optimizer)
        owner: Any = self._optimizer

        @functools.wraps(own or of_class)
        def step(_: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return own(*args, **kwargs) if own else of_class(owner(), *args, **kwargs)
            except BaseException:
                failed()
                raise

        # Bound, since an LRScheduler wants a method, but weakly: no cycle keeps the model alive.
        self._step = types.MethodType(step, weakref.proxy(optimizer))
        optimizer.step = self._step  # type: ignore[method-assign]

    def remove(self) -> None:
        optimizer = self._optimizer()
        if optimizer is None or vars(optimizer).get("step") is not self._step:
            return  # another has wrapped it since, and this layer stays, doing nothing
        if self._own is None:
            del optimizer.step
        else:
            optimizer.step = self._own  # type: ignore[method-assign]


def _is_nested(optimizer: Optimizer) -> bool:
    """Whether another call of this optimizer's `step` is under way around the one that asks."""
    calls, frame = 0, sys._getframe()
    while frame is not None:
        calls += frame.f_code is _HOOKED_STEP and frame.f_locals["self"] is optimizer
        frame = frame.f_back  # type: ignore[assignment]
    # None is seen where torch.compile has rewritten them, and there the depth is right.
    return calls != 1
