"""How wrong a norm is, and how long it takes: `python -m benchmarks.norm`.

Each line shows the relative error of a float32 norm against one in float64, ZENITH's own first and
then what else the library offers; a dot product's error is the processor's. The contract is 1e-5
for normal entries and 1e-4 for equal ones, which is the worst case: every rounding of the sum goes
the same way. Times are medians of interleaved calls.
"""

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]
Candidates = dict[str, Callable[[Any], Any]]

SIZES = [1_000, 65_535, 65_536, 2_359_297, 20_000_000]


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


def torch_norms() -> tuple[Callable[[Array], Any], Candidates]:
    """How an array becomes a gradient, and the norms of it."""
    import torch

    from zenith.torch._norm import norm_or_number, partial_norms

    return torch.from_numpy, {
        "zenith.torch": lambda x: norm_or_number(partial_norms([x])),
        "dot": lambda x: x.dot(x).sqrt(),
        "vector_norm": torch.linalg.vector_norm,
        "split, dot": lambda x: math.hypot(*(p.dot(p).sqrt() for p in torch.split(x, 65_536))),
    }


def keras_norms() -> tuple[Callable[[Array], Any], Candidates]:
    """The same on the backend of Keras that KERAS_BACKEND names."""
    from keras import ops

    from zenith.tf._norm import global_norm

    return ops.convert_to_tensor, {
        "zenith.tf": lambda x: global_norm([x], "float32"),
        "sum of squares": lambda x: ops.sqrt(ops.sum(ops.square(x))),
    }


def optax_norms() -> tuple[Callable[[Array], Any], Candidates]:
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


def errors(library: str, size: int, value: str) -> dict[str, float]:
    """The relative error of each candidate."""
    to_gradient, candidates = LIBRARIES[library]()
    entries = VALUES[value](size)
    gradient, expected = to_gradient(entries), exact(entries)
    return {name: abs(float(norm(gradient)) / expected - 1) for name, norm in candidates.items()}


def milliseconds(library: str, size: int, repetitions: int) -> dict[str, float]:
    """The median time of each candidate on normal entries."""
    to_gradient, candidates = LIBRARIES[library]()
    gradient, draw = to_gradient(normal(size)), random.Random(0)
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(repetitions + 1):  # the first, which may compile, is thrown away
        for name in draw.sample(list(candidates), len(candidates)):
            start = time.perf_counter()
            float(candidates[name](gradient))
            if repetition:
                samples[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(sample) for name, sample in samples.items()}


def table(library: str, sizes: Sequence[int], repetitions: int) -> Iterator[str]:
    """The lines of the report, as they are measured."""
    names = list(LIBRARIES[library]()[1])
    yield f"{'entries':>13}  {'':<10}" + "".join(f"{name:>16}" for name in names)
    for size in sizes:
        for value in VALUES:
            cells = "".join(f"{error:>16.1e}" for error in errors(library, size, value).values())
            yield f"{size:>13,}  {value:<10}{cells}"
        times = milliseconds(library, size, repetitions)
        yield f"{size:>13,}  {'ms':<10}" + "".join(f"{ms:>16.3f}" for ms in times.values())


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.norm", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--library", choices=list(LIBRARIES), default="torch")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="to 10**8")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="torch")
    parser.add_argument("--repetitions", type=int, default=9, metavar="N")
    options = parser.parse_args(argv)
    for threads in options.threads if options.library == "torch" else [None]:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        print(f"{options.library}, {threads or 'all'} threads: relative errors, and milliseconds")
        for line in table(options.library, options.sizes, options.repetitions):
            print(line, flush=True)


if __name__ == "__main__":
    main()
