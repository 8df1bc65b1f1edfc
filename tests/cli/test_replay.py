"""What ZENITH would have made of logged norms: numbers, picture and command."""

import math
import os
import re
import struct
import subprocess
import sys

import pytest
from _commands import environment
from _replay import NORMS, lines, write_csv
from matplotlib.figure import Figure

import zenith
from zenith.cli import main
from zenith.plot import plot
from zenith.readers import Series, spacing
from zenith.replay import picture, replay, warnings

SCALES = [1.0, 1.0, 0.75, 0.25]


# --- replaying


def test_the_replay_is_the_schedule():
    result = replay(Series("norm", [1, 2, 3, 4], NORMS), window=2)
    assert [row["scale"] for row in result.rows] == SCALES
    assert result.summary(lr=0.1) == {
        "window": 2,
        "full at step": 2,
        "zenith": 4.0,
        "last mean": 1.0,
        "lowest rate": pytest.approx(0.025),
        "mean rate": pytest.approx(0.075),
        "last rate": pytest.approx(0.025),
    }


def test_where_every_tenth_step_was_logged_the_window_is_in_steps_all_the_same():
    steps = [10.0 * (i + 1) for i in range(4)]
    assert spacing(steps) == 10
    result = replay(Series("norm", steps, NORMS), window=20)
    assert [row["scale"] for row in result.rows] == SCALES
    assert result.summary(1.0)["full at step"] == 20


def test_a_norm_that_is_not_finite_is_skipped():
    norms = [3.0, math.nan, 5.0, math.inf, 1.0]
    result = replay(Series("norm", [1, 2, 3, 4, 5], norms), window=2)
    assert [row["scale"] for row in result.rows] == [1.0, 1.0, 1.0, 1.0, 0.75]
    assert result.rows[-1]["skipped"] == 2
    drawn = [row["grad_norm"] for row in result.rows]
    assert drawn == pytest.approx([3.0, math.nan, 5.0, math.nan, 1.0], nan_ok=True)


@pytest.mark.parametrize("window", [0, 2.5, True])
def test_no_window(window):
    with pytest.raises((TypeError, ValueError), match="`window` must be an integer >= 1"):
        replay(Series("norm", [1], [1.0]), window)


def test_warnings():
    falling = [1.0 / (1 + i) for i in range(20)]
    at = list(range(1, 21))
    assert warnings(Series("norm", at, falling), [20]) == []
    (clipped,) = warnings(Series("norm", at, [min(0.1, norm) for norm in falling]), [5])
    assert clipped.startswith("10 of 20 norms are 0.1, the highest: were they taken after clip")
    rounded = [0.9951, 1.0, 1.0042, 0.998, 1.003, *falling[5:]]  # to 1, in bfloat16
    (clipped,) = warnings(Series("norm", at, rounded), [5])
    assert clipped.startswith("5 of 20 norms are 1.0042, the highest")
    few = [1.0] * 5 + falling[5:10]
    assert warnings(Series("norm", at[:9], few[:9]), [5]) == []
    (clipped,) = warnings(Series("norm", at[:10], few), [5])
    assert clipped.startswith("5 of 10 norms are 1, the highest")
    edge = [100.0, 99.0, 99.0, *range(50, 15, -5)]
    (clipped,) = warnings(Series("norm", at[:10], edge), [5])
    assert clipped.startswith("3 of 10 norms are 100, the highest")
    bad = [*falling[:18], math.nan, -1.0]
    assert warnings(Series("norm", at, bad), [5]) == [
        "2 of 20 norms are negative or not finite, and are skipped"
    ]
    assert warnings(Series("norm", at, falling), [5, 21]) == [
        "the run is shorter than the window of 21: 20 steps, all at `lr`"
    ]
    assert warnings(Series("norm", [3 * i for i in at], falling), [60]) == [
        "one step in 3 was logged: the means are estimates"
    ]
    assert warnings(Series("norm", at, [0.0] * 20), [5]) == []
    assert warnings(Series("norm", [1], [math.nan]), [1]) == [
        "1 of 1 norms are negative or not finite, and are skipped"
    ]


# --- drawing


def states():
    seen = [zenith.init(window=2)]
    for norm in NORMS:
        seen.append(zenith.update(seen[-1], norm))
    return seen[1:]


