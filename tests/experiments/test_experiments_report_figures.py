"""The figures of a study: what is drawn from which records, and what says that there is nothing."""

from io import BytesIO

import numpy as np
import pytest
from _report import sized, trained
from matplotlib.figure import Figure
from matplotlib.image import imread

from experiments.optimizers import BLOCKS
from experiments.report.figures import FIGURES, Drawn, picture
from experiments.report.panels import finished, panels, series, zoomed
from experiments.report.sections import sections
from experiments.report.style import colour, dash
from experiments.report.summary import grouped

RISING = [float(i) for i in range(1, 21)]
LOSSES = [0.5, 0.1, 0.03, 0.01]


def section_of(*runs):
    (section,) = sections({"digits": grouped(dict(enumerate(runs)))})
    return section


def lines(name, *runs):
    """The lines of each panel by their labels, as pairs of lists."""
    figure = finished(FIGURES[name].draw(section_of(*runs)))
    return [
        {
            line.get_label(): tuple(np.round(xy, 6).tolist() for xy in line.get_data())
            for line in axes.lines
        }
        for axes in figure.axes
    ]


def test_loss_and_accuracy_over_time():
    losses, accuracies = lines(
        "figure1", trained(RISING, LOSSES), trained([y + 2 for y in RISING], LOSSES, seed=1)
    )
    assert losses["ZENITH"] == (RISING, [*LOSSES, *[0.01] * 16])
    assert accuracies["ZENITH"] == (RISING, [y + 1 for y in RISING])


def test_a_loss_that_diverges_leaves_the_panel():
    runs = [trained(loss=[2.0, 1.0]), trained(loss=[1.0, 1e30], optimizer="sgd")]
    losses, _ = FIGURES["figure1"].draw(section_of(*runs)).axes
    assert losses.get_ylim()[1] == 20.0


def test_a_line_ends_where_one_of_its_runs_diverges():
    whole, cut = trained(RISING), trained([8.0], outcome="diverged", seed=1)
    cut = cut._replace(evals=cut.evals[:2])
    x, y = series({0: whole, 1: cut}, "evals", "test_accuracy")
    assert (x.tolist(), y.tolist()) == ([5, 10], [4.5, 5.0])
    x, _ = series({0: whole, 1: cut._replace(evals=[])}, "evals", "test_accuracy")
    assert x.size == 0
    going = trained((), seed=1)  # of which nobody measured that
    assert series({0: whole, 1: going}, "evals", "test_accuracy")[1].tolist() == RISING


def test_what_zenith_measures_and_the_rates():
    steps = [{"lr": 0.1, "mean": 0.0, "zenith": 0.0, "scale": 1.0}]
    steps += [{"lr": 0.05, "mean": 2.0, "zenith": 4.0, "scale": 0.5}]
    runs = [trained(steps=steps), trained(steps=[{"lr": 0.3}, {"lr": None}], optimizer="sps")]
    norms, rates = lines("figure2", *runs)
    assert norms == {"digits": ([10.0], [2.0])}  # since the window is full
    assert rates == {"digits": ([5.0, 10.0], [0.1, 0.05])}
    (panel,) = lines("figure3f", *runs)
    assert panel == {"ZENITH": ([5.0, 10.0], [0.1, 0.05]), "SPS": ([5.0], [0.3])}


def test_sharpness_over_the_rate_at_the_end_and_at_equal_loss():
    def flat(lr, accuracy, sharpness, loss, **others):
        options = {} if lr == 0.1 else {"lr": lr}
        return trained(
            accuracy,
            loss,
            optimizer="sgd",
            options=options,
            measures={"sharpness": sharpness, "sharpness_loss": loss},
            **others,
        )

    above, *_, below = grid = lines(
        "figure3ab",
        flat(0.1, [40.0, 60.0, 80.0], [9.0, 8.0, 7.0, 6.0], LOSSES),
        flat(0.1, [40.0, 60.0, 80.0], [9.0, 8.0, 7.0, 8.0], LOSSES, seed=1),
        flat(0.5, [50.0], [3.0, 2.0], [0.2, 0.08]),
        trained(RISING, optimizer="pal", measures={"sharpness": [1.0]}),
    )
    assert len(grid) == 6
    assert above == {"digits": ([0.1, 0.5], [7.0, 2.0])}
    # At a loss of 0.1: of the way from 0.2 to 0.08 that is log 2 / log 2.5 = 0.756471.
    assert grid[1] == {"digits": ([0.1, 0.5], [8.0, 2.243529])}
    assert grid[2] == {"digits": ([0.1], [7.0])}  # only the lower rate comes to 0.03
    assert grid[3] == {"digits": ([0.1, 0.5], [100.0, 62.5])}
    assert grid[4] == {"digits": ([0.1, 0.5], [100.0, 83.333333])}  # 50 of 60
    assert below == {"digits": ([0.1], [100.0])}


