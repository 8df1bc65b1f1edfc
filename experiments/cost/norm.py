"""How wrong a norm is, and how long it takes.

Each row has the relative error of a float32 norm against one in float64, ZENITH's own first and
then what else the library offers; a dot product's error is the processor's. The contract is 1e-5
for normal entries and 1e-4 for equal ones, which is the worst case: every rounding of the sum goes
the same way. Times are medians of interleaved calls.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from experiments.cost.cases import Document, made
from experiments.cost.paired import clock, interleaved, quartiles
from experiments.markdown import grid

__all__ = ["VALUES", "errors", "exact", "measure", "table"]

Array = np.ndarray[Any, np.dtype[np.float32]]
SIZES = [1_000, 65_535, 65_536, 2_359_297, 20_000_000]
Library = tuple[Callable[[Array], Any], dict[str, Callable[[Any], Any]]]


def normal(size: int) -> Array:
    """Entries of a normal distribution, the same in every run."""
    return np.random.default_rng(0).standard_normal(size, dtype=np.float32)


def spike(size: int) -> Array:
    """Normal entries, and one that is as large as all of them together."""
    entries = normal(size)
    entries[size // 2] = math.sqrt(size)
    return entries


VALUES: dict[str, Callable[[int], Array]] = {
    "normal": normal,
    "equal": lambda size: np.full(size, 0.697, np.float32),
    "one spike": spike,
    "tiny": lambda size: np.float32(1e-15) * normal(size),
    "huge": lambda size: np.float32(1e15) * normal(size),
}


def torch_norms() -> Library:
    """How an array becomes a gradient, and the norms of it."""
    import torch

    from zenith.torch._norm import norm_or_number, partial_norms

    return torch.from_numpy, {
        "zenith.torch": lambda x: norm_or_number(partial_norms([x])),
        "dot": lambda x: x.dot(x).sqrt(),
        "vector_norm": torch.linalg.vector_norm,
        "split, dot": lambda x: math.hypot(*(p.dot(p).sqrt() for p in torch.split(x, 65_536))),
    }


def keras_norms() -> Library:
    """The same on the backend of Keras that KERAS_BACKEND names."""
    from keras import ops

    from zenith.tf._norm import global_norm

    return ops.convert_to_tensor, {
        "zenith.tf": lambda x: global_norm([x], "float32"),
        "sum of squares": lambda x: ops.sqrt(ops.sum(ops.square(x))),
    }


def optax_norms() -> Library:
    """The same in JAX, where the norm is part of a compiled step."""
    import jax
    import jax.numpy as jnp

    from zenith.optax import scale_by_zenith, zenith_state

    def own(x: jax.Array) -> jax.Array:
        optimizer = scale_by_zenith(window=1)
        return zenith_state(optimizer.update(x, optimizer.init(x))[1]).mean

    return jnp.asarray, {
        "zenith.optax": jax.jit(own),
        "sum of squares": jax.jit(lambda x: jnp.sqrt(jnp.sum(jnp.square(x)))),
        "vdot": jax.jit(lambda x: jnp.sqrt(jnp.vdot(x, x))),
    }


LIBRARIES = {"torch": torch_norms, "keras": keras_norms, "optax": optax_norms}


def exact(entries: Array) -> float:
    """The norm in float64, without a copy of all entries at once."""
    pieces = (entries[at : at + 2**20] for at in range(0, entries.size, 2**20))
    return math.sqrt(math.fsum(np.square(p, dtype=np.float64).sum() for p in pieces))


def errors(library: Library, size: int, value: str) -> dict[str, float]:
    """The relative error of each norm."""
    to_gradient, norms = library
    entries = VALUES[value](size)
    gradient, expected = to_gradient(entries), exact(entries)
    return {name: abs(float(norm(gradient)) / expected - 1) for name, norm in norms.items()}


def medians(library: Library, size: int, repetitions: int) -> dict[str, float]:
    """The milliseconds of each norm, of normal entries."""
    to_gradient, norms = library
    gradient = to_gradient(normal(size))
    runs = {name: clock(partial(_read, norm, gradient)) for name, norm in norms.items()}
    samples = interleaved(runs, repetitions)
    return {name: quartiles(sample)["median"] for name, sample in samples.items()}


def _read(norm: Callable[[Any], Any], gradient: Any) -> float:
    return float(norm(gradient))


def measure(options: Any) -> Document:
    """Return the errors and times of every norm, for each number of threads where there is one."""
    threads = [options.threads] if options.threads else [1, 2]
    if options.library != "torch":
        threads = [None]
    return {
        "made": made(library=options.library),
        "rows": [row for number in threads for row in _rows(options, number)],
    }


def _rows(options: Any, threads: int | None) -> Iterator[Document]:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    library = LIBRARIES[options.library]()
    for size in options.sizes or SIZES:
        start = {"threads": threads, "entries": size}
        for value in VALUES:
            yield {**start, "what": value, "norms": errors(library, size, value)}
        yield {**start, "what": "ms", "norms": medians(library, size, options.repetitions)}


def table(document: Document) -> str:
    """All rows as one table in Markdown."""
    rows = []
    for row in document["rows"]:
        form = "#.3g" if row["what"] == "ms" else ".1e"
        cells = [format(number, form) for number in row["norms"].values()]
        rows.append([f"{row['entries']:,}", str(row["threads"] or ""), row["what"], *cells])
    return grid(["entries", "threads", "values", *document["rows"][0]["norms"]], rows)
