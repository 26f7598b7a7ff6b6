"""The search for settings of a run as tables: what was tried, what it came to on validation images, what was chosen."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from brainrdl.report.blocks import NONE
from brainrdl.report.task_tables import percent
from brainrdl.run_folder import SEARCH, check_noted, read_table

SEARCH_WORDS = (
    "Every trial is a training with other settings; the one with the lowest validation error is chosen (bold). Test "
    "images were not looked at."
)
_KEYS = ("method", "trial")
_OTHERS = ("seed", "epochs", "validation_error", "chosen")


def read_search(folder: Path) -> pd.DataFrame | None:
    """The run's search.csv, a row a trial and seed; None where there is none.

    Columns: method; trial; seed and epochs, where they are told; one for each setting that was tried, which is NaN for
    other methods'; validation_error (a fraction); chosen.
    Raises ValueError where the file is damaged.
    """
    path = folder / SEARCH
    if not path.is_file():
        return None
    check_noted(folder, SEARCH)
    table = read_table(path, (*_KEYS, "validation_error", "chosen"))
    chosen = table["chosen"].astype(str).str.lower()
    if not chosen.isin(["true", "false"]).all():
        value = chosen[~chosen.isin(["true", "false"])].iloc[0]
        raise ValueError(f"'{path}': expected chosen to be true or false, got '{value}'; search again")
    return table.assign(chosen=chosen == "true")


def readable_search(search: pd.DataFrame) -> pd.DataFrame:
    """A row a trial, with its settings as `key=value`, the chosen one of each method in bold. search: of `read_search`.

    The validation error is the mean over the trial's seeds ± their standard deviation.
    """
    settings = [str(column) for column in search if column not in (*_KEYS, *_OTHERS)]
    rows = []
    for (method, trial), seeds in search.groupby(list(_KEYS), sort=False):
        first, errors = seeds.iloc[0], seeds["validation_error"]
        told = [f"{key}={_value(first[key])}" for key in settings if pd.notna(first[key])]
        row = {
            "trial": str(trial),
            "settings": "; ".join(told) or NONE,
            "validation error (%)": percent(errors.mean())
            + (f" ± {percent(errors.std())}" if errors.count() > 1 else ""),
        }
        bold = "**{}**" if seeds["chosen"].all() else "{}"
        rows.append({"method": str(method), **{name: bold.format(cell) for name, cell in row.items()}})
    return pd.DataFrame(rows)


def trial_counts(search: pd.DataFrame) -> pd.DataFrame:
    """How many trials each method had, of how many networks and epochs each. search: of `read_search`."""
    rows = []
    for method, own in search.groupby("method", sort=False):
        seeds = own.groupby("trial").size()
        row = {"method": str(method), "trials": str(len(seeds)), "networks each": _range(seeds)}
        if "epochs" in own:
            row["epochs each"] = _range(own["epochs"])
        rows.append(row)
    return pd.DataFrame(rows)


def _range(numbers: pd.Series[int]) -> str:
    least, most = numbers.min(), numbers.max()
    return f"{least}" if least == most else f"{least} to {most}"


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
