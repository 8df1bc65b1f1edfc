"""`zenith`, `scale_by_zenith` and `with_zenith`: the schedule as optax transformations."""

from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from zenith import core
from zenith.core import NonFinite, ZenithState
from zenith.optax._state import init as init_state
from zenith.optax._state import observe

__all__ = ["WithZenithState", "scale_by_zenith", "with_zenith", "zenith"]


class WithZenithState(NamedTuple):
    """The state of `with_zenith`, and so of `zenith`.

    Attributes:
        zenith: the state of the schedule.
        inner: the state of the transformation inside.
    """

    zenith: ZenithState
    inner: optax.OptState


def scale_by_zenith(window: int = 500) -> optax.GradientTransformationExtraArgs:
    """Scale updates by ZENITH's factor, for `optax.chain`.

    The updates that come in are measured and multiplied by `mean_t / zenith_t`, where `mean_t` is
    the mean of the last `window` norms, this one included, and `zenith_t` the highest such mean so
    far (equations 1 to 3 and Algorithm 1 of Saha, arXiv 2601.15212); by 1 until `window` norms are
    known. The norm is the L2 norm of all leaves together, in at least float32; of sharded arrays
    under `jax.jit` it is global. Inside `shard_map` and `pmap` only the local part is visible: sum
    over the devices there, or hand the norm to `update` as `grad_norm`.

    Put it first, before any clipping: a clipped norm is constant, and the factor would stay 1, of
    which a `zenith.logs.MetricLog` warns that is handed `zenith.metrics(state)`. In
    `chain(scale_by_zenith(), sgd(lr, momentum))` the factor of a step goes into the momentum; in
    `with_zenith(sgd(lr, momentum))`, and so in `zenith`, it multiplies what comes out, as a
    learning rate does. The two are the same without momentum.

    Updates keep their dtype, but integers, which become floats: the product is no integer.

    It owns no step: a gradient that is not finite leaves the schedule as it was, counts in
    `skipped`, and goes through.

    Args:
        window: how many gradient norms the mean is taken over; an integer >= 1.

    Returns:
        A transformation, the state of which is a `zenith.ZenithState` of arrays. Its `update`
        takes `grad_norm`, a scalar: the norm of the gradient where the caller knows it already. It
        is recorded as it is given: a NaN that it hides is not found. `optax.MultiSteps` hands on
        that of the last micro-batch, so there leave it out.

    Raises:
        TypeError: if `window` is not a Python integer. (Under `optax.inject_hyperparams` pass
            `static_args=("window",)`, or it is traced.)
        ValueError: if `window` is less than 1; by `update`, if the state is of another window.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> from zenith.optax import scale_by_zenith
        >>> optimizer = optax.chain(scale_by_zenith(window=1), optax.sgd(0.5))
        >>> params = jnp.array([3.0, 4.0])
        >>> state = optimizer.init(params)
        >>> for gradient in ([3.0, 4.0], [1.5, 2.0]):
        ...     updates, state = optimizer.update(jnp.array(gradient), state, params)
        ...     print(updates.tolist())
        [-1.5, -2.0]
        [-0.375, -0.5]
    """
    _check_window(window)

    def init(params: optax.Params) -> ZenithState:
        return init_state(window, params)

    def update(
        updates: optax.Updates,
        state: ZenithState,
        params: optax.Params | None = None,
        *,
        grad_norm: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ZenithState]:
        del params, extra_args
        state = observe(state, updates, grad_norm, window)
        return _scaled(updates, state.scale), state

    return optax.GradientTransformationExtraArgs(init, update)