def test_accuracy_over_sharpness():
    runs = [
        trained(
            [accuracy],
            optimizer=name,
            measures={"sharpness": [sharpness], "sharpness_loss": LOSSES},
        )
        for name, accuracy, sharpness in (
            ("zenith", 90.0, 1.0),
            ("sgd", 80.0, 5.0),
            ("pal", 85.0, 3.0),
        )
    ]
    runs.append(trained([70.0], outcome="diverged", optimizer="dog", measures={"sharpness": [9.0]}))
    figure = FIGURES["figure3e"].draw(section_of(*runs))
    assert [axes.get_title() for axes in figure.axes] == [
        "digits, at the end:\nrank correlation of the means -1.00",
        "digits, at a training loss of 0.1:\nrank correlation of the means -1.00",
        "digits, at a training loss of 0.03:\nrank correlation of the means -1.00",
    ]
    panel, *_ = lines("figure3e", *runs)
    assert panel == {"ZENITH": ([1.0], [90.0]), "SGD": ([5.0], [80.0]), "PAL": ([3.0], [85.0])}


def test_the_loss_along_a_line():
    measures = {"line_-1.0": [3.0], "line_0.0": [0.5, 0.1], "line_1.0": [2.0, None]}
    other = {"line_-1.0": [5.0], "line_0.0": [0.3], "line_1.0": [4.0]}
    (panel,) = lines("figure3d", trained(measures=measures), trained(measures=other, seed=1))
    assert panel == {"ZENITH": ([-1.0, 0.0, 1.0], [4.0, 0.2, 4.0])}


@pytest.mark.parametrize(
    ("name", "option", "default", "other"),
    [("figure3gh", "lr", 0.1, 0.2), ("figure6", "window", 500, 50)],
)
def test_zenith_over_an_option(name, option, default, other):
    rates, over_epochs, ends = lines(
        name,
        trained([80.0], steps=[{"lr": 0.1}]),
        trained([70.0], steps=[{"lr": 0.2}], options={option: other}),
        trained([60.0], steps=[{"lr": 0.3}], optimizer="dowg"),
    )
    assert rates == {f"{option} {default}": ([5.0], [0.1]), f"{option} {other}": ([5.0], [0.2])}
    assert over_epochs[f"{option} {other}"] == (RISING, [70.0] * 20)
    assert sorted(zip(*ends["ZENITH"], strict=True)) == sorted([(default, 80.0), (other, 70.0)])
    assert ends["DoWG"] == ([0.0, 1.0], [60.0, 60.0])  # it takes no such option: a level


def test_stopped_at_any_time():
    as_it_is, cooled, averaged, _ = lines(
        "horizon",
        trained(RISING, measures={"cooldown_accuracy": [None, 50.0]}),
        trained([7.0], seed=1),  # of which the others have none
        trained([60.0], optimizer="sgd-cosine"),
        sized(5, [7.0, 30.0], optimizer="sgd-cosine"),  # of the 20 epochs of the others
        sized(10, [40.0], optimizer="sgd-cosine"),
    )
    assert as_it_is["ZENITH"] == ([5 * y for y in RISING], RISING)
    assert cooled["ZENITH"] == ([10 + 5 * y for y in RISING[1:]], [50.0] * 19)  # a tenth later
    line = "SGD + cosine, planned for each stop"
    assert as_it_is.keys() == {"ZENITH", "SGD + cosine", line}
    assert as_it_is[line] == cooled[line] == ([25.0, 50.0, 100.0], [30.0, 40.0, 60.0])
    assert averaged.keys() == {line}


def test_the_profile_is_of_those_with_a_run_on_every_task():
    target = trained([50.0], optimizer="sgd")
    late = [trained([0.0] * 3 + [50.0], seed=seed) for seed in range(3)]  # at step 20
    steps, seconds = lines("profile", target, *late, trained([10.0], optimizer="pal"))
    for panel in (steps, seconds):
        shares = {name: dict(zip(*xy, strict=True)) for name, xy in panel.items()}
        assert {*shares["SGD"].values()} == {1.0}
        assert {*shares["PAL"].values()} == {0.0}
        assert all(share == (factor >= 4) for factor, share in shares["ZENITH"].items())
    assert lines("profile", *late) == [{}, {}]  # no SGD, so no target


