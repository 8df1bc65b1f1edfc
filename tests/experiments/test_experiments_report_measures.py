"""What a run has come to, from records that are written by hand."""

from math import inf

import pytest
from _report import trained

from experiments.report import measures
from experiments.report.measures import Reach, best, chosen, collapse, final_loss, headline, reach

RISING = [float(i) for i in range(1, 21)]
DIVERGED = trained(RISING, outcome="diverged")


def test_the_headline_is_the_mean_of_the_last_5_of_20():
    assert headline(trained(RISING)) == 18.0
    assert headline(trained(RISING)._replace(evals=trained(RISING).evals[:3])) == 3.0
    assert headline(trained(measures={"averaged_accuracy": [70.0]}), "averaged_accuracy") == 70.0
    assert headline(trained(), "averaged_accuracy") is None
    assert headline(trained([0.11])) == 0.11  # though five times that, by five, is more


@pytest.mark.parametrize(
    ("name", "values"),
    [("validation_accuracy", [1.0, 2.0, 5.0, 5.0, 3.0]), ("validation_loss", [3.0, 2.0, 1.0, 1.5])],
)
def test_validation_chooses_the_first_of_the_best(name, values):
    assert chosen(trained(RISING, measures={name: values})) == 3.0
    assert chosen(trained(RISING)) is None


def test_the_best_and_the_final_loss():
    run = trained([50.0, 80.0, 70.0], loss=[2.0, 0.25], measures={"test_loss": [3.0, 1.0, 2.0]})
    assert (best(run), best(run, "test_loss"), final_loss(run)) == (80.0, 1.0, 0.25)


def test_a_target_is_reached_at_the_first_evaluation_that_is_as_good():
    run = trained(RISING, loss=[0.5, None, 0.1, 0.2])
    assert reach(run, 0.1) == Reach(15, 3.0)
    assert reach(run, 0.05) == Reach(inf, inf)
    assert reach(run, 7.5, "test_accuracy") == Reach(40, 8.0)


def test_a_run_that_diverged_is_the_worst_and_a_miss():
    assert headline(DIVERGED) == best(DIVERGED) == chosen(DIVERGED) == 10.0  # of 10 classes
    assert headline(trained(outcome="diverged", classes=None)) == 0.0
    assert final_loss(DIVERGED) == headline(DIVERGED, "test_loss") == inf
    assert reach(DIVERGED, 1.0, "test_accuracy") == Reach(inf, inf)
    assert measures.moment(DIVERGED, "test_accuracy") is None
    assert headline(trained(measures={"test_loss": [1.0, None]}), "test_loss") == inf


def test_a_collapse_is_named():
    assert [collapse(run) for run in (DIVERGED, trained([15.0]), trained([15.1]))] == [
        "diverged",
        "at chance",
        "",
    ]
    assert collapse(trained([1.0], classes=None)) == ""


def test_what_a_run_is_judged_by():
    text = trained(accuracy=(), measures={"test_loss": [2.0], "validation_loss": [1.0]})
    assert measures.main_measure(text) == "test_loss"
    assert measures.main_measure(trained(measures={"test_loss": [2.0]})) == "test_accuracy"
    assert measures.main_measure(trained()._replace(evals=[])) == "test_accuracy"
    both = trained(measures={"test_loss": [2.0]}, measure="test_loss")  # as its header says
    assert measures.main_measure(both) == "test_loss"
    assert measures.main_measures(both) == ["test_loss"]
    header = {"measures": ["box_map50", "mask_map50"]}
    several = trained(accuracy=(), measures={"box_map50": [0.0, 50.0]})
    several = several._replace(header=several.header | header)
    assert measures.main_measures(several) == ["box_map50", "mask_map50"]
    assert measures.main_measure(several) == "box_map50"
    assert collapse(several) == ""
    nothing = trained(accuracy=(), measures={"box_map50": [0.0]}, classes=None)
    assert collapse(nothing._replace(header=nothing.header | header)) == "at chance"


def test_a_measure_that_few_evaluations_have():
    run = trained(RISING, loss=[0.05])  # the means of the segments tell nothing of the weights
    for line, loss in zip(run.evals[1::3], (0.4, 0.2, 0.05, 0.2, 0.025, None), strict=False):
        line |= {"sharpness": 10.0 * line["segment"], "sharpness_loss": loss}
    assert measures.moment(run, "sharpness") is None  # not at the end
    run.evals[-1]["sharpness"] = 1.0
    assert measures.moment(run, "sharpness")["segment"] == 20
    # Of the way from log 0.2, at segment 5, to log 0.05, at 8, half is log 0.1.
    at = measures.moment(run, "sharpness", 0.1)
    assert (at["sharpness"], at["test_accuracy"], at["step"]) == pytest.approx((65.0, 6.5, 32.5))
    assert measures.moment(run, "sharpness", 0.05)["sharpness"] == pytest.approx(80.0)
    late = measures.moment(run, "sharpness", 0.2 / 2**2.5)["sharpness"]  # from 11 to 14
    assert late == pytest.approx(110 + 30 * 2.5 / 3)
    assert measures.moment(run, "sharpness", 0.4) is None  # nothing before it
    assert measures.moment(run, "sharpness", 0.02) is None  # never reached
    assert measures.moment(trained(measures={"sharpness": [1.0]}), "sharpness", 0.1) is None
