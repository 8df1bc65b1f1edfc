"""The global norm of a gradient, in at least float32."""

from collections.abc import Iterable
from typing import Any

from keras import ops

__all__ = ["as_norm", "global_norm"]


def global_norm(grads: Iterable[Any], dtype: str) -> Any:
    """Return the L2 norm of all gradients together, a scalar of `dtype`.

    A gradient may be a `tf.IndexedSlices`, of an embedding; rows that it repeats add up.
    """
    squares = [ops.sum(ops.square(_entries(grad, dtype))) for grad in grads]
    return ops.sqrt(ops.sum(ops.stack(squares)))


def as_norm(grad_norm: Any, dtype: str) -> Any:
    """Return a norm that the caller knows already as a scalar of `dtype`.

    Raises:
        ValueError: if it is no scalar.
    """
    norm = ops.convert_to_tensor(grad_norm, dtype)
    if len(norm.shape) > 0:
        raise ValueError(f"`grad_norm` must be a scalar, got shape {tuple(norm.shape)}")
    return norm


def _entries(grad: Any, dtype: str) -> Any:
    if type(grad).__name__ != "IndexedSlices":
        return ops.cast(grad, dtype)
    # Rows of one id are neighbours once sorted, and so need no table as large as the embedding.
    order = ops.argsort(grad.indices)
    ids = ops.take(grad.indices, order)
    rows = ops.take(ops.cast(grad.values, dtype), order, axis=0)
    first = ops.concatenate([ids[:1] < ids[:1], ids[1:] != ids[:-1]])
    return ops.segment_sum(rows, ops.cumsum(ops.cast(first, "int32")), ops.shape(ids)[0])
