"""The report of a study: what is compared with what, its tables, and what is missing."""

import gzip
from itertools import islice, pairwise

import pytest
from _report import sized, trained, write

from experiments.errors import UserError
from experiments.optimizers import BLOCKS, OPTIMIZERS
from experiments.question import Question, named, parsed
from experiments.report import account, figures, paper, stops, tables
from experiments.report.found import gathered
from experiments.report.sections import sections
from experiments.report.study import study_report
from experiments.report.summary import grouped

MOMENTUM = {"momentum": 0.9}


def runs_of(optimizer, *accuracies, **question):
    """A run for each seed, with this accuracy from the first evaluation on."""
    return [
        trained([accuracy], optimizer=optimizer, seed=seed, **question)
        for seed, accuracy in enumerate(accuracies)
    ]


def wanted(rows, seeds=3):
    """So many runs of each name."""
    return {task: dict.fromkeys(names, seeds) for task, names in rows.items()}


def sections_of(folder, runs, rows, **options):
    return sections(gathered(write(folder, *runs), wanted(rows, 21)), **options)


def cells(table):
    """The rows of a Markdown table, and what they hold by column."""
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.split("\n\n")[0].splitlines()
    ]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_the_comparison_by_hand(tmp_path):
    runs = [
        *runs_of("zenith", 90.0, 92.0),
        *runs_of("sgd", 91.0, 91.0),
        *runs_of("sgd-cosine", 80.0),
        *runs_of("l4", 10.0, 10.0),
        trained(optimizer="pal", outcome="diverged"),
        trained([60.0], optimizer="pal", seed=1),
        trained(optimizer="lqa", outcome="diverged"),
        trained(optimizer="lqa", outcome="diverged", seed=1),
    ]
    names = ["zenith", "sgd", "sgd-cosine", "l4", "pal", "lqa", "dog"]
    (section,) = sections_of(tmp_path, runs, {"digits": names})
    found = cells(tables.comparison(section))
    assert {row: line["digits, %"] for row, line in found.items()} == {
        "ZENITH": "91.00 ± 1.41 (1.0 s)",
        "SGD": "**91.00 ± 0.00** (1.0 s)",  # on the seed that all have
        "PAL": "35.00 ± 35.36 (-), diverged 1 of 2",
        "LQA": "10.00 ± 0.00 (-), diverged",
        "DoG": "missing",
        "L4": "10.00 ± 0.00 (1.0 s), at chance",
        "SGD + cosine †": "80.00 (1.0 s), 1 seed",
    }
    assert {row: line["mean rank"] for row, line in found.items()} == {
        "ZENITH": "2.0",
        "SGD": "1.0",
        "PAL": "5.0",
        "LQA": "5.0",
        "DoG": "-",
        "L4": "5.0",
        "SGD + cosine †": "3.0",
    }


def test_where_a_row_lacks_a_task_nothing_has_a_rank(tmp_path):
    runs = [*runs_of("zenith", 80.0), *runs_of("sgd", 70.0), trained([60.0], l2=0.1)]
    names = {"digits": ["zenith", "sgd", "zenith,l2=0.1"]}
    (section,) = sections_of(tmp_path, runs, names)
    assert {line["mean rank"] for line in cells(tables.comparison(section)).values()} == {"-"}


def test_what_is_planned_to_be_shorter_has_no_rank(tmp_path):
    runs = [*runs_of("zenith", 80.0), *runs_of("sgd-cosine", 70.0)]
    runs.append(sized(10, [90.0], optimizer="sgd-cosine"))
    names = ["zenith", "sgd-cosine", "sgd-cosine,epochs=10"]
    (section,) = sections_of(tmp_path, runs, {"digits": names})
    found = {row: [*line.values()][1:] for row, line in cells(tables.comparison(section)).items()}
    assert found == {
        "ZENITH": ["**80.00** (1.0 s)", "1.0"],
        "SGD + cosine †": ["70.00 (1.0 s)", "2.0"],
        "SGD + cosine, epochs=10 †": ["90.00 (1.0 s)", "-"],
    }
    assert not stops.planned(section.columns[0], "sgd-cosine")