def test_a_history_of_states_is_drawn():
    figure = plot(states(), lr=0.1)
    norms, rates = figure.axes
    assert "Constrained" in type(figure.get_layout_engine()).__name__
    assert lines(norms) == {
        "norm": NORMS,
        "mean, ZENITH": [4.0, 3.0, 1.0],  # from the full window on
        "zenith, ZENITH": [4.0, 4.0, 4.0],
    }
    assert lines(rates)["ZENITH"] == pytest.approx([0.1, 0.1, 0.075, 0.025])
    assert rates.get_ylabel() == "learning rate"
    assert rates.get_ylim()[0] == 0
    assert [line.get_linestyle() for line in norms.lines] == ["-", "-", ":"]
    assert norms.get_shared_x_axes().joined(norms, rates)
    without = plot(states()).axes[1]
    assert lines(without)["ZENITH"] == SCALES
    assert without.get_ylabel() == "scale: lr in units of `lr`"
    assert without.get_xlabel() == "step"


def test_records_are_drawn_at_their_own_steps_and_rates(tmp_path):
    header = ["step", "grad_norm", "mean", "zenith", "scale", "lr"]
    path = write_csv(tmp_path / "log.csv", header, [10, 3, 0, 0, 1, 0.5], [20, 5, 4, 4, 1, 0.4])
    norms, rates = plot(path).axes
    assert lines(rates)["ZENITH"] == [0.5, 0.4]
    assert [float(x) for x in norms.lines[0].get_xdata()] == [10, 20]
    figure = plot(path, axes=(None, rates), label="again")  # over the first, one panel of two
    assert figure is rates.get_figure()
    assert lines(rates)["again"] == [0.5, 0.4]
    assert {line.get_color() for line in [*norms.lines[1:], *rates.lines]} == {"#0072B2"}


@pytest.mark.parametrize(
    "again",
    [
        {"step": [1, 2, 3, 4], "count": [1, 2, 3, 4]},  # run twice, from the same step
        {"step": [5, 6, 7, 8], "count": [1, 2, 3, 4]},  # as `MetricLog` goes on with a file
        {"step": [3, 4, 5, 6], "count": [3, 4, 5, 6]},  # resumed after a crash
    ],
)
def test_a_rerun_is_drawn_apart(again):
    first = [zenith.metrics(state) | {"step": step} for step, state in enumerate(states(), 1)]
    second = [
        row | {"step": step, "count": count}
        for row, step, count in zip(first, again["step"], again["count"], strict=True)
    ]
    norms, rates = plot(first + second, lr=0.1).axes
    gap = pytest.approx([*NORMS, math.nan, *NORMS], nan_ok=True)
    assert lines(norms)["norm"] == gap
    assert [float(x) for x in norms.lines[0].get_xdata()][5:] == again["step"]
    means = [4.0, 3.0, 1.0]
    assert lines(norms)["mean, ZENITH"] == pytest.approx([*means, math.nan, *means], nan_ok=True)
    rates_of_one = [0.1 * scale for scale in SCALES]
    both = [*rates_of_one, math.nan, *rates_of_one]
    assert lines(rates)["ZENITH"] == pytest.approx(both, nan_ok=True)


def test_panels_of_a_subfigure_belong_to_the_whole_figure():
    figure = Figure()
    assert plot(states(), axes=tuple(figure.subfigures().subplots(2))) is figure


def test_each_window_has_a_colour_of_its_own_for_six():
    logged = Series("norm", [1, 2, 3, 4], NORMS)
    replays = [replay(logged, window) for window in range(1, 8)]
    drawn = picture(replays, 0.1, "svg").decode()
    own = {"0072b2", "d55e00", "009e73", "cc79a7", "e69f00", "56b4e9"}  # Okabe and Ito's
    assert own <= set(re.findall("stroke: #([0-9a-f]{6})", drawn))
    assert "learning rate" in drawn
    size = picture(replays, 0.1)[16:24]
    assert struct.unpack(">2I", size) == (1080, 720)  # 9 by 6 inches


def test_the_norms_are_drawn_once_also_over_a_line_of_the_users():
    figure = plot(states())
    figure.axes[0].clear()
    figure.axes[0].axhline(2.0)
    for label in ("a", "b"):
        plot(states(), axes=tuple(figure.axes), label=label)
    assert [line.get_label() for line in figure.axes[0].lines].count("norm") == 1