def with_zenith(
    inner: optax.GradientTransformation,
    window: int = 500,
    nonfinite: NonFinite = "skip",
) -> optax.GradientTransformationExtraArgs:
    """Put any optimizer under ZENITH: measure what comes in, scale what `inner` puts out.

    The updates of `inner` are multiplied by `mean_t / zenith_t` (see `scale_by_zenith`), which is
    its learning rate multiplied by that, decoupled weight decay included. As the gradient is
    measured before `inner` sees it, `inner` may clip.

    Within `optax.partition` or `optax.masked` it measures its own partition alone; put it outside
    for one norm over all, those that `inner` leaves alone among them.

    What relies on its own updates being applied as they are goes outside: `optax.lookahead` and
    `optax.contrib.schedule_free` around `zenith(...)`, not inside of `with_zenith`; `optax.lbfgs`
    with `value_and_grad_from_state`, not at all. `optax.lookahead` with `reset_state=True` empties
    the schedule at each synchronization: a window longer than its period never fills.

    Args:
        inner: an optimizer whose updates may be scaled, as a learning rate scales them.
        window: how many gradient norms the mean is taken over; an integer >= 1.
        nonfinite: what to do with a gradient whose norm is NaN or infinite. `"skip"` leaves the
            state of `inner` and the schedule as they were, returns updates of 0, and counts the
            step in `skipped`; `"propagate"` guards the schedule alone.

    Returns:
        A transformation, the state of which is a `WithZenithState`. Its `update` takes `grad_norm`
        (see `scale_by_zenith`), and hands it and every other extra argument on to `inner`.

    Raises:
        TypeError: if `window` is not a Python integer.
        ValueError: if an argument is out of its range; by `update`, if the state is of another
            window.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> from zenith.optax import with_zenith
        >>> optimizer = with_zenith(optax.sign_sgd(0.5), window=1)
        >>> params = jnp.array([3.0, 4.0])
        >>> state = optimizer.init(params)
        >>> for gradient in ([3.0, 4.0], [1.5, 2.0]):
        ...     updates, state = optimizer.update(jnp.array(gradient), state, params)
        ...     print(updates.tolist())
        [-0.5, -0.5]
        [-0.25, -0.25]
    """
    _check_window(window)
    core.checked_nonfinite(nonfinite)
    inner = optax.with_extra_args_support(inner)

    def init(params: optax.Params) -> WithZenithState:
        return WithZenithState(init_state(window, params), inner.init(params))

    def update(
        updates: optax.Updates,
        state: WithZenithState,
        params: optax.Params | None = None,
        *,
        grad_norm: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, WithZenithState]:
        after = observe(state.zenith, updates, grad_norm, window)
        if grad_norm is not None:
            extra_args["grad_norm"] = grad_norm
        updates, new_inner = inner.update(updates, state.inner, params, **extra_args)
        if nonfinite == "propagate":
            return _scaled(updates, after.scale), WithZenithState(after, new_inner)
        accepted = after.skipped == state.zenith.skipped
        updates, new_inner = _kept(accepted, updates, new_inner, state.inner)
        updates = _or_nothing(accepted, _scaled(updates, after.scale))
        return updates, WithZenithState(after, new_inner)

    return optax.GradientTransformationExtraArgs(init, update)