def test_a_run_that_was_stopped_counts_and_is_marked_where_a_plan_was_cut():
    runs = [
        *runs_of("sgd", 70.0, 71.0, outcome="stopped"),
        *runs_of("sgd-cosine", 80.0, 81.0, outcome="stopped"),
    ]
    (section,) = sections({"digits": grouped(dict(enumerate(runs)))})
    assert section.columns[0].target == 70.0
    found = {row: line["digits, %"] for row, line in cells(tables.comparison(section)).items()}
    assert found == {
        "SGD": "70.50 ± 0.71 (1.0 s)",
        "SGD + cosine †": "**80.50 ± 0.71** (1.0 s), out of time: 2 of 2",
    }


def test_the_stops_by_hand(tmp_path):
    def rising(top, **others):
        return trained([top * e / 20 for e in range(1, 21)], **others)

    cooled = {"cooldown_accuracy": [None] * 5 + [50.0, 60.0, 70.0]}  # from 40 % on 70
    runs = [
        *(rising(80.0 + seed, seed=seed, measures=cooled) for seed in (0, 20, 40)),
        *(rising(60.0, optimizer="sgd-cosine", seed=seed) for seed in (0, 20)),
        *(sized(12, [40.0 + seed], optimizer="sgd-cosine", seed=seed) for seed in (0, 20)),
    ]
    names = ["zenith", "sgd-cosine", "sgd-cosine,epochs=12"]
    (section,) = sections_of(tmp_path, runs, {"digits": names})
    _, _, *lines = stops.stops(section).split("\n\n")[0].splitlines()
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    # Of seed 40 there is no plan. Student's t of one degree is 12.7062; the mean of 8 and -0 is 4,
    # its deviation 4.
    plan = "SGD + cosine, planned for each stop"
    assert [row[:2] for row in found] == [
        ["ZENITH", "as it is"],
        ["ZENITH", "after a cooldown"],
        ["SGD + cosine", "as it is"],
        [plan, "as it is"],
        ["ZENITH against it", "as it is"],
        ["ZENITH against it", "after a cooldown"],
    ]
    assert found[0][2:] == [
        *("18.00 ± 2.83", "36.00 ± 5.66", "54.00 ± 8.49", "72.00 ± 11.31", "90.00 ± 14.14")
    ]
    assert found[1][4:] == ["70.00 ± 0.00"] * 3  # begun at 50, 70 and 90 %
    assert found[3][2:] == ["-", "-", "50.00 ± 14.14", "-", "60.00 ± 0.00"]
    assert found[4][2:] == ["-", "-", "+4.00 [-46.82, +54.82]", "-", "+30.00 [-97.06, +157.06]"]
    assert found[5][4] == "+20.00 [-107.06, +147.06]"
    (_, other) = sections_of(tmp_path, [], {"digits": names, "none": ["zenith"]})[0].columns
    for table, head in ((stops.stops, "| none, 0 seeds | "), (stops.shares, "| none ")):
        assert table(section._replace(columns=[other])).startswith(head)
    rows = wanted({"digits": names, "none": ["sgd"]})
    study_report("h", rows, tmp_path, tmp_path / "out", ["horizon"])
    assert "stands where that ends" in (tmp_path / "out" / "report.md").read_text()


def test_the_shares_of_noise_by_hand(tmp_path):
    runs = [trained(optimizer=name, seed=seed) for name in ("zenith", "sgd") for seed in (0, 1)]
    for run in runs[:3]:
        for segment in (3, 20):
            run.evals[segment - 1]["noise_share"] = 0.5 + run.header["seed"] / 4
    (section,) = sections_of(tmp_path, runs, {"digits": ["zenith", "sgd"]})
    assert cells(stops.shares(section)) == {
        "ZENITH": {"digits": "ZENITH", "15 %": "0.625 ± 0.177", "100 %": "0.625 ± 0.177"},
        "SGD": {"digits": "SGD", "15 %": "-", "100 %": "-"},
    }


def test_the_time_is_that_of_the_first_evaluation_as_good_as_the_headline(tmp_path):
    rising = [float(accuracy) for accuracy in range(1, 21)]  # the headline is 18
    runs = [trained(rising, optimizer="zenith", seed=seed) for seed in range(3)]
    for line in runs[2].evals:
        line["seconds"] *= 100
    (section,) = sections_of(tmp_path, runs, {"digits": ["zenith"]})
    assert cells(tables.comparison(section))["ZENITH"]["digits, %"] == "**18.00 ± 0.00** (18.0 s)"


