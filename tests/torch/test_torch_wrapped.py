"""A wrapper that shares the groups of a Zenith, and saves them without knowing of it."""

import copy
import io
import math
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from _distributed import single_process_group
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import zenith
from zenith.checkpoints import read
from zenith.torch import Zenith

with warnings.catch_warnings():  # torch scripts what it has deprecated itself
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch.distributed.optim import ZeroRedundancyOptimizer

WINDOW = 2
NORMS = (4.0, 2.0, 1.0, 3.0, 9.0, 6.0, 0.5)  # means 3, 1.5, 2, 6, 7.5, 3.25
CUT = 4  # with the ring (1, 3), the mean 2 and the zenith 3


class Wrapper(torch.optim.Optimizer):
    """The shape of SAM: its groups become those of the optimizer inside, and the other way round.

    `torch.optim.Optimizer` saves and loads them.
    """

    def __init__(self, params, **options):
        super().__init__(params, {"rho": 0.05, **options})
        self.inside = Zenith(self.param_groups, **options)
        self.param_groups = self.inside.param_groups
        self.defaults.update(self.inside.defaults)

    def step(self, closure=None):
        return self.inside.step(closure)

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.inside.param_groups = self.param_groups


class Redundant(ZeroRedundancyOptimizer):
    """torch's own, with what it saves gathered first."""

    def __init__(self, params, **options):
        super().__init__(params, Zenith, **options)

    @property
    def inside(self):
        return self.optim

    def state_dict(self):
        self.consolidate_state_dict()
        return super().state_dict()


wrappers = pytest.mark.parametrize("wrap", [Wrapper, Redundant])


@pytest.fixture(autouse=True)
def process_group(tmp_path):
    with single_process_group(tmp_path):
        yield


def wrapped(wrap, value=10.0, window=WINDOW, **options):
    weight = torch.nn.Parameter(torch.tensor([value], dtype=torch.float64))
    return wrap([weight], lr=0.5, window=window, **options), weight


def train(optimizer, weight, norms):
    """The rates in force."""
    rates = []
    for norm in norms:
        weight.grad = torch.full_like(weight, norm)
        optimizer.step()
        rates += optimizer.inside.get_last_lr()
    return rates


def half_way(wrap):
    optimizer, weight = wrapped(wrap)
    assert train(optimizer, weight, NORMS[:CUT]) == [0.5, 0.5, 0.25, 0.5 * (2 / 3)]
    return optimizer, weight


def saved_and_loaded(document):
    file = io.BytesIO()
    torch.save(document, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@wrappers
def test_it_saves_the_schedule_as_it_is_and_a_resumed_run_goes_on(wrap):
    optimizer, weight = half_way(wrap)
    document = saved_and_loaded(optimizer.state_dict())
    group = document["param_groups"][0]
    names = [f"zenith_{name}" for name in zenith.ZenithState._fields]
    assert [group[name] for name in names] == [[1.0, 3.0], 4, 2.0, 3.0, 2 / 3, 0]

    resumed, twin = wrapped(wrap, weight.item())
    resumed.load_state_dict(document)
    assert zenith.to_dict(resumed.inside.zenith_state)["count"] == CUT
    rest = NORMS[CUT:]
    assert train(resumed, twin, rest) == train(optimizer, weight, rest)
    assert train(optimizer, weight, [0.5]) == [0.5 * (0.5 / 7.5)]
    assert resumed.inside.get_last_lr() == [0.5 * (3.25 / 7.5)]
    assert twin.item() == pytest.approx(weight.item() + 0.5 * (0.5 / 7.5) * 0.5, rel=1e-15)


@wrappers
def test_what_it_saved_stays_and_no_ring_is_shared(wrap):
    """Also where the document is handed over as it is, and its values are put into the groups."""
    optimizer, weight = half_way(wrap)
    document = optimizer.state_dict()
    before = copy.deepcopy(document)
    others = [wrapped(wrap, weight.item()) for _ in range(2)]
    for other, _ in others:
        other.load_state_dict(dict(document))
    train(optimizer, weight, [9.0])
    train(*others[0], [6.0])
    rings = [o.inside.zenith_state.norms.tolist() for o in (optimizer, others[0][0], others[1][0])]
    assert rings == [[9.0, 3.0], [6.0, 3.0], [1.0, 3.0]]
    assert document["param_groups"] == before["param_groups"]


@wrappers
def test_its_document_and_that_of_a_zenith_are_the_same_to_load(wrap, tmp_path):
    optimizer, weight = half_way(wrap)
    document = optimizer.state_dict()
    plain = Zenith([weight], lr=0.5, window=WINDOW)
    plain.load_state_dict(document)
    expected = zenith.to_dict(optimizer.inside.zenith_state)
    assert zenith.to_dict(plain.zenith_state) == expected
    other, _ = wrapped(wrap)
    other.load_state_dict(saved_and_loaded(plain.state_dict()))
    assert zenith.to_dict(other.inside.zenith_state) == expected
    torch.save(document, tmp_path / "run.pt")
    assert zenith.to_dict(read(tmp_path / "run.pt")) == expected


@wrappers
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 3}, "`window` of the state must be that of this schedule, 3, got 2"),
        ({"zenith_norms": torch.tensor([1.0, math.nan])}, "`norms` must be finite and >= 0"),
    ],
)
def test_what_it_loads_is_checked_before_the_next_step(wrap, change, message):
    optimizer, _ = half_way(wrap)
    document = optimizer.inside.state_dict()  # as tensors, as a checkpoint has them
    document["param_groups"][0].update(change)
    resumed, twin = wrapped(wrap, window=change.get("window", WINDOW))
    resumed.load_state_dict(document)
    with pytest.raises(ValueError, match=message):
        train(resumed, twin, [1.0])
    assert twin.item() == 10.0


