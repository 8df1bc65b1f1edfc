"""The schedule's state as JAX arrays, the call that advances it, and its place in an optimizer."""

from numbers import Number, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from zenith import core
from zenith.core import ZenithState

__all__ = ["init", "observe", "set_zenith_state", "zenith_state"]


def init(window: int, params: optax.Params) -> ZenithState:
    """Return the state before the first norm, as arrays that share no buffer."""
    leaves = jax.tree.leaves(params)  # of an Equinox module its functions as well
    names = (jnp.result_type(leaf).name for leaf in leaves if _is_number(leaf))
    return _arrays(core.init(window), core.dtype_for(names))


def observe(
    state: ZenithState, grads: optax.Updates, grad_norm: ArrayLike | None, window: int
) -> ZenithState:
    """Return the state after this gradient: as it was, if the tree holds no gradient at all.

    Raises:
        ValueError: if the state is not of this window, or `grad_norm` is no real scalar, or is a
            negative number of Python or NumPy; a negative one on a device counts as skipped.
    """
    if state.norms.shape != (window,):  # restored by what does not look at shapes
        raise ValueError(
            f"`window` of this transformation is {window}, so the norms of its state must have "
            f"shape ({window},), got {state.norms.shape}"
        )
    dtype = state.norms.dtype
    if grad_norm is None:
        leaves = jax.tree.leaves(grads)
        return core.update(state, _global_norm(leaves, dtype), jnp) if leaves else state
    norm = jnp.asarray(grad_norm)
    if norm.ndim > 0:
        raise ValueError(f"`grad_norm` must be a scalar, got shape {norm.shape}")
    if jnp.iscomplexobj(norm):
        raise ValueError(f"`grad_norm` must be real, got {grad_norm!r}")
    if isinstance(grad_norm, Real | np.generic | np.ndarray) and (number := float(grad_norm)) < 0:
        raise ValueError(f"`grad_norm` must be >= 0, got {number!r}")
    return core.update(state, norm.astype(dtype), jnp)


def zenith_state(opt_state: optax.OptState) -> ZenithState:
    """Return the one `ZenithState` inside the state of an optimizer, however it is nested.

    It can be asked inside of `jax.jit`, and copies nothing from the device.

    Args:
        opt_state: what the `init` or `update` of an optax optimizer returned.

    Raises:
        ValueError: if there is none, or more than one; their paths are named.

    Examples:
        >>> import optax
        >>> from zenith.optax import scale_by_zenith, zenith_state
        >>> optimizer = optax.chain(optax.clip(1.0), scale_by_zenith(window=3), optax.sgd(0.1))
        >>> zenith_state(optimizer.init({"w": jax.numpy.ones(2)})).norms
        Array([0., 0., 0.], dtype=float32)
    """
    return _only(opt_state)[1]


def set_zenith_state(opt_state: optax.OptState, state: ZenithState) -> optax.OptState:
    """Return `opt_state` with `state` in the place that `zenith_state` finds.

    Args:
        opt_state: what the `init` or `update` of an optax optimizer returned; it is not changed.
        state: the state of any framework, of known values and so not traced; it takes on the dtype
            and sharding of the one there.

    Raises:
        TypeError: if `state` is no `ZenithState`.
        ValueError: if there is no place for it, or more than one; if it is of another window, or
            holds an impossible value.

    Examples:
        >>> import optax, zenith
        >>> from zenith.optax import scale_by_zenith, set_zenith_state, zenith_state
        >>> opt_state = scale_by_zenith(window=3).init({"w": jax.numpy.ones(2)})
        >>> carried = zenith.update(zenith.init(window=3), norm=5.0)
        >>> zenith_state(set_zenith_state(opt_state, carried)).norms
        Array([5., 0., 0.], dtype=float32)
    """
    path, old = _only(opt_state)
    dtype = old.norms.dtype
    state = core.checked(state, old.norms.shape[-1], float(np.finfo(dtype).max))
    places, structure = jax.tree.flatten(old)  # of Flax NNX' variables, not only of arrays
    arrays = zip(_arrays(state, dtype), places, strict=True)
    new = structure.unflatten([_put(x, place) for x, place in arrays])
    return jax.tree_util.tree_map_with_path(
        lambda at, x: new if at == path else x, opt_state, is_leaf=_is_zenith_state
    )


def _put(x: jax.Array, place: Any) -> jax.Array:
    if place.shape != x.shape:
        raise ValueError(
            f"the state must go into a single ZenithState, got one of shape {place.shape[:-1]}: "
            "put one into each member by jax.vmap(lambda own: set_zenith_state(own, state))"
        )
    return jax.device_put(x, getattr(place, "sharding", None))  # which a traced array has not


def _only(opt_state: optax.OptState) -> tuple[Any, ZenithState]:
    leaves = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=_is_zenith_state)
    found = [(path, leaf) for path, leaf in leaves if _is_zenith_state(leaf)]
    if len(found) != 1:
        paths = ", ".join(jax.tree_util.keystr(path) for path, _ in found)
        raise ValueError(
            "the optimizer's state must hold one ZenithState, "
            + (f"got {len(found)}, at {paths}" if found else "got none")
        )
    return found[0]


def _is_number(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)  # a label's is that of a string
    return isinstance(leaf, Number) if dtype is None else jnp.issubdtype(dtype, jnp.number)


def _is_zenith_state(node: Any) -> bool:
    return isinstance(node, ZenithState)


def _arrays(state: ZenithState, dtype: Any) -> ZenithState:
    return ZenithState(
        norms=jnp.array(state.norms, dtype),
        count=jnp.array(state.count, jnp.int32),
        mean=jnp.array(state.mean, dtype),
        zenith=jnp.array(state.zenith, dtype),
        scale=jnp.array(state.scale, dtype),
        skipped=jnp.array(state.skipped, jnp.int32),
    )


def _global_norm(grads: list[Any], dtype: Any) -> jax.Array:
    square = jnp.asarray(sum(_square_sum(jnp.asarray(grad), dtype) for grad in grads))
    zero = square == 0  # where the derivative of a root is infinite, and 0 times it NaN
    return jnp.where(zero, square, jnp.sqrt(jnp.where(zero, jnp.ones_like(square), square)))


def _square_sum(grad: jax.Array, dtype: Any) -> jax.Array:
    if jnp.iscomplexobj(grad):
        return _square_sum(grad.real, dtype) + _square_sum(grad.imag, dtype)
    return jnp.sum(jnp.square(grad.astype(dtype)))
