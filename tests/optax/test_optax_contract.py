"""What optax asks of the optimizers contributed to it: optax's own tests, put to ours."""

import inspect

import jax
import jax.numpy as jnp
import optax
import pytest
from optax.contrib import _common_test as contract

import zenith.optax

WINDOW = 5


def zenith_sgd(learning_rate: optax.ScalarOrSchedule):
    return zenith.optax.zenith(learning_rate, WINDOW)


def zenith_momentum(learning_rate: optax.ScalarOrSchedule):
    return zenith.optax.zenith(learning_rate, WINDOW, momentum=0.9, nesterov=True)


def with_zenith_adam(learning_rate: optax.ScalarOrSchedule):
    return zenith.optax.with_zenith(optax.adam(learning_rate), WINDOW)


def scale_by_zenith_sgd(learning_rate: optax.ScalarOrSchedule):
    return optax.chain(zenith.optax.scale_by_zenith(WINDOW), optax.sgd(learning_rate))


# The rates are as high as Rosenbrock's function bears: under ZENITH the error of gradient descent
# falls as 1 / (rate * steps), so that at 1e-3 optax's 30,000 steps are too few for the parabola.
RATES = {
    zenith_sgd: 0.01,
    zenith_momentum: 0.003,
    with_zenith_adam: 0.01,
    scale_by_zenith_sgd: 0.01,
}
TARGETS = ("parabola", "rosenbrock", "matrix_parabola", "mixed_tensor_target")
# optax's tests put reduce_on_plateau *after* the optimizer, and hand it its `value`.
PLATEAU = {"wrapper_name": "reduce_on_plateau", "wrapper_kwargs": {}}
ALONE = {"wrapper_name": None, "wrapper_kwargs": None}
WRAPPERS = {"alone": ALONE, "reduce_on_plateau": PLATEAU}


@pytest.fixture(params=RATES, ids=lambda factory: factory.__name__)
def put(request, monkeypatch):
    """What runs one of optax's tests, as it was before it was spread over optax's optimizers."""
    # They find an optimizer by its name in `optax.contrib`.
    monkeypatch.setattr(optax.contrib, "ours", request.param, raising=False)
    # Before 0.2.7 some were spread over ways to compile as well.
    monkeypatch.setattr(contract.ContribTest, "variant", staticmethod(jax.jit), raising=False)

    def run(test, **arguments):
        spread = (f"{test}0", f"{test}_(")
        found = next(m for name, m in vars(contract.ContribTest).items() if name.startswith(spread))
        ours = {"opt_name": "ours", "opt_kwargs": {"learning_rate": RATES[request.param]}}
        inspect.unwrap(found)(contract.ContribTest(), **ours, **arguments)

    return run


def test_it_takes_arguments_of_others_and_compiles_once(put):
    put("test_optimizers_accept_extra_args", **ALONE, wrap=False)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_it_converges(put, wrapper, target):
    target = getattr(contract, f"_setup_{target}")
    put("test_optimizers", **wrapper, target=target, dtype="float32")


def test_its_hyperparameters_can_be_injected(put):
    put("test_optimizers_can_be_wrapped_in_inject_hyperparams", **ALONE)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("test", ["test_preserve_dtype", "test_gradient_accumulation"])
def test_in_half_precision_and_under_multi_steps(put, test, wrapper, dtype):
    put(test, **wrapper, dtype=dtype)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_its_state_is_stable_in_shape_dtype_and_sharding(put, dtype):
    put("test_state_shape_dtype_shard_stability", **ALONE, dtype=dtype)


def test_a_constant_schedule_is_a_rate(put):
    put("test_optimizers_accept_learning_rate_schedule_if_type_annotated_as_such", **ALONE)
