"""Training on a mesh of devices, in one process or several: prints what happened as JSON.

python _optax_mesh.py                        on the devices of this process
python _optax_mesh.py ADDRESS COUNT INDEX    as one of COUNT processes
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from zenith.optax import zenith, zenith_state

SIZES = (1.0, 3.0, 0.5, 2.0, 0.3, 0.1)  # of the targets: they move the scale
BOTH = ("data", "model")
# For each layout: where the four parameters lie, and where the rows of a batch lie.
LAYOUTS = {
    "data": ([P(), P(), P(), P()], P(BOTH)),
    "fsdp": ([P(BOTH), P(BOTH), P(BOTH), P()], P(BOTH)),
    "tensor": ([P(None, "model"), P("model"), P("model", None), P()], P()),
    "fsdp and tensor": ([P("data", "model"), P("model"), P("model", "data"), P()], P("data")),
}
COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
OPTIMIZERS = {
    "zenith": zenith(0.1, window=2, momentum=0.9),
    "sgd": optax.sgd(0.1, momentum=0.9),
    "clip": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
}


def numbers():
    draw = np.random.default_rng(0).standard_normal
    weights = [draw(shape) for shape in ((16, 32), (32,), (32, 8), (8,))]
    batches = [(draw((16, 16)), size * draw((16, 8))) for size in SIZES]
    return jax.tree.map(lambda x: x.astype("float32"), (weights, batches))


def loss(params, x, y):
    w, b, v, c = params
    return jnp.mean(jnp.square(jnp.tanh(x @ w + b) @ v + c - y))


def step_of(optimizer):
    @jax.jit
    def step(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    return step


def sharded_state(optimizer, params, scalars):
    """The first state: momentum where its parameters lie, all else where `scalars` says."""
    shapes = jax.eval_shape(optimizer.init, params)
    places = optax.tree.map_params(
        optimizer,
        lambda _, param: param.sharding,
        shapes,
        params,
        transform_non_params=lambda _: scalars,
    )
    return jax.jit(optimizer.init, out_shardings=places)(params)


def run(put_parameters, put_batch, scalars):
    """Train; return the scale of every step, the parameters and whether the shardings stayed."""
    weights, batches = numbers()
    params, scales = put_parameters(weights), []
    optimizer = OPTIMIZERS["zenith"]
    state = sharded_state(optimizer, params, scalars)
    before = jax.tree.map(lambda x: x.sharding, (params, state))
    step = step_of(optimizer)
    for x, y in batches:
        params, state = step(params, state, put_batch(x), put_batch(y))
        scales.append(float(zenith_state(state).scale))
    after = jax.tree.map(
        lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), (params, state), before
    )
    return {"scales": scales, "stayed": all(jax.tree.leaves(after)), "params": params}


def collectives(optimizer, params, batch, scalars):
    """The type of what every collective of the compiled step puts out, and its name."""
    state = sharded_state(optimizer, params, scalars)
    text = step_of(optimizer).lower(params, state, *batch).compile().as_text()
    return COLLECTIVE.findall(text)


def main():
    if len(sys.argv) > 1:
        address, count, index = sys.argv[1:]
        jax.distributed.initialize(address, int(count), int(index))
    mesh = jax.make_mesh((jax.device_count() // 4, 4), BOTH, axis_types=(AxisType.Auto,) * 2)
    weights, batches = numbers()
    document = {"devices": [jax.device_count(), jax.local_device_count()]}
    document["alone"] = run(lambda ws: [jnp.asarray(w) for w in ws], jnp.asarray, None)
    alone = [np.asarray(p) for p in document["alone"].pop("params")]

    everywhere = NamedSharding(mesh, P())
    for name, (specs, rows) in LAYOUTS.items():

        def put(x, spec):
            sharding = NamedSharding(mesh, spec)
            return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

        def put_all(ws, specs=specs, put=put):
            return [put(w, spec) for w, spec in zip(ws, specs, strict=True)]

        def put_rows(x, rows=rows, put=put):
            return put(x, rows)

        found = run(put_all, put_rows, everywhere)
        whole = jax.jit(lambda x: x, out_shardings=everywhere)
        params = [np.asarray(whole(p).addressable_data(0)) for p in found.pop("params")]
        pairs = zip(params, alone, strict=True)
        found["error"] = max(float(np.abs(a - b).max()) for a, b in pairs)
        batch = [put_rows(x) for x in batches[0]]
        found["collectives"] = {
            key: collectives(optimizer, put_all(weights), batch, everywhere)
            for key, optimizer in OPTIMIZERS.items()
        }
        document[name] = found
    print(json.dumps(document))


main()