def test_the_lead_by_hand(tmp_path):
    runs = [
        *runs_of("zenith", 91.0, 92.0, 93.0, 94.0, 95.0, 96.0, 80.0),
        *runs_of("sgd", *[90.0] * 6),
        *runs_of("pal", 91.1, 91.9, 93.1, 93.9, 95.1, 95.9, 80.0),
        *runs_of("dog", 92.0),
    ]
    rows = {"digits": ["zenith", "sgd", "pal", "dog", "sps"]}
    (section,) = sections_of(tmp_path, runs, rows)
    text = tables.lead(section)
    assert {row: line["digits"] for row, line in cells(text).items()} == {
        "ZENITH against SGD": "+3.50 [+1.54, +5.46], 6 seeds, p 0.031, Holm 0.062: not shown",
        "ZENITH against PAL": "+0.00 [-0.09, +0.09], 7 seeds, p 1, Holm 1: equivalent",
        "ZENITH against DoG": "-1.00: 1 seed: no test",
        "ZENITH against SPS": "-",
    }
    assert "of all flips of signs, then the same after Holm over the 2 of this table" in text
    assert "With 6 pairs" not in text  # beside one of 7, which Holm takes first, it can
    equal = section.columns[0]._replace(
        runs={row: dict(islice(own.items(), 6)) for row, own in section.columns[0].runs.items()}
    )
    few = tables.lead(section._replace(columns=[equal]))
    assert few.endswith(
        "With 6 pairs no exact test can reach 0.05: after Holm the least p is 0.062."
    )
    alone = section.columns[0]._replace(
        runs={row: own for row, own in section.columns[0].runs.items() if row in ("zenith", "sgd")}
    )
    held = cells(tables.lead(section._replace(columns=[alone])))["ZENITH against SGD"]["digits"]
    assert held == "+3.50 [+1.54, +5.46], 6 seeds, p 0.031, Holm 0.031: held in this table"


def test_of_what_learnt_nothing_there_is_no_verdict(tmp_path):
    runs = [
        *runs_of("zenith", *[90.0] * 6),
        *runs_of("sgd", *[10.0] * 6),
        *runs_of("pal", *[10.0] * 5, 89.0),  # one of which did
        *(trained(optimizer="dog", outcome="diverged", seed=seed) for seed in range(6)),
    ]
    (section,) = sections_of(tmp_path, runs, {"digits": ["zenith", "sgd", "pal", "dog"]})
    found = {row[15:]: line["digits"] for row, line in cells(tables.lead(section)).items()}
    assert found["SGD"] == found["DoG"] == "+80.00 [+80.00, +80.00]: -"
    assert found["PAL"].endswith("p 0.031, Holm 0.031: held in this table")
    assert "Holm over the 1 of" in tables.lead(section)


def test_equivalence_is_adjusted_over_the_table(tmp_path):
    close = [90.0 + 0.1 * x for x in (-1, 1, -1, 1, -1, 3)]
    runs = [*runs_of("zenith", *[90.0] * 6), *runs_of("sgd", *close), *runs_of("pal", *close)]
    (section,) = sections_of(tmp_path, runs, {"digits": ["zenith", "sgd", "pal"]})
    # Mean -0.0333, error 0.0667, so t is 2.5 of 5 degrees and p 0.027, after Holm 0.054.
    (column,) = section.columns
    alone = section._replace(
        columns=[column._replace(runs={row: column.runs[row] for row in ("zenith", "sgd")})]
    )
    assert cells(tables.lead(alone))["ZENITH against SGD"]["digits"].endswith(": equivalent")
    assert cells(tables.lead(section))["ZENITH against SGD"]["digits"].endswith(": not shown")


def test_a_loss_is_better_where_it_is_lower(tmp_path):
    runs = [
        trained((), optimizer=name, seed=seed, task="text", measures={"test_loss": [loss + seed]})
        for name, loss in (("zenith", 1.0), ("sgd", 1.1))
        for seed in range(2)
    ]
    (section,) = sections_of(tmp_path, runs, {"text": ["zenith", "sgd"]})
    (column,) = section.columns
    assert (column.measure, column.target) == ("test_loss", 2.1)
    found = cells(tables.comparison(section))
    assert found["ZENITH"]["text, loss"] == "**1.50 ± 0.71** (1.0 s)"
    assert [line["mean rank"] for line in found.values()] == ["1.0", "2.0"]
    found = tables.lead(section)
    assert cells(found)["ZENITH against SGD"]["text"] == "+0.10 [+0.10, +0.10]: 2 seeds: no test"
    assert "Holm" not in found


