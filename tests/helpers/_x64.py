"""64-bit numbers in JAX for a while; `jax.enable_x64` is only there since JAX 0.8."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def enable_x64(on: bool) -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", on)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)
