"""`zenith.logs` in JAX: metrics that come out of a jitted step with a donated state."""

import jax
import jax.numpy as jnp
import optax
import pytest

import zenith
from zenith.logs import MetricLog
from zenith.optax import zenith as sgd_under_zenith
from zenith.optax import zenith_state

NORMS = [3.0, 5.0, 1.0, 1.0]


def test_metrics_outlive_the_state_that_was_donated():
    optimizer = sgd_under_zenith(0.1, window=2)
    params = jnp.zeros(1)
    opt_state = optimizer.init(params)

    def step(params, opt_state, norm):
        updates, opt_state = optimizer.update(jnp.full(1, norm), opt_state, params)
        logs = zenith.metrics(zenith_state(opt_state))
        return optax.apply_updates(params, updates), opt_state, logs

    step = jax.jit(step, donate_argnums=(0, 1))
    seen = []
    with MetricLog(lambda step, numbers: seen.append((step, numbers))) as log:
        for norm in NORMS:
            params, opt_state, logs = step(params, opt_state, norm)
            log(logs)
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    assert [numbers["grad_norm"] for _, numbers in seen] == NORMS
    assert [numbers["scale"] for _, numbers in seen] == [1.0, 1.0, 0.75, 0.25]
    assert {type(value) for _, numbers in seen for value in numbers.values()} == {int, float}


def test_nothing_is_read_before_the_flush(monkeypatch):
    reads = []
    get = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda values: reads.append(len(values)) or get(values))
    with jax.transfer_guard_device_to_host("disallow_explicit"):
        log = MetricLog(every=10)
        for i in range(9):
            log({"scale": jnp.float32(i)})
    assert reads == []
    log.flush()
    assert reads == [9]


def test_a_state_and_more_scalars():
    seen = []
    with MetricLog(lambda step, numbers: seen.append(numbers)) as log:
        transformation = sgd_under_zenith(0.1, window=1)
        _, opt_state = transformation.update(jnp.ones(1), transformation.init(jnp.zeros(1)))
        log(zenith_state(opt_state), loss=jnp.float32(2.5))
    assert seen[0]["loss"] == 2.5
    assert seen[0]["scale"] == pytest.approx(1.0)


def test_clipping_before_zenith_in_the_chain_is_told():
    trap = optax.chain(optax.clip_by_global_norm(0.01), sgd_under_zenith(0.1, window=12))

    def run():
        params = jnp.zeros(1)
        opt_state = trap.init(params)
        with MetricLog() as log:
            for i in range(12):
                _, opt_state = trap.update(jnp.full(1, 1.0 + i), opt_state, params)
                log(zenith.metrics(zenith_state(opt_state)))

    with pytest.warns(zenith.ZenithWarning, match=r"all 0.01: .*ZENITH first in the `optax.chain`"):
        run()