def test_blocks_are_never_compared(tmp_path):
    rates = [
        ("sgd", {"lr": 0.3}),
        ("sgd-cosine", {"lr": 0.3} | MOMENTUM),
        ("schedule-free", {"lr": 2}),
    ]
    every = [*BLOCKS["A"], *BLOCKS["B"], *rates, ("zenith", {"window": 50})]
    names = [Question(slug, options=options).name for slug, options in every]
    (a, b) = sections_of(tmp_path, runs_of("zenith", 90.0), {"digits": [*dict.fromkeys(names)]})
    assert (a.title[:7], a.reference) == ("Block A", "zenith")
    assert (b.title[:7], b.reference) == ("Block B", "zenith,momentum=0.9")
    assert {*a.rows} & {*b.rows} == {"l4", "prodigy"}  # at the settings that both ask for
    assert {"sgd,lr=0.3", "zenith,window=50"} <= {*a.rows}
    assert {"sgd-cosine,lr=0.3,momentum=0.9", "schedule-free,lr=2"} <= {*b.rows}
    assert {*a.rows, *b.rows} == {*names}


def test_a_study_across_the_blocks_has_one_section(tmp_path):
    rows = {"digits": ["zenith", "zenith,momentum=0.9"]}
    (section,) = sections_of(tmp_path, runs_of("zenith", 90.0), rows, apart=False)
    assert (section.title, section.rows) == ("", rows["digits"])


def test_the_best_rate_is_chosen_on_validation(tmp_path):
    def rated(lr, validation, test):
        options = {} if lr == 0.1 else {"lr": lr}
        measures = {"validation_accuracy": [validation]}
        return trained([test], optimizer="sgd", options=options, measures=measures)

    runs = [rated(0.03, 80.0, 95.0), rated(0.1, 81.0, 70.0), rated(0.3, 82.0, 75.0)]
    rows = {"digits": ["sgd,lr=0.03", "sgd", "sgd,lr=0.3", "zenith"]}
    (section,) = sections_of(tmp_path, runs, rows, best_rate=["sgd"])
    assert section.rows == ["zenith", "sgd", "sgd,lr=best"]  # the others are not in `BLOCKS`
    found = cells(tables.comparison(section))
    assert found["SGD"]["digits, %"] == "70.00 (1.0 s)"
    assert found["SGD, lr=best"]["digits, %"] == "**75.00** (1.0 s), lr 0.3"
    (section,) = sections_of(tmp_path, runs[:2], rows, best_rate=["sgd"])
    (tmp_path / "digits/sgd,lr=0.3/seed-0.jsonl").unlink()
    (section,) = sections_of(tmp_path, [], rows, best_rate=["sgd"])
    assert section.columns[0].runs["sgd,lr=best"] == {}  # of two rates it is not the best of three


def test_the_best_rate_is_chosen_over_the_seeds_that_all_have_and_no_row_is_tested_twice(tmp_path):
    def rated(lr, *validation):
        options = {"lr": lr} if lr else {}
        return [
            trained(optimizer="sgd", options=options, seed=i, measures={"validation_accuracy": [x]})
            for i, x in enumerate(validation)
        ]

    rows = {"digits": ["zenith", "sgd", "sgd,lr=0.3"]}
    runs = [*rated(None, 80.0, 80.0, 90.0), *rated(0.3, 81.0, 81.0), *runs_of("zenith", 90.0)]
    (section,) = sections_of(tmp_path, runs, rows, best_rate=["sgd"])
    assert len(section.columns[0].runs["sgd,lr=best"]) == 2
    (section,) = sections_of(tmp_path, rated(0.3, 79.0, 79.0), rows, best_rate=["sgd"])
    found = cells(tables.lead(section))
    assert found["ZENITH against SGD, lr=best"]["digits"] == "as SGD"
    assert found["ZENITH against SGD"]["digits"] == "+0.00: 1 seed: no test"


