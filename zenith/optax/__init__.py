"""ZENITH for JAX, as optax transformations: SGD, a scale for `optax.chain`, and a wrapper."""

try:
    import optax as _optax  # noqa: F401
except ImportError as error:
    raise ImportError(
        "zenith.optax needs JAX and optax, which are not installed: "
        f'pip install "zenith-optim[optax]" ({error})'
    ) from error

from zenith.optax._state import set_zenith_state, zenith_state
from zenith.optax._transform import WithZenithState, scale_by_zenith, with_zenith, zenith

__all__ = [
    "WithZenithState",
    "scale_by_zenith",
    "set_zenith_state",
    "with_zenith",
    "zenith",
    "zenith_state",
]
