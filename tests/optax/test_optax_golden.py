"""The golden vectors through the transformations: gradients in, the schedule's state out."""

import jax
import jax.numpy as jnp
import optax
import pytest
from _golden import CASES, assert_golden, norms
from _x64 import enable_x64

from zenith.optax import scale_by_zenith, with_zenith, zenith, zenith_state

MAKERS = {
    "zenith": lambda window: zenith(0.1, window, momentum=0.9),
    "scale_by_zenith": scale_by_zenith,
    "with_zenith": lambda window: with_zenith(optax.adam(0.1), window),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-6), (True, 1e-14)])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_transformations(make, x64, tolerance, case):
    with enable_x64(x64):
        optimizer = make(case["window"])
        params = jnp.zeros(1)
        update = jax.jit(optimizer.update)
        state, states = optimizer.init(params), []
        for norm in norms(case):
            _, state = update(jnp.array([norm]), state, params)
            states.append(zenith_state(state))
        assert states[-1].norms.dtype == params.dtype
        assert_golden(case, states, tolerance)