def test_what_is_over_adamw_is_compared_with_adamw(tmp_path):
    names = ["zenith", "sgd", "adamw-zenith", "adamw", "adamw-cosine", "zenith-clip", "sgd-clip"]
    runs = [run for top, name in enumerate(names) for run in runs_of(name, 90.0 - top)]
    (section,) = sections_of(tmp_path, runs, {"digits": names}, apart=False)
    assert {
        row: line["digits"].split(":")[0] for row, line in cells(tables.lead(section)).items()
    } == {
        "ZENITH against SGD": "+1.00",
        "AdamW + ZENITH against AdamW": "+1.00",
        "AdamW + ZENITH against AdamW + cosine †": "+2.00",
        "ZENITH, clipped against SGD, clipped": "+1.00",
    }


def test_each_strength_of_l2_is_a_column(tmp_path):
    runs = [
        *runs_of("zenith", 75.0, l2=1e-4, task="food101-dla"),
        *runs_of("sps", 70.0, l2=1e-4, task="food101-dla"),
        *runs_of("zenith", 76.0, l2=2e-4, task="food101-dla"),
    ]
    names = ["zenith", "zenith,l2=0.0001", "zenith,l2=0.0002", "zenith,weight_decay=0.0001"]
    rows = {"food101-dla": [*names, "sps,l2=0.0001"]}
    (section,) = sections_of(tmp_path, runs, rows)
    assert [column.title for column in section.columns] == [
        "food101-dla",
        "food101-dla, L2 0.0001",
        "food101-dla, L2 0.0002",
    ]
    found = cells(tables.table4(section))
    assert found["ZENITH"] == {
        "optimizer": "ZENITH",
        "food101-dla, %": "missing",
        "food101-dla, L2 0.0001, %": "**75.00** (1.0 s)",
        "food101-dla, L2 0.0002, %": "**76.00** (1.0 s)",
        "mean rank": "-",
        "paper: food101-dla, L2 0.0001": "76.42 (1.61 h)",
        "paper: food101-dla, L2 0.0002": "77.70 (2.15 h)",
    }
    assert found["SPS"]["food101-dla, L2 0.0002, %"] == "-"  # was not asked for
    assert found["ZENITH, weight_decay"]["food101-dla, L2 0.0001, %"] == "missing"
    assert cells(tables.lead(section))["ZENITH against SPS"]["food101-dla, L2 0.0001"].startswith(
        "+5.00"
    )


def test_the_numbers_of_the_paper():
    assert [len(table) for table in (paper.TABLE3, paper.TABLE4)] == [6, 6]
    assert {len(column) for column in paper.TABLE3.values()} == {12}
    assert {len(column) for column in paper.TABLE4.values()} == {5}
    assert {slug for column in paper.TABLE3.values() for slug in column} <= {*OPTIMIZERS}
    last = paper.TABLE3["imagenet100-densenet121", "", ""]
    assert (last["lqa"], last["zenith"]) == (("1.00", "0.20 h"), ("78.2", "4.84 h"))
    assert paper.TABLE3["cifar100-resnet50", "", ""]["d-adaptation"] == ("69.2", "57.1 min")
    assert paper.TABLE4["food101-dla", "0.0003", ""]["sps"] == ("76.80", "1.75 h")


def test_the_paper_stands_beside_block_a_alone(tmp_path):
    rows = {"digits": ["zenith", "zenith,momentum=0.9", "prodigy"]}
    a, b = sections_of(tmp_path, runs_of("prodigy", 90.0), rows)
    found = cells(tables.table3(a))["Prodigy"]
    assert found["paper: imagenet100-densenet121"] == "78.0 (5.63 h)"
    assert len(found) == 3 + 6  # it has no task of ours, so all of its columns are there
    assert not any("paper" in column for column in cells(tables.table3(b))["Prodigy"])
    rows = {"mnist-efficientnet": ["zenith,window=50", "sgd"]}  # ZENITH is ZENITH at any window
    (section,) = sections_of(tmp_path, runs_of("sgd", 90.0, task="mnist-efficientnet"), rows)
    beside = {row: [*line.values()][3:] for row, line in cells(tables.table3(section)).items()}
    assert beside == {"ZENITH, window=50": ["99.57 (4.39 min)"], "SGD": ["-"]}


