"""ZENITH: SGD that sets its own learning rate from the history of the gradient norm.

`import zenith` needs Python alone. The optimizers are in `zenith.torch` (PyTorch), `zenith.tf`
(Keras 3) and `zenith.optax` (JAX), each of which is imported where it is first used; the schedule
itself, for any use, is `init`, `update` and the state that they pass on.
"""

from typing import TYPE_CHECKING, Any

from zenith.core import ZenithState, ZenithWarning, from_dict, init, metrics, to_dict, update

__all__ = ["ZenithState", "ZenithWarning", "from_dict", "init", "metrics", "to_dict", "update"]

_MODULES = {  # each with what must be installed for it
    "checkpoints": "zenith",
    "logs": "zenith",
    "optax": "optax",
    "plot": "matplotlib",
    "readers": "zenith",
    "replay": "zenith",
    "tf": "keras",
    "torch": "torch",
}

if TYPE_CHECKING:  # alone, so that a type checker still finds a name that is misspelt
    from zenith import checkpoints as checkpoints
    from zenith import logs as logs
    from zenith import optax as optax
    from zenith import plot as plot
    from zenith import readers as readers
    from zenith import replay as replay
    from zenith import tf as tf
    from zenith import torch as torch
else:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    from importlib.util import find_spec

    return sorted({*globals(), *(name for name, needed in _MODULES.items() if find_spec(needed))})
