"""A finished run, or the finished part of one, as tables and figures; nothing is trained again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from brainrdl.report.brain_page import brain_results_table, write_brain_report
from brainrdl.report.task import task_results_table, write_task_report
from brainrdl.settings import read_yaml

__all__ = ["results_table", "write_report"]


def write_report(run_dir: str | Path, formats: Sequence[str] = ("png", "pdf")) -> Any:
    """Write RUN_DIR/report: tables as CSV and Markdown, and the figures of the run's kind.

    Raises ValueError for a folder that is no run or has no finished part, and for unreadable files.
    """
    return write_brain_report(Path(run_dir), formats) if _has_brains(run_dir) else write_task_report(run_dir, formats)


def results_table(run_dir: str | Path) -> pd.DataFrame:
    """The table of results as text to print, a row a method. Raises ValueError as `write_report`."""
    return brain_results_table(Path(run_dir)) if _has_brains(run_dir) else task_results_table(run_dir)


def _has_brains(run_dir: str | Path) -> bool:
    """Whether the run is one with brains as teachers."""
    path = Path(run_dir) / "experiment.yaml"
    return path.is_file() and "stimuli" in read_yaml(path)
