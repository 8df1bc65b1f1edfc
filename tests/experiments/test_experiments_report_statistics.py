"""The statistics, against numbers worked out by hand and against statsmodels."""

from math import inf, isnan

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from experiments.report.statistics import (
    DRAWN,
    MARGIN,
    Effect,
    effect,
    holm,
    powerless,
    profile,
    ranks,
    verdict,
)

RANDOM = np.random.default_rng(0)


def test_an_effect_by_hand():
    found = effect([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    half = 2.570582 * np.sqrt(3.5 / 6)  # Student's t of 5 degrees, the variance is 3.5
    assert (found.pairs, found.mean) == (6, 3.5)
    assert (found.low, found.high) == pytest.approx((3.5 - half, 3.5 + half), rel=1e-6)
    assert found.p == 2 / 64  # no other of the flips is as far from 0
    # Of +-1 +-2 +-3 four of eight come to 4 or more, on either side.
    assert effect([-1.0, 2.0, 3.0]).p == 0.5


def test_effects_without_spread_or_number():
    assert effect([0.25] * 6).p_equivalent == 1.0
    assert effect([0.1] * 6)[:5] == pytest.approx((6, 0.1, 0.1, 0.1, 2 / 64))
    assert effect([0.0] * 6) == Effect(6, 0.0, 0.0, 0.0, 1.0, 0.0)
    one = effect([0.1])
    assert (one.pairs, one.p, isnan(one.low), one.p_equivalent) == (1, 1.0, True, 1.0)
    infinite = effect([inf, 1.0])
    assert (infinite.mean, infinite.p, isnan(infinite.low)) == (inf, 1.0, True)


@pytest.mark.parametrize("mean", [0.0, 0.1, 0.15, -0.15, 0.3])
def test_equivalence_is_that_of_two_one_sided_tests(mean):
    differences = mean + 0.1 * RANDOM.normal(size=8)
    p = ttost_paired(differences, np.zeros(8), -MARGIN, MARGIN)[0]
    assert effect(differences).p_equivalent == pytest.approx(p, rel=1e-9)


def test_above_14_pairs_flips_are_drawn_the_same_ones_each_time():
    # Of 20 equal ones all flips come to 2 / 2^20, of those that are drawn none is as far.
    assert effect([1.0] * 14).p == 2 / 2**14
    assert effect([1.0] * 20).p == 2 / 2**15
    differences = RANDOM.normal(0.4, size=20)
    assert effect(differences).p == effect(differences).p
    # The exact one, over every sum of 20 numbers with signs.
    sums = np.zeros(1)
    for each in differences:
        sums = np.concatenate([sums - each, sums + each])
    exact = np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-9)
    assert effect(differences).p == pytest.approx(exact, abs=5 * np.sqrt(exact / DRAWN))


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    ps = [*RANDOM.uniform(size=20) ** 3, 0.04, 0.04, 1.0]
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1].tolist(), rel=1e-12)


def test_verdicts():
    ahead, behind = Effect(10, 1.0, 0.5, 1.5, 0.01, 1.0), Effect(10, -0.1, -0.2, 0.0, 0.01, 0.01)
    assert [verdict(ahead, p, 1.0) for p in (0.01, 0.05)] == ["held", "not shown"]
    assert verdict(behind, 0.01, 0.05) == "contradicted here"
    assert verdict(behind, 0.5, 0.01) == "equivalent"
    assert verdict(behind, 0.5, 0.05) == "not shown"  # 0.01, before Holm
    assert verdict(behind, 0.01, 0.01) == "contradicted here, by less than the margin"


def test_what_no_test_can_reach():
    why = "no exact test can reach 0.05: after Holm the least p is"
    assert powerless([5]) == f"With 5 pairs {why} 0.062."
    assert powerless([6]) == ""
    # The bound is sharp: 24 x 2 / 2^10 = 0.047, 26 x 2 / 2^10 = 0.051.
    assert powerless([10] * 24) == ""
    assert powerless([10] * 26) == f"With 10 pairs {why} 0.051."
    assert powerless([11] * 26) == ""
    # Holm raises those of 6 pairs by how many there are of them: 2 x 2 / 2^6 = 0.062.
    assert powerless([10] * 8 + [6]) == ""
    assert powerless([10] * 8 + [6, 6]) == f"With 6 pairs {why} 0.062."


def test_ranks():
    assert ranks({"a": [3.0, 1.0], "b": [3.0, 2.0], "c": [1.0, 0.0]}) == {
        "a": 1.75,
        "b": 1.25,
        "c": 3.0,
    }


def test_a_performance_profile():
    times = {"a": [1.0, 4.0, inf], "b": [2.0, 2.0, inf], "c": [3.0, inf, inf]}
    found = {name: shares.tolist() for name, shares in profile(times, [1, 2, 3]).items()}
    third = 1 / 3
    assert found == {
        "a": pytest.approx([third, 2 * third, 2 * third]),
        "b": pytest.approx([third, 2 * third, 2 * third]),
        "c": pytest.approx([0, 0, third]),
    }
