"""What is committed in `results`: reports are what the records come to, byte for byte."""

from pathlib import Path

import pytest

import experiments
from experiments.__main__ import main
from experiments.question import Question
from experiments.records import paths, read

RESULTS = Path(experiments.__file__).parent / "results"
REPORTS = sorted(path.parent for path in RESULTS.glob("reports/*/report.md"))


@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.name)
def test_a_report_is_what_the_records_come_to(report, tmp_path):
    for task in RESULTS.glob("*/*/seed-*"):
        place = tmp_path / task.relative_to(RESULTS).parts[0]
        if not place.exists():
            place.symlink_to(task.parents[1])
    assert main(["report", str(tmp_path), "--study", report.name]) == 0
    made = tmp_path / "reports" / report.name
    assert (made / "report.md").read_text() == (report / "report.md").read_text()
    assert {path.name for path in made.iterdir()} == {path.name for path in report.iterdir()}


def test_every_record_is_a_whole_run_in_its_place():
    found = paths(RESULTS)
    assert REPORTS
    assert found
    for path in found:
        run = read(path)
        question = Question.of(run.header)
        assert run.outcome is not None
        assert path.name == f"seed-{question.seed}.jsonl.gz"
        own = question.path(run.header["task"])
        assert path.relative_to(RESULTS).with_suffix("") == own
