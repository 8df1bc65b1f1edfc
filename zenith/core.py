"""The ZENITH schedule: one pure transition, shared by every framework (Saha, arXiv 2601.15212).

The rate of iteration t is `lr * scale_t`, where `mean` is the mean of the last `window` gradient
norms, `zenith` the highest such mean so far, and `scale = mean / zenith` (equations 1 to 3 and
Algorithm 1 of the paper). Nothing here knows a framework: `update` is written over the functions
that array libraries share by name, so it runs on Python numbers as it stands and traces under
`torch.compile`, `jax.jit` and `tf.function` when it is handed their arrays and their namespace.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from numbers import Integral
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

__all__ = ["ZenithState", "ZenithWarning", "from_dict", "init", "metrics", "to_dict", "update"]

_VERSION = 1  # of the document that `to_dict` writes

NonFinite = Literal["skip", "propagate"]


class ZenithState(NamedTuple):
    """The whole memory of the schedule: `window` + 5 numbers, whatever the size of the model.

    Each field is of the framework that the state belongs to: a number of Python, a scalar tensor of
    torch or Keras, an array of JAX. `Any` is all that can be said of them without naming one.

    Attributes:
        norms (float array of shape [window], or list of floats): the accepted gradient norms as a
            ring in buffer order, so the next norm overwrites slot `count % window`.
        count (integer scalar): how many norms were accepted.
        mean (float scalar): the mean of `norms` (equation 1); 0 until the window is full.
        zenith (float scalar): the highest `mean` so far (equation 2).
        scale (float scalar in [0, 1]): the factor on the learning rate (equation 3).
        skipped (integer scalar): how many norms were rejected because they were not finite.
    """

    norms: Any
    count: Any
    mean: Any
    zenith: Any
    scale: Any
    skipped: Any


class ZenithWarning(UserWarning):
    """Something in the training loop keeps the rate at `lr`: ZENITH is off, or soon will be."""


def _where(condition: Any, chosen: Any, other: Any) -> Any:
    return chosen if condition else other


# What `update` asks of an array library, for plain Python numbers.
python = SimpleNamespace(where=_where, maximum=max)


def init(window: int = 500) -> ZenithState:
    """Return the state before the first norm, in plain Python numbers.

    Args:
        window: how many norms `mean` is taken over; an integer >= 1.

    Raises:
        TypeError: if `window` is not an integer (a bool or a float is refused).
        ValueError: if `window` is less than 1.

    Examples:
        >>> init(window=3)  # doctest: +NORMALIZE_WHITESPACE
        ZenithState(norms=[0.0, 0.0, 0.0], count=0, mean=0.0, zenith=0.0, scale=1.0,
                    skipped=0)
    """
    return ZenithState(
        [0.0] * checked_window(window), count=0, mean=0.0, zenith=0.0, scale=1.0, skipped=0
    )


def update(state: ZenithState, norm: Any, xp: Any = python) -> ZenithState:
    """Return the state after one more gradient norm: one iteration of Algorithm 1.

    The norm of iteration t counts in the scale of iteration t. The scale is 1 until `window` norms
    were accepted. A norm that is NaN, infinite or negative changes `skipped` and nothing else.

    Args:
        state: the state before; it is not changed.
        norm: the L2 norm of this iteration's gradient over all parameters; a scalar of the dtype
            of `state.norms`.
        xp: the array library of `state` and `norm` (`torch`, `jax.numpy`, `keras.ops`); by default
            plain Python numbers.

    Returns:
        The state after, with the same shapes and dtypes.

    Examples:
        >>> state = init(window=2)
        >>> for norm in [3.0, 5.0, 1.0]:
        ...     state = update(state, norm)
        ...     print(state.mean, state.zenith, state.scale)
        0.0 0.0 1.0
        4.0 4.0 1.0
        3.0 4.0 0.75
    """
    if xp is python:
        norm = float(norm)  # also of a 0-dim tensor, which the state must not hold on to
    window = _window(state)
    accepted = (norm >= 0) & (norm < math.inf)
    norms = _push(state, norm, accepted, xp)
    count = xp.where(accepted, state.count + 1, state.count)
    skipped = xp.where(accepted, state.skipped, state.skipped + 1)

    full = accepted & (count >= window)
    mean = xp.where(full, _mean(norms, xp), state.mean)
    zenith = xp.maximum(state.zenith, mean)
    risen = zenith > 0
    peak = xp.where(risen, zenith, zenith + 1)  # 0 / 0 must not even be computed: debug_nans
    scale = xp.where(full & risen, mean / peak, state.scale)
    return ZenithState(norms, count, mean, zenith, scale, skipped)


def metrics(state: ZenithState) -> dict[str, Any]:
    """Return what a training log wants to show, without a copy from the device.

    Returns:
        `grad_norm` (the last accepted norm, 0 before the first), `mean`, `zenith`, `scale`,
        `count` and `skipped`, each a scalar of the framework that `state` belongs to.

    Raises:
        ValueError: if several states are stacked in one, as by `jax.vmap`.

    Examples:
        >>> metrics(update(init(window=2), 3.0))["grad_norm"]
        3.0
    """
    if len(shape := getattr(state.norms, "shape", (0,))) != 1:
        raise ValueError(
            f"`state` must be a single ZenithState, got norms of shape {tuple(shape)}: "
            "of several that are stacked, use jax.vmap(zenith.metrics)"
        )
    last = (state.count - 1) % _window(state)
    take = getattr(state.norms, "take", None)  # torch reads a tensor index back to the host
    grad_norm = take(last) if take else state.norms[last]
    names = ("mean", "zenith", "scale", "count", "skipped")
    return {"grad_norm": grad_norm, **{name: getattr(state, name) for name in names}}


def to_dict(state: ZenithState) -> dict[str, Any]:
    """Return the state as a document that `json` can write and every framework can load.

    It holds plain Python numbers, no dtype and no name of a framework. A float32 number is
    written exactly.

    Examples:
        >>> to_dict(update(init(window=2), 3.0))  # doctest: +NORMALIZE_WHITESPACE
        {'version': 1, 'norms': [3.0, 0.0], 'count': 1, 'mean': 0.0, 'zenith': 0.0,
         'scale': 1.0, 'skipped': 0}
    """
    return {"version": _VERSION, **{name: _python(x) for name, x in state._asdict().items()}}


def from_dict(document: Mapping[str, Any]) -> ZenithState:
    """Return the state, in plain Python numbers, that `to_dict` wrote.

    Raises:
        ValueError: naming the field, if one is missing, unknown or impossible, or if the document
            is of another version.

    Examples:
        >>> state = update(init(window=2), 3.0)
        >>> from_dict(to_dict(state)) == state
        True
    """
    if not isinstance(document, Mapping):
        raise TypeError(f"`document` must be a mapping, got {type(document).__name__}")
    _check_fields(document)
    floats = {name: _float(name, document[name]) for name in ("mean", "zenith", "scale")}
    counts = {name: _count(name, document[name]) for name in ("count", "skipped")}
    norms = [_float("norms", norm) for norm in _sequence(document["norms"])]
    if floats["scale"] > 1:
        raise ValueError(f"`scale` must be at most 1, got {floats['scale']!r}")
    if floats["mean"] > floats["zenith"]:
        raise ValueError(
            f"`mean` must be at most `zenith` = {floats['zenith']!r}, got {floats['mean']!r}"
        )
    state = ZenithState(norms=norms, **floats, **counts)
    if state.zenith == 0 and state.scale != 1:
        raise ValueError(f"`scale` must be 1 where `zenith` is 0, got {state.scale!r}")
    if state.count < len(norms) and state.zenith > 0:
        raise ValueError(f"`zenith` must be 0 until the window is full, got {state.zenith!r}")
    return state


def checked_window(window: Any) -> int:
    """Return the window, if it is one.

    Raises:
        TypeError, ValueError: as `init` does.
    """
    if isinstance(window, bool) or not isinstance(window, Integral):
        raise TypeError(f"`window` must be an integer >= 1, got {window!r}")
    if window < 1:
        raise ValueError(f"`window` must be an integer >= 1, got {window!r}")
    return int(window)


def checked_nonfinite(nonfinite: NonFinite) -> NonFinite:
    """Return what is to be done with a gradient that is not finite, if it is one of the two.

    Raises:
        ValueError: if it is not.
    """
    if nonfinite not in ("skip", "propagate"):
        raise ValueError(f'`nonfinite` must be "skip" or "propagate", got {nonfinite!r}')
    return nonfinite


def dtype_for(dtypes: Iterable[str]) -> str:
    """Return the dtype of a state by the names of the parameters' dtypes.

    It is float64 as soon as one of them is, or complex128, and never less than float32.

    Examples:
        >>> dtype_for(["bfloat16", "float16"]), dtype_for(["float32", "float64"])
        ('float32', 'float64')
    """
    return "float32" if {"float64", "complex128"}.isdisjoint(dtypes) else "float64"


def checked(state: ZenithState, window: int, largest: float) -> ZenithState:
    """Return a copy, in plain Python numbers, of a state that an adapter is asked to take over.

    Args:
        state: a state of any framework.
        window: how many norms it must hold.
        largest: the largest number that the adapter's dtype can hold.

    Raises:
        TypeError: if it is no `ZenithState`.
        ValueError: if it is of another window, or holds an impossible value.
    """
    if not isinstance(state, ZenithState):
        raise TypeError(f"the state must be a ZenithState, got {type(state).__name__}")
    state = from_dict(to_dict(state))
    if len(state.norms) != window:
        raise ValueError(
            f"`window` of the state must be that of this schedule, {window}, got {len(state.norms)}"
        )
    if (highest := max(*state.norms, state.zenith)) > largest:
        raise ValueError(f"the norms of the state must be at most {largest:.4g}, got {highest!r}")
    return state


def _window(state: ZenithState) -> int:
    shape = getattr(state.norms, "shape", None)  # a symbolic tensor has a shape but no len()
    return len(state.norms) if shape is None else int(shape[0])


def _push(state: ZenithState, norm: Any, accepted: Any, xp: Any) -> Any:
    """The ring with `norm` in place of its oldest entry."""
    slot = state.count % _window(state)
    if xp is python:
        norms = list(state.norms)
        if accepted:
            norms[slot] = norm
        return norms
    # A `where` over the slots needs no scatter, which every library spells in its own way.
    slots = xp.arange(_window(state), dtype=state.count.dtype)
    return xp.where(accepted & (slots == slot), norm, state.norms)


def _mean(norms: Any, xp: Any) -> Any:
    """The mean, summed anew so that it cannot drift, and free of overflow for finite norms."""
    if xp is not python:
        return xp.sum(norms / norms.shape[0])
    mean = sum(norms) / len(norms)
    return mean if mean < math.inf else min(sum(n / len(norms) for n in norms), max(norms))


def _python(value: Any) -> Any:
    """The value of any framework's array as a plain Python number or a list of them."""
    if isinstance(value, list | tuple):
        return list(value)
    if not hasattr(value, "tolist") and hasattr(value, "numpy"):
        value = value.numpy()  # a TensorFlow tensor
    return value.tolist() if hasattr(value, "tolist") else value


def _check_fields(document: Mapping[str, Any]) -> None:
    fields = {"version", *ZenithState._fields}
    if missing := sorted(fields - document.keys()):
        raise ValueError(f"the document of a ZENITH state lacks {', '.join(missing)}")
    if unknown := sorted(map(str, document.keys() - fields)):
        raise ValueError(f"the document of a ZENITH state has unknown fields: {', '.join(unknown)}")
    if document["version"] != _VERSION or document["version"] is True:
        raise ValueError(f"`version` must be {_VERSION}, got {document['version']!r}")


def _sequence(norms: Any) -> Any:
    if not isinstance(norms, list | tuple) or not norms:
        raise ValueError(f"`norms` must be a list of at least one number, got {norms!r}")
    return norms


def _float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"`{name}` must be a number, got {value!r}")
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"`{name}` must be finite and >= 0, got {value!r}")
    return float(value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"`{name}` must be an integer >= 0, got {value!r}")
    return value
