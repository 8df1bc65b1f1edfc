"""`zenith.logs.MetricLog`: what is logged, and when the device is read."""

import gc

import numpy as np
import pytest
import torch
from _trainers import Network, loader, plain_loop, zenith, zenith_lr
from torch._subclasses.fake_tensor import FakeTensorMode

import zenith as core
from zenith.logs import MetricLog
from zenith.torch import Zenith

pytestmark = [
    pytest.mark.filterwarnings("default"),  # of the libraries themselves
    pytest.mark.filterwarnings("error::zenith.ZenithWarning"),
]


def test_numbers_come_in_order_and_many_at_a_time():
    seen = []
    log = MetricLog(lambda step, numbers: seen.append((step, numbers["scale"])), every=2, step=10)
    state = core.init(window=1)
    for norm, known in zip([4.0, 3.0, 1.0], (0, 2, 2), strict=True):
        state = core.update(state, norm)
        log(state)
        assert len(seen) == known
    log.flush()
    log.flush()
    assert seen == [(11, 1.0), (12, 0.75), (13, 0.25)]


def test_each_step_is_handed_on_at_once_if_that_is_asked_for():
    seen = []
    log = MetricLog(lambda step, numbers: seen.append(step), every=1)
    for step in (1, 2):
        log({"scale": 1.0})
        assert seen[-1] == step


def test_what_is_logged_now_and_then_and_mappings():
    seen = []
    with MetricLog(lambda step, numbers: seen.append((step, numbers))) as log:
        log({"scale": torch.tensor(0.5)}, step=7)
        log({"scale": torch.tensor(0.25), "loss": 1})
    assert seen == [(7, {"scale": 0.5}), (8, {"scale": 0.25, "loss": 1.0})]


def test_bad_arguments():
    with pytest.raises(ValueError, match="`every` must be an integer >= 1, got 0"):
        MetricLog(every=0)
    with pytest.raises(ValueError, match=r"`every` must be an integer >= 1, got 2.5"):
        MetricLog(every=2.5)
    with pytest.raises(TypeError, match=r"`sinks` must be functions such as to_csv\('a.csv'\)"):
        MetricLog("a.csv")
    with pytest.raises(ValueError, match=r"`loss` must be one number, got shape \(2,\)"):
        MetricLog()({"scale": 1.0}, loss=torch.ones(2))
    with pytest.raises(TypeError, match=r"`source` must be an optimizer under ZENITH.*got a SGD"):
        MetricLog()(torch.optim.SGD([torch.zeros(1)]))


@pytest.mark.parametrize("make", [zenith, zenith_lr])
def test_the_rate_in_force_is_that_of_the_step(make):
    wanted, _ = plain_loop(make)
    seen = []
    model = Network()
    optimizer, keeper = make(model.parameters())
    # a schedule that has moved on by the time of the log does not matter
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0) if keeper is optimizer else None
    with MetricLog(lambda step, numbers: seen.append(numbers["lr"])) as log:
        for batch in loader():
            optimizer.zero_grad()
            model(**batch)["loss"].backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
                optimizer.param_groups[0]["lr"] = 7.0
            log(keeper)
            if schedule is not None:
                optimizer.param_groups[0]["lr"] = 0.1
    assert seen == pytest.approx(wanted, rel=1e-6)


def test_nothing_is_read_from_a_gpu_before_the_flush():
    with FakeTensorMode():  # in which a fake CUDA tensor raises on a read
        param = torch.nn.Parameter(torch.randn(3, device="cuda"))
        optimizer = Zenith([param], window=2)
        log = MetricLog(every=100)
        for _ in range(5):
            param.grad = torch.randn_like(param)
            optimizer.step()
            log(optimizer, loss=torch.ones((), device="cuda"))
        with pytest.raises(Exception, match=r"_local_scalar_dense|data-dependent|CUDA"):
            log.flush()
        log._waiting.clear()  # which would be tried once more as the log goes


def test_what_a_sink_fails_to_take_is_kept(caplog):
    seen, full = [], [True]

    def sink(step, numbers):
        if step == 2 and full:
            raise OSError("full")
        seen.append(step)

    log = MetricLog(sink)
    for _ in range(3):
        log({"scale": 1.0})
    with pytest.raises(OSError, match="full"):
        log.flush()
    full.clear()
    log.flush()
    assert seen == [1, 2, 3]

    def interrupted():
        with MetricLog(sink) as log:
            log({"scale": 1.0}, step=2)
            full.append(True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # which the sink's failure does not replace
        interrupted()
    full.clear()
    assert caplog.messages == ["the last steps could not be logged"]


def test_a_log_that_is_never_closed_is_written_at_the_end():
    seen = []
    log = MetricLog(lambda step, numbers: seen.append(step))
    log({"scale": 1.0})
    del log
    gc.collect()
    assert seen == [1]


def test_a_tensor_is_logged_as_it_was():
    seen = []
    total = torch.zeros(1)
    with MetricLog(lambda step, numbers: seen.append(numbers)) as log:
        for _ in range(3):
            total += 1
            log({"total": total}, again=total[0])
    assert seen == [{"total": i, "again": i} for i in (1.0, 2.0, 3.0)]


class InPlace:
    """An adapter that writes its state in place, as one of Keras on torch may."""

    window = 1

    def __init__(self):
        self.scale = torch.ones(())

    def zenith_metrics(self):
        return {"lr": 0.1, "scale": self.scale}


def test_a_state_that_is_written_in_place_is_logged_as_it_was():
    seen, source = [], InPlace()
    with MetricLog(lambda step, numbers: seen.append(numbers)) as log:
        for scale in (1.0, 0.75, 0.25):
            source.scale.fill_(scale)
            log(source)
    assert seen == [{"lr": 0.1, "scale": scale} for scale in (1.0, 0.75, 0.25)]


def test_an_array_of_numpy_is_logged_as_it_was():
    seen, total = [], np.zeros(())
    with MetricLog(lambda step, numbers: seen.append(numbers["total"])) as log:
        for _ in range(3):
            total += 1
            log({"total": total})
    assert seen == [1.0, 2.0, 3.0]


def test_a_flush_reads_once_for_each_dtype(monkeypatch):
    stacked = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda xs: stacked.append(len(xs)) or stack(xs))
    log = MetricLog()
    for _ in range(10):
        log({"a": torch.tensor(1.0), "b": torch.tensor(2.0), "n": torch.tensor(3), "plain": 4})
    log.flush()
    assert stacked == [20, 10]
