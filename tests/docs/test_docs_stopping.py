"""The page about stopping: its last rates and its averages, by hand."""

import numpy as np
import pytest
from test_docs import ROOT, blocks

DECAY = 0.998
CODE = blocks(ROOT / "docs" / "stopping.md")


def mean_of(weights, decay=DECAY):
    """An exponential mean that begins with the first weights."""
    first, *others = [np.asarray(each, np.float64) for each in weights]
    for each in others:
        first = decay * first + (1 - decay) * each
    return first


def test_torch(monkeypatch):
    import torch

    from zenith.torch import Zenith

    rates, weights, step = [], [], Zenith.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        step(self, *args, **kwargs)
        weights.append(self.param_groups[0]["params"][0].detach().clone().numpy())

    monkeypatch.setattr(Zenith, "step", watched)
    torch.manual_seed(0)
    names = {}
    exec(CODE[0], names)
    falling = [0.1 * (1 - i / 20) for i in range(20)]
    assert rates == pytest.approx([0.1] * 200 + falling, rel=1e-12)
    assert names["optimizer"].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    names["optimizer"].param_groups[0]["lr"] = 0.1  # so that there is something to average
    exec(CODE[3], names)
    found = names["averaged"].module.weight.detach().numpy()
    assert len(weights) == 270
    assert found == pytest.approx(mean_of(weights[220:]), rel=1e-5)
    assert not np.allclose(found, weights[-1], rtol=1e-3)


def test_keras(monkeypatch):
    import keras

    keras.utils.set_random_seed(0)
    weights, fit = [], keras.Model.fit

    def watched(self, *args, callbacks=(), **kwargs):
        keep = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: weights.append(np.array(self.layers[0].kernel))
        )
        return fit(self, *args, callbacks=[*callbacks, keep], **kwargs)

    monkeypatch.setattr(keras.Model, "fit", watched)
    names = {}
    exec(CODE[1], names)
    rates = names["history"].history["learning_rate"]
    assert rates == pytest.approx([0.01 * (1 - epoch / 10) for epoch in range(10)], rel=1e-6)
    weights.clear()
    exec(CODE[4], names)
    found = np.array(names["net"].layers[0].kernel)
    assert len(weights) == 10
    assert found == pytest.approx(mean_of(weights), rel=1e-5)
    assert not np.allclose(found, weights[-1], rtol=1e-6)


def test_optax():
    import jax

    rates, weights, names = [], [], {}
    begun, cooled = CODE[2].split("for i, key in enumerate")
    exec(begun, names)
    update = names["update"]

    def watched(params, state, inputs):
        rates.append(float(state.hyperparams["learning_rate"]))
        params, state = update(params, state, inputs)
        weights.append(np.asarray(params))
        return params, state

    names["update"] = watched
    exec(f"for i, key in enumerate{cooled}", names)
    assert rates == pytest.approx([0.1 * (1 - i / 20) for i in range(20)], rel=1e-6)
    assert update._cache_size() == 1  # the rate is no reason to compile again
    weights.clear()
    names["state"].hyperparams["learning_rate"] = jax.numpy.float32(0.1)
    exec(CODE[5], names)
    total = sum((1 - DECAY) * DECAY**i * w for i, w in enumerate(reversed(weights)))
    found = np.asarray(names["averaged_params"])
    assert found == pytest.approx(total / (1 - DECAY ** len(weights)), rel=1e-4)
