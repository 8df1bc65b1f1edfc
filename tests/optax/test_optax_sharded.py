"""8 devices: sharded parameters under jit, and shard_map with a norm that is given."""

import os
import subprocess
import sys

import _reference

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from _reference import ROUNDING, scales
from zenith.optax import zenith, zenith_state

assert jax.device_count() == 8
mesh = Mesh(np.array(jax.devices()), ("x",))
numbers = np.random.default_rng(0)
grads = [s * numbers.standard_normal((16, 3)).astype("float32") for s in (1, 3, 0.5, 2, 0.3, 0.1)]
wanted = scales([np.linalg.norm(g.astype("float64")) for g in grads], 2)
assert min(wanted) < 0.7
optimizer = zenith(0.1, window=2, momentum=0.9)
sharded, whole = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())

def alone():
    params = jnp.ones((16, 3))
    state = optimizer.init(params)
    for g in grads:
        updates, state = optimizer.update(jnp.asarray(g), state, params)
        params = optax.apply_updates(params, updates)
    return params

def step(params, state, g, grad_norm=None):
    updates, state = optimizer.update(g, state, params, grad_norm=grad_norm)
    return optax.apply_updates(params, updates), state

# parameters sharded by NamedSharding, under jit: the norm is global by itself
params = jax.device_put(jnp.ones((16, 3)), sharded)
state = jax.jit(optimizer.init)(params)
state = jax.device_put(state, jax.tree.map(lambda x: sharded if x.ndim == 2 else whole, state))
before = jax.tree.map(lambda x: x.sharding, state)
for g, scale in zip(grads, wanted, strict=True):
    params, state = jax.jit(step)(params, state, jax.device_put(g, sharded))
    np.testing.assert_allclose(zenith_state(state).scale, scale, rtol=ROUNDING)
same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, before)
assert all(jax.tree.leaves(same)), same
np.testing.assert_allclose(params, alone(), rtol=ROUNDING, atol=ROUNDING)

# shard_map: each device sees its rows alone, and hands the norm of all of them on
specs = jax.tree.map(lambda x: P("x") if x.ndim == 2 else P(), state)

def local(params, state, g):
    norm = jnp.sqrt(jax.lax.psum(jnp.sum(jnp.square(g)), "x"))
    return step(params, state, g, grad_norm=norm)

mapped = jax.jit(
    jax.shard_map(local, mesh=mesh, in_specs=(P("x"), specs, P("x")), out_specs=(P("x"), specs))
)
params = jax.device_put(jnp.ones((16, 3)), sharded)
state = optimizer.init(params)
for g, scale in zip(grads, wanted, strict=True):
    params, state = mapped(params, state, jnp.asarray(g))
    np.testing.assert_allclose(zenith_state(state).scale, scale, rtol=ROUNDING)
np.testing.assert_allclose(params, alone(), rtol=ROUNDING, atol=ROUNDING)

# data parallelism: every device has all parameters, and the mean of the gradients by a psum
def replica(params, state, g):
    return step(params, state, jax.lax.pmean(g[0], "x"))

mapped = jax.jit(
    jax.shard_map(replica, mesh=mesh, in_specs=(P(), P(), P("x")), out_specs=(P(), P()))
)
params = jnp.ones((16, 3))
state = optimizer.init(params)
for g, scale in zip(grads, wanted, strict=True):
    parts = numbers.standard_normal((8, 16, 3)).astype("float32")
    parts += g - parts.mean(0)
    params, state = mapped(params, state, jnp.asarray(parts))
    np.testing.assert_allclose(zenith_state(state).scale, scale, rtol=ROUNDING)
np.testing.assert_allclose(params, alone(), rtol=ROUNDING, atol=ROUNDING)

# pmap: the same, with the devices in an axis of parameters, state and gradients
def summed(params, state, g):
    return step(params, state, jax.lax.psum(g, "x"))

params = jnp.ones((8, 16, 3))
state = jax.pmap(optimizer.init)(params)
before = jax.tree.map(lambda x: x.sharding, state)
for g, scale in zip(grads, wanted, strict=True):
    parts = numbers.integers(-4, 5, (8, 16, 3)).astype("float32")
    parts[0] = g - parts[1:].sum(0)
    params, state = jax.pmap(summed, "x")(params, state, jnp.asarray(parts))
    np.testing.assert_allclose(zenith_state(state).scale, [scale] * 8, rtol=ROUNDING)
same = jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, before)
assert all(jax.tree.leaves(same)), same
np.testing.assert_allclose(params, np.stack([alone()] * 8), rtol=ROUNDING, atol=ROUNDING)
print("done")
"""


def test_8_devices_have_the_scale_of_one():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    here = os.path.dirname(os.path.abspath(_reference.__file__))
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **flags, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr[-3000:]