def test_all_measures_of_a_task(tmp_path):
    rising = [float(accuracy) for accuracy in range(1, 21)]
    measures = {"validation_accuracy": [5.0, 7.0, 6.0]}
    runs = [
        trained(rising, [0.5, 0.1], optimizer="zenith", seed=0, measures=measures),
        trained(rising, [0.5, 0.2], optimizer="zenith", seed=1, measures=measures),
        trained([12.0], [0.03], optimizer="sgd"),
    ]
    (section,) = sections_of(tmp_path, runs, {"digits": ["zenith", "sgd", "dog"]})
    text = account.details(section)
    assert cells(text) == {
        "ZENITH": {
            "digits": "ZENITH",
            "headline": "18.00 ± 0.00",
            "where validation is best": "2.00 ± 0.00",
            "best, chosen on the test set": "20.00 ± 0.00",
            "final training loss": "0.15 ± 0.071",
            "to loss 0.1": "missed",
            "to loss 0.03": "missed",
            "to 12.00 %": "60 steps, 12.0 s",
            "whole run": "20.0 s",
        },
        "SGD": dict(
            zip(
                cells(text)["SGD"],
                ["SGD", "12.00", "-", "12.00", "0.03", *["5 steps, 1.0 s"] * 3, "20.0 s"],
                strict=True,
            )
        ),
        "DoG": dict(zip(cells(text)["DoG"], ["DoG", "missing", *"-------"], strict=True)),
    }


def test_seconds_are_left_out_where_the_machine_was_another(tmp_path):
    runs = [
        *runs_of("zenith", 90.0, made={"device": "x86_64 of a make"}),
        *runs_of("sgd", 90.0, 91.0, made={"device": "x86_64 of a make"}),
        *runs_of("dog", 90.0, made={"device": "x86_64 of another"}),
        *runs_of("pal", 90.0, made={"device": "x86_64 of a make"}),
        trained([91.0], optimizer="pal", seed=1, made={}),  # of which nobody knows
    ]
    bare = [run._replace(header=run.header | {"made": {"device": "x86_64"}}) for run in runs[:2]]
    (section,) = sections({"digits": grouped(dict(enumerate(bare)))})
    assert not section.columns[0].timed()  # an architecture is no kind of machine
    (section,) = sections_of(tmp_path, runs, {"digits": ["zenith", "sgd", "dog", "pal"]})
    times = [
        line["digits, %"].partition("(")[2] for line in cells(tables.comparison(section)).values()
    ]
    assert times == ["1.0 s), 1 seed", "1.0 s)", "5 steps)", "5 steps), 1 seed"]
    found = cells(account.details(section))
    assert [found[row]["to 90.00 %"] for row in ("SGD", "DoG")] == ["5 steps, 1.0 s", "5 steps"]
    assert [found[row]["whole run"] for row in ("SGD", "DoG")] == ["20.0 s", "-"]
    (column,) = section.columns
    assert (column.timed(), column.timed("sgd"), column.timed("pal")) == (False, True, False)
    figure = figures.over_time(section)
    assert {axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()} == {"iteration"}
    assert [axes.get_title() for axes in figures.profiles(section).axes] == ["steps"]


def test_settings_missing_runs_and_machines(tmp_path):
    rows = {"digits": {"zenith,window=50": 2, "schedule-free": 3, "sgd-plateau": 2}}
    write(tmp_path, *runs_of("zenith", 90.0, 91.0, options={"window": 50}))
    write(tmp_path, *runs_of("sgd-plateau", 90.0, made={"torch": "2", "together": ["sgd"]}))
    tasks = gathered(tmp_path, rows)
    (section,) = sections(tasks, apart=False)
    found = {row: [*line.values()][1:] for row, line in cells(account.settings(section)).items()}
    assert found["ZENITH, window=50"][1:] == [
        "lr 0.1, window 50, momentum 0.0",
        "-",
        "its own weights",
    ]
    assert found["SGD + ReduceLROnPlateau"][::2] == ["torch.optim.sgd:SGD", "each epoch"]
    assert found["schedule-free SGD †"][0] == "schedulefree:SGDScheduleFree"
    assert found["schedule-free SGD †"][3] == "averaged weights"
    assert account.missing(tasks, rows).splitlines() == [
        "- `digits/sgd-plateau`: 1 of 2 seeds",
        "- `digits/schedule-free`: 0 of 3 seeds",
    ]
    machines = {row: [*line.values()][1:] for row, line in cells(account.compute(tasks)).items()}
    made = "threads {}, device x86_64 of a make"
    known = (made.format(0), made.format(1), "torch 2")
    assert machines == {name: ["1", "0.01"] for name in known}


