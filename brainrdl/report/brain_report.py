"""The report of a run with brains as teachers: its tables as CSV, results.md, figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from brainrdl.analysis.figures.style import check_formats
from brainrdl.notes import run_notes
from brainrdl.report.blocks import Block, Bullets, Paragraph, as_markdown
from brainrdl.report.brain import BrainRun, BrainTables, brain_tables
from brainrdl.report.brain_figures import draw
from brainrdl.report.brain_page import brain_page
from brainrdl.report.brain_tables import contrasts_of, results_blocks, results_rows, set_up_lines
from brainrdl.report.page import Page, write_page
from brainrdl.run_folder import read_table
from brainrdl.runs import write_text


def write_brain_report(run_dir: Path, formats: Sequence[str] = ("png", "pdf")) -> BrainTables:
    """Write RUN_DIR/report: scores, means, tests and accuracies as CSV, results.md, the figures and report.html.

    A partly finished run is reported as far as it is. Raises ValueError for a run in which nothing is finished.
    """
    report = make_brain_report(run_dir, formats)
    write_page(report.page, run_dir / "report" / "report.html")
    return report.tables


class BrainReport(NamedTuple):
    """A run's report, but for report.html, which its page becomes."""

    run: BrainRun
    tables: BrainTables
    page: Page


def make_brain_report(run_dir: Path, formats: Sequence[str]) -> BrainReport:
    """As `write_brain_report`, but report.html is not written."""
    formats = check_formats(formats)
    run = BrainRun(run_dir)
    tables = brain_tables(run)
    contrasts = contrasts_of(run, tables.subjects)
    out = run_dir / "report"
    for name, table in {**tables._asdict(), **contrasts._asdict()}.items():
        if isinstance(table, pd.DataFrame) and len(table):
            write_text(out / f"{name}.csv", table.to_csv(index=False))
    figures = draw(run, tables, out, formats)
    results, notes = results_blocks(run, tables, contrasts), (*tables.notes, *figures.notes)
    blocks: list[Block] = [Bullets(tuple(set_up_lines(run)))]
    if told := (*run_notes(run.folder), *notes):
        blocks += [Paragraph("To be known:"), Bullets(told)]
    blocks += [*results, *figures.pictures]
    blocks.append(
        Paragraph("Numbers: scores.csv (every network, subject and fold), subjects.csv, agreement.csv, tests.csv, …")
    )
    title = f"# {run.name}: agreement with the brain on what was not learned"
    write_text(out / "results.md", f"{title}\n\n{as_markdown(blocks)}")
    return BrainReport(run, tables, brain_page(run, tables, results, figures.pictures, notes))


def brain_results_table(run_dir: Path) -> pd.DataFrame:
    """The scores on held-out pairs, as of the last report, as text to print; the teachers' own RDMs last."""
    run = BrainRun(run_dir)
    path = run_dir / "report" / "agreement.csv"
    columns = ("network", "layer", "roi", "pairs", "kind", "score")
    agreement = read_table(path, columns) if path.is_file() else brain_tables(run).agreement
    return results_rows(run, agreement, str(run.settings["score"]["layers"][0]))
