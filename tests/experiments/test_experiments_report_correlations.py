"""Rank correlations over the rows of a seed, by hand."""

import pytest
from _report import trained

from experiments.report.correlations import correlations, spearman
from experiments.report.sections import sections
from experiments.report.summary import grouped


def test_a_rank_correlation():
    # Ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15).
    assert spearman([(1, 10), (2, 30), (3, 20), (4, 90)]) == pytest.approx(0.8)
    assert spearman([(1, 10), (2, 30)]) is None
    assert spearman([(1, 1), (2, 1), (3, 1)]) is None


def test_the_table_by_hand():
    # By rate: sharpness falls, and accuracy rises, but for one swap in the second seed.
    asked = {0.01: (9.0, 80.0), 0.03: (7.0, 81.0), 0.1: (5.0, 82.0), 0.3: (3.0, 83.0)}
    runs = []
    for seed in (0, 1):
        for rate, (sharp, level) in asked.items():
            swapped = {81.0: 82.0, 82.0: 81.0}.get(level, level) if seed else level
            options = {} if rate == 0.1 else {"lr": rate}
            measures = {"sharpness": [sharp], "sharpness_loss": [0.5]}
            runs.append(
                trained([swapped], optimizer="sgd", options=options, seed=seed, measures=measures)
            )
    runs.append(trained([99.0], measures={"sharpness": [1.0], "sharpness_loss": [0.5]}))  # ZENITH
    (section,) = sections({"digits": grouped(dict(enumerate(runs)))}, apart=False)
    _, _, *lines = correlations(section).split("\n\n")[0].splitlines()
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == [
        ["digits", "at the end", "sharpness and accuracy", "2", "-0.90", "-1.00", "-0.80"],
        ["digits", "at the end", "rate and sharpness", "2", "-1.00", "-1.00", "-1.00"],
        ["digits", "at the end", "rate and accuracy", "2", "+0.90", "+0.80", "+1.00"],
    ]
    few = section._replace(columns=[section.columns[0]._replace(runs={})])
    assert correlations(few) == "No seed has enough of them."


def test_a_row_at_the_best_rate_that_repeats_another_counts_once():
    sharp = {"sharpness": [1.0], "sharpness_loss": [0.5]}
    asked = [("zenith", {}, 90.0), ("pal", {}, 80.0), ("sgd", {}, 85.0), ("sgd", {"lr": 0.3}, 70.0)]
    runs = [
        trained(
            [level],
            optimizer=name,
            options=options,
            measures=sharp | {"validation_accuracy": [level]},
        )
        for name, options, level in asked
    ]
    tasks = {"digits": grouped(dict(enumerate(runs)))}
    (section,) = sections(tasks, best_rate=["sgd"], apart=False)
    (column,) = section.columns
    assert column.copied("sgd,lr=best") == "sgd"
    assert [*column.distinct.runs] == ["zenith", "sgd", "pal"]
    assert correlations(section) == "No seed has enough of them."