def test_names():
    for name in ("sgd", "zenith,lr=0.2,window=50", "zenith,decay_in_norm=1,weight_decay"):
        assert named(*parsed(name)) == name


def test_only_what_was_asked_for_and_has_ended_is_read(tmp_path, capsys):
    going = trained(outcome=None, optimizer="sgd", seed=1)
    write(tmp_path, *runs_of("zenith", 90.0), *runs_of("sgd", 90.0), going, *runs_of("dog", 90.0))
    tasks = gathered(tmp_path, wanted({"digits": ["zenith", "sgd", "pal"]}))
    assert {name: [*own] for name, own in tasks["digits"].items()} == {
        "zenith": [0],
        "sgd": [0],
        "pal": [],
    }
    path = tmp_path / "digits" / "sgd" / "seed-1.jsonl"
    assert capsys.readouterr().err == f"experiments: left out: {path}: not finished\n"


def test_seeds_that_were_not_asked_for_are_left_out(tmp_path):
    rows = {"digits": {"zenith": 2, "sgd": 1}}
    write(tmp_path, *runs_of("zenith", 90.0, 91.0, 10.0), *runs_of("sgd", 80.0, 81.0, 82.0))
    study_report("table3", rows, tmp_path, tmp_path / "out", ["comparison"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "90.50 ± 0.71" in text
    assert "80.00 (1.0 s), 1 seed" in text
    assert "Nothing: every run is there" in text
    found = gathered(tmp_path, rows)["digits"]
    assert {name: [*own] for name, own in found.items()} == {"zenith": [0, 1], "sgd": [0]}
    with pytest.raises(UserError, match="holds no finished run of digits"):
        gathered(tmp_path, {"digits": {"zenith": 0, "sgd": 0}})


def test_a_study_without_runs_or_with_a_run_in_the_wrong_folder(tmp_path):
    with pytest.raises(UserError, match="holds no finished run of digits, text"):
        gathered(tmp_path, {"digits": {"sgd": 1}, "text": {}})
    write(tmp_path, *runs_of("zenith", 90.0))
    (tmp_path / "digits" / "zenith").rename(tmp_path / "digits" / "sgd")
    with pytest.raises(
        UserError, match=r"seed-0.jsonl: is a run of zenith, which its folder is not"
    ):
        gathered(tmp_path, {"digits": {"sgd": 1}})
    (tmp_path / "digits" / "sgd").rename(tmp_path / "digits" / "zenith")
    (tmp_path / "digits/zenith/seed-0.jsonl").rename(tmp_path / "digits/zenith/seed-12.jsonl")
    with pytest.raises(UserError, match=r"seed-12.jsonl: is a run of seed 0, by its first line"):
        gathered(tmp_path, {"digits": {"zenith": 1}})


def test_a_report_is_the_same_files_for_the_same_records(tmp_path):
    runs = [*runs_of("zenith", 90.0, 91.0), *runs_of("zenith", 92.0, options=MOMENTUM)]
    rows = {"digits": {"zenith": 2, "zenith,momentum=0.9": 2}}
    for name in ("plain", "zipped"):
        write(tmp_path / name, *runs)
    for path in [*(tmp_path / "zipped").rglob("*.jsonl")]:
        (path.parent / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    found = []
    for name in ("plain", "zipped"):
        out = tmp_path / name / "out"
        study_report("table3", rows, tmp_path / name, out, ["comparison", "figure1"])
        found.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert found[0] == found[1]
    assert {*found[0]} == {"report.md", "figure1-a.png", "figure1-b.png"}
    text = found[0]["report.md"].decode()
    places = [
        text.index(part) for part in ("# table3", "## Block A", "figure1-a.png", "## Block B")
    ]
    assert all(one < two for one, two in pairwise(places))
    assert "- `digits/zenith,momentum=0.9`: 1 of 2 seeds" in text


def test_a_report_that_cannot_be_written(tmp_path):
    write(tmp_path, *runs_of("zenith", 90.0))
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match=r"out: cannot be written \(File exists\)"):
        study_report("table3", {"digits": {"zenith": 1}}, tmp_path, tmp_path / "out", ["table3"])
