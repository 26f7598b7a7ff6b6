"""A run of methods that learn a task, as tables, figures and a page; nothing is trained again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from brainrdl.analysis.accuracy import mcnemar_markdown, mcnemar_table
from brainrdl.analysis.figures.style import check_formats
from brainrdl.notes import run_notes
from brainrdl.report.blocks import Block, Bullets, Heading, Paragraph, Picture, Table, as_markdown
from brainrdl.report.page import Page, write_page
from brainrdl.report.set_up import NOTED
from brainrdl.report.task_figures import draw
from brainrdl.report.task_page import task_page
from brainrdl.report.task_run import TaskRun, read_task_run
from brainrdl.report.task_tables import (
    MCNEMAR_WORDS,
    error_summary,
    missing_lines,
    readable_errors,
    seed_table,
    set_up_lines,
    table_notes,
)
from brainrdl.report.task_words import in_words
from brainrdl.runs import write_text


class ReportFiles(NamedTuple):
    """What `write_report` wrote, and what it had to leave out; None where no network is finished."""

    results_csv: Path | None
    results_md: Path
    per_seed_csv: Path | None
    mcnemar_csv: Path | None
    mcnemar_md: Path | None
    page: Path
    figures: tuple[Path, ...]
    notes: tuple[str, ...]


def write_task_report(run_dir: str | Path, formats: Sequence[str] = ("png", "pdf")) -> ReportFiles:
    """Write RUN_DIR/report: results and McNemar's tests as CSV and Markdown, per_seed.csv, figures, and report.html.

    Errors are those of the final networks on the test set. The figures of RDMs show the first seed, last epoch.
    A run that is not finished is reported as far as it got, which stands at the top of results.md and report.html;
    where no network is finished there are no results to tabulate, and None stands for their files.
    Raises ValueError for a folder that is no run or has nothing to show, unreadable files, or networks tested on
    different stimuli.
    """
    report = make_task_report(run_dir, formats)
    write_page(report.page, report.files.page)
    return report.files


class TaskReport(NamedTuple):
    """A run's report, but for report.html, which its page becomes. errors: as in results.csv."""

    run: TaskRun
    errors: pd.DataFrame
    files: ReportFiles
    page: Page


def make_task_report(run_dir: str | Path, formats: Sequence[str]) -> TaskReport:
    """As `write_task_report`, but report.html is not written."""
    formats = check_formats(formats)
    run = read_task_run(run_dir)
    if not run.histories and not run.logged_seeds:
        run.check_finished()
    tests = mcnemar_table(run.predictions)
    errors = error_summary(run)
    out = run.folder / "report"
    pictures, notes = draw(run, out, formats)
    tables = ("results.csv", "per_seed.csv", "mcnemar.csv", "mcnemar.md")
    csv, seeds_csv, mcnemar_csv, mcnemar_md = (out / name if len(errors) else None for name in tables)
    figures = tuple(path for shown in pictures for path in shown.files)
    files = ReportFiles(
        csv, out / "results.md", seeds_csv, mcnemar_csv, mcnemar_md, out / "report.html", figures, notes
    )
    if csv and seeds_csv and mcnemar_csv and mcnemar_md:
        write_text(csv, errors.to_csv(index=False))
        write_text(seeds_csv, seed_table(run).to_csv(index=False))
        write_text(mcnemar_csv, tests.to_csv(index=False))
        write_text(mcnemar_md, _mcnemar_page(run, tests))
    write_text(files.results_md, _results_page(run, errors, tests, pictures, notes))
    return TaskReport(run, errors, files, task_page(run, errors, tests, pictures, notes))


def task_results_table(run_dir: str | Path) -> pd.DataFrame:
    """The table of test errors as text to print: a row a method in the experiment's order, the teacher last.

    "—" stands where something is not defined, e.g. an interval over one seed; no row where no network is finished.
    Raises ValueError as `write_report`.
    """
    return readable_errors(error_summary(read_task_run(run_dir)))


def _results_page(
    run: TaskRun, errors: pd.DataFrame, tests: pd.DataFrame, pictures: Sequence[Picture], notes: Sequence[str]
) -> str:
    finished = [method for method in run.methods if run.finished(method)]
    blocks: list[Block] = [Bullets((*missing_lines(run), *set_up_lines(run)))]
    if len(errors):
        blocks += [
            Table(readable_errors(errors)),
            Paragraph(table_notes(run)),
            Paragraph(
                "McNemar's test between every two methods: [mcnemar.md](mcnemar.md). Numbers: results.csv, mcnemar.csv "
                "and, of each network, per_seed.csv."
            ),
            *in_words(run, errors, tests),
        ]
    if noted := run_notes(run.folder):
        blocks += [Heading("To be known"), Paragraph(NOTED), Bullets(tuple(noted))]
    if pictures:
        blocks += [Heading("Figures"), *pictures]
    if notes:
        blocks += [Paragraph("Left out:"), Bullets(tuple(notes))]
    return f"# {run.name}: test error of {len(finished)} training methods\n\n" + as_markdown(blocks)


def _mcnemar_page(run: TaskRun, tests: pd.DataFrame) -> str:
    title = f"# {run.name}: McNemar's exact test between every two methods"
    if tests.empty:
        return f"{title}\n\nOnly one network is finished: nothing to compare.\n"
    return "\n\n".join([title, *MCNEMAR_WORDS, mcnemar_markdown(tests)])