def zenith(
    learning_rate: optax.ScalarOrSchedule = 0.1,
    window: int = 500,
    momentum: float | None = None,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
    nonfinite: NonFinite = "skip",
) -> optax.GradientTransformationExtraArgs:
    """`optax.sgd` that sets its own rate from the history of the gradient norm.

    Step t is a step of SGD at `learning_rate * mean_t / zenith_t`, where `mean_t` is the mean of
    the last `window` gradient norms, this step's included, and `zenith_t` the highest such mean so
    far (equations 1 to 3 and Algorithm 1 of Saha, arXiv 2601.15212). Until `window` norms are known
    it is SGD. The steps are those of `with_zenith(optax.sgd(...))`, but that a schedule of the
    rate counts skipped steps too; see there and `scale_by_zenith` for what is measured.

    Args:
        learning_rate: the highest rate: a number >= 0, or an optax schedule, which ZENITH
            multiplies.
        window: how many gradient norms the mean is taken over; an integer >= 1.
        momentum: as of `optax.sgd`.
        nesterov: as of `optax.sgd`.
        accumulator_dtype: as of `optax.sgd`: of the momentum.
        nonfinite: what to do with a gradient whose norm is NaN or infinite. `"skip"` leaves
            momentum and schedule as they were, returns updates of 0, and counts the step in
            `skipped`; `"propagate"` guards the schedule alone.

    Returns:
        A transformation, in the state of which `zenith_state` finds the schedule's. Its `update`
        takes `grad_norm`, a scalar: the norm of the gradient where the caller knows it already.

    Raises:
        TypeError: if `window` is not a Python integer.
        ValueError: if an argument is out of its range; by `update`, if the state is of another
            window.

    Examples:
        >>> import jax.numpy as jnp, optax
        >>> from zenith.optax import zenith, zenith_state
        >>> optimizer = zenith(learning_rate=0.5, window=1)
        >>> params = jnp.array([3.0, 4.0])
        >>> state = optimizer.init(params)
        >>> for gradient in ([3.0, 4.0], [1.5, 2.0]):
        ...     updates, state = optimizer.update(jnp.array(gradient), state, params)
        ...     params = optax.apply_updates(params, updates)
        ...     print(zenith_state(state).scale, params.tolist())
        1.0 [1.5, 2.0]
        0.5 [1.125, 1.5]
    """
    if isinstance(learning_rate, Real) and not float(learning_rate) >= 0:
        raise ValueError(f"`learning_rate` must be >= 0, got {learning_rate!r}")
    if momentum is None:
        descent = optax.identity()
    else:
        descent = optax.trace(momentum, nesterov, accumulator_dtype)
    chain = optax.chain(
        with_zenith(descent, window, nonfinite), optax.scale_by_learning_rate(learning_rate)
    )
    if nonfinite == "propagate":
        return chain

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        before = state[0].zenith.skipped
        updates, state = chain.update(updates, state, params, **extra_args)
        # Once more: times the rate, the -0 of a skipped step has become 0.
        return _or_nothing(state[0].zenith.skipped == before, updates), state

    return optax.GradientTransformationExtraArgs(chain.init, update)


def _check_window(window: Any) -> None:
    if isinstance(window, jax.Array):
        raise TypeError(
            "`window` must be a Python integer, which the shape of the state depends on, got "
            f'{window!r}: with optax.inject_hyperparams, pass static_args=("window",)'
        )
    core.checked_window(window)


def _scaled(updates: optax.Updates, scale: jax.Array) -> optax.Updates:
    """The updates times the scale: each in its own dtype, multiplied in the wider of the two.

    Of integers and booleans the product is of the dtype of the scale.
    """

    def scaled(update: ArrayLike) -> jax.Array:
        update = jnp.asarray(update)
        if not jnp.issubdtype(update.dtype, jnp.inexact):
            update = update.astype(scale.dtype)
        wide = update.dtype  # jnp.promote_types refuses some pairs, under strict promotion most
        if not jnp.iscomplexobj(update) and wide.itemsize < scale.dtype.itemsize:
            wide = scale.dtype
        return (update.astype(wide) * scale.astype(wide)).astype(update.dtype)

    return jax.tree.map(scaled, updates)


def _kept(
    accepted: jax.Array, updates: optax.Updates, new: optax.OptState, old: optax.OptState
) -> tuple[optax.Updates, optax.OptState]:
    """The inner state if `accepted`, or else the old one; and updates that are part of it from it.

    Momentum is both state and update. Read where it was selected, XLA selects in place; computed a
    second time from the old momentum, that has to be copied first: three times the step on a CPU.
    """
    kept = _where(accepted, new, old)
    leaves = (jax.tree.leaves(tree) for tree in (new, kept))
    selected = {id(before): after for before, after in zip(*leaves, strict=True)}
    return jax.tree.map(lambda update: selected.get(id(update), update), updates), kept


def _or_nothing(accepted: jax.Array, updates: optax.Updates) -> optax.Updates:
    """The updates if `accepted`, or else -0, which also leaves a parameter of -0 as it is."""
    return _where(accepted, updates, jax.tree.map(lambda u: -jnp.zeros_like(u), updates))


def _where(condition: jax.Array, chosen: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, other)
