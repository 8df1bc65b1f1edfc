"""The notebooks at toy length, beside what a few lines of JSON come to without our readers."""

import json
from pathlib import Path
from statistics import fmean

import jupytext
import nbformat
import papermill
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "experiments" / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))
TOY = ",epochs=2,batch=64"


@pytest.fixture
def shown(tmp_path):
    """What runs a notebook in a folder of its own, and returns the lines that it shows."""

    def run(name, **parameters):
        source, done = tmp_path / "source.ipynb", tmp_path / "done.ipynb"
        jupytext.write(jupytext.read(NOTEBOOKS / f"{name}.py"), source)
        papermill.execute_notebook(
            source, done, {"OUT": "runs", **parameters}, cwd=tmp_path, progress_bar=False
        )
        outputs = [out for cell in nbformat.read(done, 4).cells for out in cell.get("outputs", [])]
        assert sum("image/png" in out.get("data", {}) for out in outputs) >= 1
        texts = (out.get("text") or out["data"].get("text/markdown", "") for out in outputs)
        return "\n".join(texts).splitlines()

    return run


def recorded(folder, name, kind, seed=0):
    text = (folder / "runs" / "digits" / name / f"seed-{seed}.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == kind]


def test_the_table_has_the_means_over_the_seeds(shown, tmp_path):
    rows = shown("reproduce_a_table", SCALE="toy", TASK="digits")
    labels = {"zenith": "ZENITH{}", "sgd": "SGD{}", "sgd-cosine": "SGD + cosine{} †"}
    for name, label in labels.items():
        # The last quarter of two evaluations is the last.
        last = [recorded(tmp_path, name + TOY, "eval", seed)[-1] for seed in (0, 1)]
        mean = fmean(line["test_accuracy"] for line in last)
        start = f"| {label.format(', epochs=2, batch=64')} | {mean:.2f} ± "
        assert len([row for row in rows if row.replace("*", "").startswith(start)]) == 1


def test_the_last_scale_is_that_of_the_norms(shown, tmp_path):
    rows = shown("read_the_schedule", TASK="digits", EPOCHS=2, WINDOW=10)
    norms = [x["grad_norm"] for x in recorded(tmp_path, "zenith,window=10,epochs=2", "step")]
    assert len(norms) == 2 * 84
    means = [fmean(norms[i - 10 : i]) for i in range(10, len(norms) + 1)]
    assert "the window is full at step 10 of 168" in rows
    (row,) = (row for row in rows if row.startswith("the last scale is "))
    # Of six digits, each within 5e-6 of itself: the last mean, the highest, and what is printed.
    assert float(row.split()[-1]) == pytest.approx(means[-1] / max(means), rel=1.5e-5)
    (row,) = (row for row in rows if row.startswith("the largest difference is "))
    assert float(row.split()[4]) <= 1.5e-5


def test_the_best_is_that_of_the_evaluations(shown, tmp_path):
    chosen = {"RATES": [0.05, 0.1], "WINDOWS": [3, 27, 500], "MEASURE": "test_accuracy"}
    rows = shown("choose_lr_and_window", SCALE="toy", **chosen)
    options = {"lr": ["", ",lr=0.05"], "window": ["", ",window=3", ",window=27"]}
    found = [row.split()[-1] for row in rows if row.startswith("best of ZENITH: ")]
    for names, best in zip(options.values(), found, strict=True):
        scores = {
            name: recorded(tmp_path, f"zenith{name}{TOY}", "eval")[-1]["test_accuracy"]
            for name in names
        }
        assert scores[best.removeprefix("zenith").removesuffix(TOY)] == max(scores.values())


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_what_is_shown_was_run(source):
    shown = nbformat.read(source.with_suffix(".ipynb"), 4).cells
    assert [cell.source for cell in shown] == [cell.source for cell in jupytext.read(source).cells]
    outputs = [out for cell in shown for out in cell.get("outputs", [])]
    assert {"error"}.isdisjoint(out.output_type for out in outputs)
    code = [cell for cell in shown if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
