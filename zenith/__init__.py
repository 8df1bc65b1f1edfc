"""ZENITH: SGD that sets its own learning rate from the history of the gradient norm.

`import zenith` needs Python alone. The optimizers are in `zenith.torch` (PyTorch), `zenith.tf`
(Keras 3) and `zenith.optax` (JAX); the schedule itself, for any use, is `init`, `update` and the
state that they pass on.
"""

from zenith.core import ZenithState, ZenithWarning, from_dict, init, metrics, to_dict, update

__all__ = ["ZenithState", "ZenithWarning", "from_dict", "init", "metrics", "to_dict", "update"]
