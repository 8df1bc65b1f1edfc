"""The report of a study: Markdown and pictures, from the records alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.errors import explained
from experiments.report import account, claims, stops, tables
from experiments.report.correlations import correlations
from experiments.report.detection import detection
from experiments.report.figures import FIGURES, picture
from experiments.report.found import complete, gathered
from experiments.report.secondary import secondary
from experiments.report.sections import Section, sections
from zenith.cli import write

__all__ = ["REPORT", "TABLES", "study_report"]

REPORT = "report.md"
TABLES: Mapping[str, tuple[str, Callable[[Section], str]]] = {
    "table3": ("Accuracy and time, beside the paper's table 3", tables.table3),
    "table4": ("Accuracy and time, beside the paper's table 4", tables.table4),
    "table5": ("mAP50 and time, beside the paper's table 5", tables.table5),
    "claims": ("The primary claims", claims.claims),
    "secondary": ("The secondary claims", secondary),
    "detection": ("The claims of section 4", detection),
    "comparison": ("Accuracy and time", tables.comparison),
    "lead": ("How far ZENITH is ahead of each, and what a test says of it", tables.lead),
    "stops": ("Accuracy when stopped at a part of the run", stops.stops),
    "shares": ("The share of noise in the norm of a batch's gradient", stops.shares),
    "correlations": ("What goes with what, over the optimizers of a seed", correlations),
    "details": ("All measures", account.details),
    "settings": ("All settings", account.settings),
}


def study_report(
    name: str,
    rows: Mapping[str, Mapping[str, int]],
    folder: Path,
    out: Path,
    parts: Sequence[str],
    *,
    best_rate: Sequence[str] = (),
    apart: bool = True,
) -> None:
    """Write `report.md` and its pictures into `out`, whatever part of the runs is there.

    The same records come to the same files, byte for byte.

    Args:
        name: of the study.
        rows: by task, the names of its runs (`Question.name`), and how many seeds of each.
        folder: of the records, `TASK/NAME/seed-N.jsonl[.gz]`; runs under way are left out.
        out: where to write.
        parts: what to show, in this order: names of `TABLES` and of `FIGURES`.
        best_rate: the optimizers with a row at the best of their rates; see `sections`.
        apart: never compare block A with block B; False where the study is about just that.

    Raises:
        UserError: naming the file or folder, if there is no run, a run is there twice or in the
            folder of another, the runs of a task are not of one question, or nothing can be
            written.
    """
    tasks = gathered(folder, rows)
    most = max(seeds for names in rows.values() for seeds in names.values())
    found = sections(tasks, most, best_rate, apart, complete(tasks, rows))
    with explained(f"{out}: cannot be written"):
        out.mkdir(parents=True, exist_ok=True)
    text = [f"# {name}"]
    for i, section in enumerate(found):
        text += [f"## {section.title}"] if section.title else []
        suffix = f"-{'abc'[i]}" if len(found) > 1 else ""
        text += [_part(part, section, out / f"{part}{suffix}.png") for part in parts]
    text += ["## What is missing", account.missing(tasks, rows)]
    text += ["## Compute", account.compute(tasks)]
    write(out / REPORT, ("\n\n".join(text) + "\n").encode())


def _part(part: str, section: Section, file: Path) -> str:
    if part in TABLES:
        title, table = TABLES[part]
        return f"### {title}\n\n{table(section)}"
    write(file, picture(part, section))
    caption, _, note, _ = FIGURES[part]
    return f"### {caption}\n\n![{caption}]({file.name})" + (f"\n\n{note}" if note else "")
