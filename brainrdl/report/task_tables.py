"""Test errors and McNemar's tests of a run as tables and sentences."""

from __future__ import annotations

from math import isnan

import pandas as pd

from brainrdl.analysis.accuracy import error_table, format_p
from brainrdl.report.blocks import NONE
from brainrdl.report.task_run import BASELINE, TEACHER, TaskRun


def error_summary(run: TaskRun) -> pd.DataFrame:
    """`error_table` of the run, the teacher last, with the seeds that are missing; no row where none is finished."""
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
    missing = run.missing
    table["missing_seeds"] = [" ".join(map(str, missing.get(method, []))) for method in table["method"]]
    return table


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
                "difference to baseline": percent(row["difference"], "+"),
                "its 95 % interval": interval(row["difference_low"], row["difference_high"], "+"),
                "p": format_p(row["p"]),
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