def test_a_picture_has_no_row_twice(monkeypatch):
    asked = [("zenith", {}, 90.0), ("sgd", {}, 85.0), ("sgd", {"lr": 0.3}, 70.0)]
    runs = [
        trained([own], optimizer=name, options=options, measures={"validation_accuracy": [own]})
        for name, options, own in asked
    ]
    tasks = {"digits": grouped(dict(enumerate(runs)))}
    (section,) = sections(tasks, best_rate=["sgd"])
    drawn = []
    monkeypatch.setitem(FIGURES, "rows", Drawn("", lambda own: drawn.extend(own.rows) or Figure()))
    picture("rows", section)
    assert section.rows == ["zenith", "sgd", "sgd,lr=best"]
    assert drawn == ["zenith", "sgd"]


def test_a_wide_band_is_in_view_as_far_as_it_goes_without_hiding_the_lines():
    _, axes = panels(1, 1)
    axes[0, 0].plot([1, 2], [82.0, 83.0])
    axes[0, 0].fill_between([1, 2], [0.0, 81.5], [99.0, 84.0])
    zoomed(axes[0, 0])
    low, high = axes[0, 0].get_ylim()
    assert (80, 84) < (low, high) < (81, 85)


def test_what_lies_below_the_axis_is_named_or_counted():
    runs = [
        trained([level], optimizer=name)
        for name, level in (
            ("zenith", 90.0),
            ("sgd", 89.0),
            ("pal", 88.0),
            ("dog", 87.0),
            ("l4", 10.0),
        )
    ]
    axes = FIGURES["figure1"].draw(section_of(*runs)).axes[1]
    assert [text.get_text() for text in axes.texts] == ["L4 below"]
    # The lower quartile is 87: 3 below the top, and 1 more; and a thirtieth of what is shown.
    assert axes.get_ylim()[0] == pytest.approx(83 - 7 / 30)
    _, grid = panels(1, 1)
    for level in (90.0, 90.0, 90.0, 90.0, 90.0, 90.0, 90.0, 90.0, 90.0, 10.0, 10.0, 10.0):
        grid[0, 0].plot([1, 2], [level, level])
    zoomed(grid[0, 0])
    assert [text.get_text() for text in grid[0, 0].texts] == ["3 below"]


def test_the_axis_has_the_spread_of_the_seeds():
    runs = [trained([80.0 + off], seed=seed) for seed, off in enumerate((0, 0.4))]
    runs.append(trained([79.7], options={"window": 50}))
    ends = FIGURES["figure6"].draw(section_of(*runs)).axes[2]
    # 80.2 and its standard deviation, which is that of 80 and 80.4; a tenth is there anyway.
    assert ends.get_ylim()[1] > 80.2 + 0.08**0.5


def test_what_only_some_seeds_come_to_is_hollow():
    asked = [(0.01, 0, [0.05]), (0.01, 1, [0.05]), (0.1, 0, [0.05]), (0.1, 1, [0.5])]
    runs = [
        trained(
            [80.0 + 100 * lr],
            optimizer="sgd",
            options={} if lr == 0.1 else {"lr": lr},
            seed=seed,
            measures={"sharpness": [2.0, 1.0], "sharpness_loss": [0.5, *loss]},
        )
        for lr, seed, loss in asked
    ]
    _, at_loss, *_ = lines("figure3ab", *runs)
    assert at_loss.keys() == {"digits", "digits, by some of the seeds"}
    assert at_loss["digits"][0] == [0.01]
    assert at_loss["digits, by some of the seeds"][0] == [0.1]


@pytest.mark.parametrize("name", FIGURES)
def test_a_panel_without_runs_says_so(name):
    bare = trained((), (), optimizer="dog")
    figure = finished(FIGURES[name].draw(section_of(bare._replace(evals=[], steps=[]))))
    assert figure.axes
    for axes in figure.axes:
        assert [text.get_text() for text in axes.texts] == ["not measured"]


def test_tasks_without_the_measure_of_a_figure_are_left_out():
    sharp = trained(measures={"sharpness": [2.0]})
    (both,) = sections(
        {"digits": grouped({0: sharp}), "text": grouped({0: trained(task="text")})}, apart=False
    )
    alone = both._replace(columns=both.columns[:1])
    assert picture("figure3e", both) == picture("figure3e", alone)
    assert picture("figure1", both) != picture("figure1", alone)


def test_a_picture_is_the_same_bytes():
    section = section_of(trained(RISING), trained(RISING, optimizer="sgd"))
    png = picture("figure1", section)
    assert png == picture("figure1", section)
    assert imread(BytesIO(png)).shape[:2] == (780 + 22, 520)  # two panels, a line of legend


def test_optimizers_differ_in_colour_and_the_options_of_one_in_dashes():
    for block in BLOCKS.values():
        slugs = {slug for slug, _ in block}
        assert len({colour(slug) for slug in slugs}) == len(slugs)
    assert colour("zenith,lr=0.2") == colour("zenith") == "#0072B2"
    names = ["sgd", "zenith", "sgd,lr=0.3"]
    assert [dash(name, names) for name in names] == ["--", "-", "-."]
