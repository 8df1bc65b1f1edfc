"""The global norm of a gradient, in at least float32."""

from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
from keras import backend, ops

__all__ = ["as_norm", "global_norm"]

_LARGE = 1 << 20
_ROW = 4_096


def global_norm(grads: Iterable[Any], dtype: str) -> Any:
    """Return the L2 norm of all gradients together, a scalar of `dtype`.

    A gradient may be a `tf.IndexedSlices`, of an embedding; rows that it repeats add up.
    """
    if backend.backend() == "torch":
        return _norm_by_torch(grads, dtype)
    squares = [_sum_of_squares(_entries(grad, dtype)) for grad in grads]
    return ops.sqrt(ops.sum(ops.stack(squares)))


def as_norm(grad_norm: Any, dtype: str) -> Any:
    """Return a norm that the caller knows already as a scalar of `dtype`.

    Raises:
        ValueError: if it is no scalar, or is negative and can be read without waiting.
    """
    known = isinstance(grad_norm, Real | np.ndarray)
    if known and np.any(np.less(grad_norm, 0)):
        raise ValueError(f"`grad_norm` must be >= 0, got {grad_norm!r}")
    norm = ops.convert_to_tensor(grad_norm, dtype)
    if len(norm.shape) > 0:
        raise ValueError(f"`grad_norm` must be a scalar, got shape {tuple(norm.shape)}")
    return norm


def _norm_by_torch(grads: Iterable[Any], dtype: str) -> Any:
    """The norm of zenith.torch, which keeps no array of squares: a tenth of the time."""
    from zenith.torch._norm import norm_of, partial_norms

    def tensor(grad: Any) -> Any:
        entries = ops.convert_to_tensor(grad)
        wide = entries.is_floating_point() and dtype == "float32"  # or is made so, in pieces
        return entries if wide else ops.cast(entries, dtype)

    return ops.cast(norm_of(partial_norms([tensor(grad) for grad in grads])), dtype)


def _sum_of_squares(entries: Any) -> Any:
    """The sum; on TensorFlow in rows where it is long, as XLA keeps few partial sums there.

    Twenty million equal entries gave a norm that was wrong by 1.7e-4. The compiler would melt two
    sums into one, but not with a root between them.
    """
    size = entries.shape.num_elements() if backend.backend() == "tensorflow" else None
    if size is None or size < _LARGE:
        return ops.sum(ops.square(entries))
    vector, whole = ops.reshape(entries, (-1,)), size - size % _ROW
    rows = ops.reshape(vector[:whole], (-1, _ROW))
    norms = ops.sqrt(ops.sum(ops.square(rows), axis=1))
    return ops.sum(ops.square(norms)) + ops.sum(ops.square(vector[whole:]))


def _entries(grad: Any, dtype: str) -> Any:
    if hasattr(grad, "todense"):
        grad = grad.todense()  # a sparse array of JAX, whose entries may repeat
    if type(grad).__name__ != "IndexedSlices":
        return ops.cast(grad, dtype)
    # Rows of one id are neighbours once sorted, and so need no table as large as the embedding.
    order = ops.argsort(grad.indices)
    ids = ops.take(grad.indices, order)
    rows = ops.take(ops.cast(grad.values, dtype), order, axis=0)
    first = ops.concatenate([ids[:1] < ids[:1], ids[1:] != ids[:-1]])
    return ops.segment_sum(rows, ops.cumsum(ops.cast(first, "int32")), ops.shape(ids)[0])
