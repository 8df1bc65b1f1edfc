"""What each of Keras' backends does in its own way: replicas, and a step that may not happen."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
from keras import ops

__all__ = ["Trackable", "cond", "first", "once", "overridden", "reduced", "untraced"]

Trackable: Any = object  # a base whose variables a `tf.train.Checkpoint` finds
untraced: Any = nullcontext  # a context where what is done is done now, not in each call of a graph
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    Trackable = tf.__internal__.tracking.AutoTrackable
    untraced = tf.init_scope


def reduced(grads: Sequence[Any]) -> Sequence[Any]:
    """Return the gradients summed over the replicas of a `tf.distribute` strategy."""
    replica = _replica()
    if replica is None:
        return grads
    known = [grad for grad in grads if grad is not None]
    sums = iter(replica.all_reduce(tf.distribute.ReduceOp.SUM, known))
    return [None if grad is None else next(sums) for grad in grads]


def once(function: Callable[..., None], *args: Any) -> None:
    """Call `function(run, *args)` once for all replicas; `run(f, *args)` calls `f` in each.

    A strategy that reduces by `merge_call` allows no `cond` in a replica around that.
    """
    if not _merges():
        function(lambda step, *own: step(*own), *args)
        return

    def across(strategy: Any, *args: Any) -> None:
        function(lambda step, *own: strategy.extended.call_for_each_replica(step, own), *args)

    tf.distribute.get_replica_context().merge_call(across, args)


def first(value: Any) -> Any:
    """The value of the first replica, of one that is equal in all."""
    if keras.backend.backend() != "tensorflow":
        return value
    return tf.distribute.get_strategy().experimental_local_results(value)[0]


def cond(
    accepted: Any,
    step: Callable[[], None],
    drop: Callable[[], None],
    variables: Sequence[Any],
    assign: Callable[[Any, Any], Any],
) -> None:
    """Call `step()` if `accepted`, or else `drop()`; `variables` are all that they may change.

    JAX traces both branches of a `cond` as pure functions, so there the outcomes are selected.
    """
    accepted = first(accepted)
    if accepted is True:
        step()
        return
    if keras.backend.backend() != "jax":
        ops.cond(accepted, step, drop)
        return
    before = [variable.value for variable in variables]
    step()
    stepped = [variable.value for variable in variables]
    for variable, value in zip(variables, before, strict=True):
        assign(variable, value)
    drop()
    for variable, value in zip(variables, stepped, strict=True):
        assign(variable, ops.where(accepted, value, variable.value))


@contextmanager
def overridden(optimizer: Any, **attributes: Any) -> Iterator[None]:
    """Give `optimizer` other attributes for a while, unseen by its tracking of variables."""
    own = vars(optimizer)
    before = {name: own[name] for name in attributes if name in own}
    own.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del own[name]
        own.update(before)


def _replica() -> Any:
    """The context of a replica that is one of several."""
    if keras.backend.backend() != "tensorflow":
        return None
    replica = tf.distribute.get_replica_context()
    return replica if replica is not None and replica.num_replicas_in_sync > 1 else None


def _merges() -> bool:
    """Whether this is a replica, if only one, of a strategy that reduces by `merge_call`."""
    if keras.backend.backend() != "tensorflow" or not tf.distribute.has_strategy():
        return False
    merges = not tf.__internal__.distribute.strategy_supports_no_merge_call()
    return merges and not tf.distribute.in_cross_replica_context()
