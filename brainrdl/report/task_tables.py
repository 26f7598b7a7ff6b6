"""Test errors and McNemar's tests of a run as tables and sentences."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainrdl.analysis.accuracy import error_table, format_p
from brainrdl.experiment_file.task import PublishedSettings
from brainrdl.report.blocks import NONE
from brainrdl.report.task_run import BASELINE, TEACHER, TaskRun
from brainrdl.run_folder import EXPERIMENT, check_noted, read_table
from brainrdl.settings import validate


def error_summary(run: TaskRun) -> pd.DataFrame:
    """`error_table` of the run, the teacher last; no row where none is finished.

    With p_holm (of p, over the methods), the seeds that are missing and, where the experiment says some, what was
    published (a fraction; NaN = nothing). Raises ValueError where `published` of the experiment file is damaged.
    """
    if not run.any_finished:
        return pd.DataFrame()
    errors = pd.DataFrame(
        [
            (method, -1 if seed is None else seed, (frame["label"] != frame["predicted"]).mean())
            for (method, seed), frame in run.predictions.items()
        ],
        columns=["method", "seed", "error"],
    )
    is_teacher = errors["seed"] == -1
    table = error_table(errors[~is_teacher], BASELINE)
    if is_teacher.any():
        teacher = error_table(errors[is_teacher], BASELINE)
        # An all-empty column would lose its type in the concatenation.
        table = pd.DataFrame(table.to_dict("records") + teacher.to_dict("records"))
    table["p_holm"] = with_holm(table["p"])
    missing = run.missing
    table["missing_seeds"] = [" ".join(map(str, missing.get(method, []))) for method in table["method"]]
    if told := published_results(run):
        percents = told.test_error_percent
        table["published"] = [percents.get(method, nan) / 100 for method in table["method"]]
    return table


def published_results(run: TaskRun) -> PublishedSettings | None:
    """What the experiment file says that others found. Raises ValueError naming file and field where it is damaged."""
    told = run.settings.get("published")
    return None if told is None else validate(PublishedSettings, told, str(run.folder / EXPERIMENT), "published")


def with_holm(p: Sequence[float] | np.ndarray | pd.Series[float]) -> np.ndarray:
    """p-values adjusted so that of all of them together one is below 0.05 by chance at most so often (Holm 1979).

    p: (n_tests,); NaN = no test, stays NaN and is not counted.
    """
    adjusted = np.array(p, dtype=float)
    tested = np.flatnonzero(~np.isnan(adjusted))
    order = tested[np.argsort(adjusted[tested], kind="stable")]
    steps = adjusted[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def readable_errors(errors: pd.DataFrame) -> pd.DataFrame:
    """`error_summary` as text to read."""
    rows = []
    for row in errors.to_dict("records"):
        rows.append(
            {
                "method": row["method"],
                "seeds": str(row["n_seeds"]) if row["method"] != TEACHER else "one network",
                "test error (%)": percent(row["mean"]) + ("" if isnan(row["std"]) else f" ± {percent(row['std'])}"),
                "95 % interval": interval(row["low"], row["high"]),
                **({"published (%)": percent(row["published"])} if "published" in row else {}),
                "difference to baseline": percent(row["difference"], "+"),
                "its 95 % interval": interval(row["difference_low"], row["difference_high"], "+"),
                "p": format_p(row["p"]),
            }
        )
    return pd.DataFrame(rows)


def seed_table(run: TaskRun) -> pd.DataFrame:
    """A row a finished network: what it came to, and what that took.

    Columns: method; seed (none for the teacher); test_error, of the final network on the test set; validation_error and
    train_error, of the last epoch, train_error as counted while it was learning; epochs, of all stages; seconds, of the
    training. Errors are fractions. NaN: not measured.
    """
    rows = []
    for (method, seed), predictions in run.predictions.items():
        history = _history(run, method, seed)
        last: Mapping[Hashable, Any] = {} if history is None else history.iloc[-1].to_dict()
        rows.append(
            {
                "method": method,
                "seed": seed,
                "test_error": error_of(predictions),
                **{name: last.get(name, nan) for name in ("validation_error", "train_error")},
                "epochs": nan if history is None else len(history),
                "seconds": _seconds(run.part(method, seed) / "timing.csv"),
            }
        )
    table = pd.DataFrame(rows, columns=["method", "seed", *_OF_A_NETWORK])
    return table.astype({"seed": "Int64", "epochs": "Int64"})


def _history(run: TaskRun, method: str, seed: int | None) -> pd.DataFrame | None:
    if seed is not None:
        return run.histories.get((method, seed))
    path = run.part(method, seed) / "history.csv"  # a teacher with weights of its own has none
    check_noted(path.parent, path.name)
    return read_table(path, ("epoch",)) if path.is_file() else None


def _seconds(path: Path) -> float:
    """NaN where it was not measured to the end, or of an interrupted training not written down."""
    try:
        return float(read_table(path, ("seconds",))["seconds"].sum())
    except ValueError:
        return nan


_OF_A_NETWORK = ("test_error", "validation_error", "train_error", "epochs", "seconds")


def readable_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """`seed_table` as text to read: a row a method with its test errors seed by seed; without the teacher."""
    students = table[table["seed"].notna()]
    rows = []
    for method, own in students.groupby("method", sort=False):
        errors = dict(zip(own["seed"], own["test_error"], strict=True))
        rows.append(
            {
                "method": str(method),
                **{f"seed {seed}": percent(errors.get(seed, nan)) for seed in sorted(set(students["seed"]))},
                "mean validation error": percent(own["validation_error"].mean()),
                "epochs": NONE if own["epochs"].isna().all() else f"{own['epochs'].mean():.0f}",
                "seconds a network": NONE if own["seconds"].isna().all() else f"{own['seconds'].mean():.0f}",
            }
        )
    return pd.DataFrame(rows)


def percent(fraction: float, sign: str = "") -> str:
    """A fraction in per cent, "—" for NaN."""
    return NONE if isnan(fraction) else f"{100 * fraction:{sign}.2f}".replace("-", "−")


def interval(low: float, high: float, sign: str = "") -> str:
    """An interval of fractions in per cent."""
    return NONE if isnan(low) else f"{percent(low, sign)} … {percent(high, sign)}"


def error_of(predictions: pd.DataFrame) -> float:
    """The share of the predictions that are wrong."""
    return float((predictions["label"] != predictions["predicted"]).mean())


def set_up_lines(run: TaskRun) -> tuple[str, ...]:
    """What was compared, in plain words."""
    finished = ", ".join(method for method in run.methods if run.finished(method))
    lines = [
        f"Compared: {finished or 'nothing yet'}; one network a method and seed.",
        f"Seeds: {', '.join(str(seed) for seed in run.seeds)}. Methods are compared within a seed.",
    ]
    if run.any_finished:
        n_test = len(next(iter(run.predictions.values())))
        lines.append(
            f"Test set: {n_test:,} images, the same for every network; errors are those of the final networks."
        )
    return (*lines, f"Teacher: {_teacher_line(run)}")


def _teacher_line(run: TaskRun) -> str:
    if (TEACHER, None) not in run.predictions:
        return "its predictions on these test images are not part of this run."
    error = error_of(run.predictions[TEACHER, None])
    return f"one network for all seeds, wrong on {percent(error)} % of the test images."


def missing_lines(run: TaskRun) -> tuple[str, ...]:
    """What is not finished, a line a method, and how far its networks are."""
    lines = []
    for method, lacking in run.missing.items():
        begun = [
            f"seed {seed} is at epoch {int(run.histories[method, seed]['epoch'].max()) + 1}"
            for seed in lacking
            if (method, seed) in run.histories
        ]
        seeds = f"seed{'s' * (len(lacking) > 1)} {', '.join(map(str, lacking))}"
        lines.append(f"Not finished: {method}, {seeds}." + (f" In training: {'; '.join(begun)}." if begun else ""))
    return tuple(lines)


def table_notes(run: TaskRun) -> str:
    """What the table of errors shows, and what it cannot."""
    notes = ["± is the standard deviation over seeds; intervals are 95 % t-intervals of the mean over seeds."]
    if len(run.seeds) == 1:
        notes = [f"One seed: no spread and no interval ({NONE})."]
    if not run.finished(BASELINE):
        notes.append(f"There is no finished method '{BASELINE}', so there are no differences to it.")
    else:
        notes.append(
            "Differences are in percentage points, method minus baseline of the same seed (below zero: fewer errors); "
            "p: paired t-test over seeds, uncorrected."
        )
    if told := published_results(run):
        notes.append(f"Published: {told.source}.")
    notes.append("One teacher serves all seeds, so the variance between teachers is not in the intervals.")
    notes.append("McNemar's test is made within each seed, is uncorrected, and is never pooled over seeds.")
    return " ".join(notes)


MCNEMAR_WORDS = (
    "Do two networks err equally often on the same test images? Each cell: the median over seeds of the two-sided "
    "p-value, uncorrected; where it is below 0.05 an arrow to the better method (← the row's, ↑ the column's, "
    "↔ seeds contradict each other); in brackets, in how many seeds p < 0.05.",
    "The test is made within each seed and never pooled: the seeds share their test images. It says whether two "
    "trained networks differ on images like these, not whether their methods would with other seeds. One teacher "
    "is compared with the networks of every seed.",
)
