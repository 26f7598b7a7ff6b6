"""A run, or several, as tables, figures and a page to look into, as far as they got; nothing is trained again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from brainrdl.folder_lock import locked
from brainrdl.report.brain_report import brain_results_table, make_brain_report, write_brain_report
from brainrdl.report.figure_runs import has_brains, is_run
from brainrdl.report.joint import JointFiles, Report, check_out, run_names, write_joint_report
from brainrdl.report.page import write_page
from brainrdl.report.run_files import read_experiment
from brainrdl.report.task_report import make_task_report, task_results_table, write_task_report

__all__ = ["JointFiles", "results_table", "write_report", "write_reports"]

_WAIT = "wait until its report is written"


def write_report(run_dir: str | Path, formats: Sequence[str] = ("png", "pdf")) -> Any:
    """Write RUN_DIR/report: tables as CSV and Markdown, the figures of the run's kind, and report.html.

    Raises ValueError for a folder that is no run or has nothing to show, for files that are damaged, and where another
    process is writing its report.
    """
    if not is_run(run_dir):
        read_experiment(Path(run_dir))  # which says so
    with locked(Path(run_dir), "report", remedy=_WAIT):
        if has_brains(run_dir):
            return write_brain_report(Path(run_dir), formats)
        return write_task_report(run_dir, formats)


def write_reports(
    run_dirs: Sequence[str | Path], out: str | Path | None = None, formats: Sequence[str] = ("png", "pdf")
) -> JointFiles:
    """Write each run's own report, and one of them side by side: OUT/report.html and OUT/results.csv.

    out: default: the folder `report` beside the first run. Runs are called by their folders' names.
    Raises ValueError as `write_report`, for fewer than two runs, one that is given twice, and an `out` that is a run.
    """
    folders = [Path(folder) for folder in run_dirs]
    if len(folders) < 2:
        raise ValueError(f"a report of several runs needs at least 2, got {len(folders)}; use write_report for one")
    names = run_names(folders)
    out = folders[0].resolve().parent / "report" if out is None else Path(out)
    check_out(out)
    reports: list[Report] = []
    for folder in folders:
        if not is_run(folder):
            read_experiment(folder)
        with locked(folder, "report", remedy=_WAIT):
            brains = has_brains(folder)
            report: Report = make_brain_report(folder, formats) if brains else make_task_report(folder, formats)
            write_page(report.page, folder / "report" / "report.html")
        reports.append(report)
    with locked(out):
        return write_joint_report(reports, names, out)


def results_table(run_dir: str | Path) -> pd.DataFrame:
    """The table of results as text to print, a row a method. Raises ValueError as `write_report`."""
    return brain_results_table(Path(run_dir)) if has_brains(run_dir) else task_results_table(run_dir)