def test_what_cannot_be_drawn():
    with pytest.raises(
        ValueError, match=r"`axes` must have a panel for the norms or for the rate, got none$"
    ):
        plot(states(), axes=(None, None))
    with pytest.raises(ValueError, match=r"must be a sequence of states, got a single one$"):
        plot(states()[0])
    with pytest.raises(ValueError, match=r"at least one step, got none$"):
        plot([])
    with pytest.raises(ValueError, match="must have `mean`, got"):
        plot([{"grad_norm": 1.0}])


# --- the command


def test_the_command(log, tmp_path, capsys):
    out = tmp_path / "rates.svg"
    assert (
        main(["replay", str(log), "--window", "2", "3", "50", "--lr", "1", "--out", str(out)]) == 0
    )
    printed, complaints = capsys.readouterr()
    head, names, *table, last = printed.splitlines()
    assert head == "grad_norm: 4 norms, up to step 4; lr 1"
    assert names.split("  ")[0] == "window"
    assert [line.split() for line in table] == [
        ["2", "2", "4", "1", "0.25", "0.75", "0.25"],
        ["3", "3", "3", "2.3333", "0.77778", "0.94444", "0.77778"],
        ["50", "never", "0", "0", "1", "1", "1"],
    ]
    assert last == f"The picture is {out}"
    assert complaints == (
        "zenith: warning: the run is shorter than the window of 50: 4 steps, all at `lr`\n"
    )
    assert out.read_text().startswith("<?xml")
    for label in ("window 2", "window 50"):
        assert label in out.read_text()


def test_windows_before_the_file_and_one_by_one(log, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["replay", "--window", "2", "--window", "3", str(log)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert (tmp_path / "replay.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "0"], "`--window` must be an integer >= 1, got '0'"),
        (["--window", "2", "3.5"], "`--window` must be an integer >= 1, got '3.5'"),
        (["--window", "five"], "`--window` must be an integer >= 1, got 'five'"),
        (["--lr", "-1"], "`--lr` must be a finite number >= 0, got '-1'"),
        (["--column", "nowt"], "has no numbers in `nowt`, but in: grad_norm, step"),
        (["--out", "a.doc"], "`--out` must end in .png, .svg, .pdf, got a.doc"),
        (
            ["--out", "no/such/a.png"],
            "no/such/a.png: cannot be written (No such file or directory)",
        ),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    log, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["replay", str(log), *arguments]) == 2
    printed, complaint = capsys.readouterr()
    assert printed == ""
    assert complaint.startswith("zenith: error: ")
    assert complaint.endswith(f"{message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_windows_end_where_another_option_begins(log, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["replay", str(log), "--window=2", "3", "--lr", "10", "20"]) == 2
    assert "20" in capsys.readouterr().err  # an argument too many, and not a window
    assert main(["replay", "--window=2", "3", str(log), "--lr", "10"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ["2", "3"]


def test_a_window_beyond_all_memory(log, tmp_path, capsys):
    out = str(tmp_path / "a.png")
    assert main(["replay", str(log), "--window", "99999999999", "--out", out]) == 0
    assert "99999999999: 4 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("norms", "message"),
    [("nan\n-1", "no norm in `grad_norm` is finite"), ("1e308", "cannot be dr")],
)
def test_norms_that_nothing_can_be_made_of(tmp_path, capsys, norms, message):
    path = tmp_path / "log.csv"
    path.write_text(f"grad_norm\n{norms}\n")
    assert main(["replay", str(path), "--window", "1", "--out", str(tmp_path / "a.png")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("device", "code"), [("/dev/full", 2), ("a closed pipe", 141)])
def test_an_output_that_cannot_be_written(log, tmp_path, device, code, unbuffered):
    command = [sys.executable, "-m", "zenith", "replay", str(log)]
    buffering = environment(PYTHONUNBUFFERED=unbuffered)
    if device == "/dev/full":
        out = os.open(device, os.O_WRONLY)
    else:
        gone, out = os.pipe()
        os.close(gone)
    result = subprocess.run(
        command, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE, text=True, env=buffering
    )
    os.close(out)
    assert result.returncode == code
    full = "zenith: error: the output cannot be written (No space left on device)\n"
    warned = "".join(line for line in result.stderr.splitlines(True) if "warning: " in line)
    assert result.stderr == warned + full * (code == 2)


def test_a_log_that_is_not_there(tmp_path, capsys):
    assert main(["replay", str(tmp_path / "nowt.csv")]) == 2
    assert capsys.readouterr().err.endswith(
        "nowt.csv: cannot be read (No such file or directory)\n"
    )
