"""ZENITH for Keras 3: optimizers, a schedule and a callback, on each of Keras' backends."""

try:
    import keras as _keras  # noqa: F401
except ImportError as error:
    raise ImportError(
        "zenith.tf needs Keras 3 and a backend of it (TensorFlow, JAX or PyTorch), which is not "
        f'installed: pip install "zenith-optim[tf]" ({error})'
    ) from error

from zenith.tf._logger import ZenithLogger
from zenith.tf._optimizer import Zenith, ZenithWrapper
from zenith.tf._schedule import ZenithSchedule

__all__ = ["Zenith", "ZenithLogger", "ZenithSchedule", "ZenithWrapper"]