@wrappers
def test_momentum_and_a_skipped_step_under_it(wrap):
    """buf = 4, then 0.5 * 4 + 2, the mean is 3 at its zenith: w = 10 - 0.5 * 4 - 0.5 * 4."""
    optimizer, weight = wrapped(wrap, momentum=0.5)
    train(optimizer, weight, [4.0, 2.0, math.inf])
    assert weight.item() == 6.0
    group = optimizer.state_dict()["param_groups"][0]
    assert (group["zenith_count"], group["zenith_skipped"]) == (2, 1)


def test_it_loads_the_state_dict_of_an_sgd_and_keeps_its_own_options():
    """The norms are 4 + 10 / 2, and 1.75 + 5.5 / 2 after a step of 0.5 * 9: 9 and 4.5."""
    optimizer, weight = wrapped(Wrapper, window=1, weight_decay=0.5, decay_in_norm=True)
    optimizer.load_state_dict(torch.optim.SGD([weight], lr=0.5, weight_decay=0.5).state_dict())
    assert train(optimizer, weight, [4.0, 1.75]) == [0.5, 0.25]
    assert weight.item() == 5.5 - 0.25 * 4.5


@pytest.mark.parametrize("way", [{}, {"flatten_optimizer_state_dict": True}])
def test_it_goes_through_a_distributed_checkpoint(way, tmp_path):
    options = StateDictOptions(**way)

    def fresh():
        model = torch.nn.Linear(1, 1, bias=False)
        return model, Wrapper(model.parameters(), lr=0.5, window=WINDOW)

    (model, optimizer), (twin, resumed) = fresh(), fresh()
    train(optimizer, model.weight, NORMS[:CUT])
    document = {"optimizer": get_optimizer_state_dict(model, optimizer, options=options)}
    dcp.save(document, checkpoint_id=tmp_path / "checkpoint")
    loaded = {"optimizer": get_optimizer_state_dict(twin, resumed, options=options)}
    dcp.load(loaded, checkpoint_id=tmp_path / "checkpoint")
    set_optimizer_state_dict(twin, resumed, loaded["optimizer"], options=options)
    expected = zenith.to_dict(optimizer.inside.zenith_state)
    assert zenith.to_dict(resumed.inside.zenith_state) == expected
    rest = NORMS[CUT:]
    assert train(resumed, twin.weight, rest) == train(optimizer, model.weight, rest)


# --- groups that come and go ----------------------------------------------------------------------


def test_no_group_is_left():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = Zenith([weight], window=1)
    weight.grad = torch.full_like(weight, 4.0)
    optimizer.step()
    optimizer.param_groups.clear()
    assert optimizer.state_dict() == {"state": {}, "param_groups": []}
    assert optimizer.get_last_lr() == []
    for copied in (copy.deepcopy(optimizer), optimizer):
        assert copied.zenith_state.norms.tolist() == [4.0]
        copied.add_param_group({"params": [weight]})
        assert copied.state_dict()["param_groups"][0]["zenith_count"] == 1
        weight.grad = torch.full_like(weight, 1.0)
        copied.step()
        assert copied.get_last_lr() == [0.1 * 0.25]


def test_a_group_of_another_zenith_brings_no_schedule_along():
    first, second = (Zenith([torch.nn.Parameter(torch.ones(1))], window=2) for _ in range(2))
    params = first.param_groups[0]["params"]
    params[0].grad = torch.ones(1)
    first.step()
    second.add_param_group(first.param_groups[0])
    assert (first.zenith_state.count, second.zenith_state.count) == (1, 0)
    second.step()
    first.step()
    first.step()
    assert (first.zenith_state.count, second.zenith_state.count) == (3, 1)
    assert len([g for g in second.param_groups if "zenith_norms" in g]) == 1
