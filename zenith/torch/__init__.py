"""ZENITH for PyTorch: the optimizer `Zenith`, and the scheduler `ZenithLR` for any optimizer."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        'zenith.torch needs PyTorch, which is not installed: pip install "zenith-optim[torch]"'
    ) from error

from zenith.torch._optimizer import Zenith
from zenith.torch._scheduler import ZenithLR

__all__ = ["Zenith", "ZenithLR"]
