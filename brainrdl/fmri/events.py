"""Events in BIDS form: what was shown when."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from brainrdl.data.stimulus_set import read_text_table

# Seconds before the first scan up to which nilearn takes an event into the model.
_EARLIEST = -24.0


def read_tsv(path: Path, what: str) -> pd.DataFrame:
    """A table of text, BIDS's n/a as it stands. what: names it in the message.

    Raises ValueError where there is no such file, or it is no table.
    """
    if not path.is_file():
        raise ValueError(f"no {what} file {path}; correct its name in the spec")
    return read_text_table(path)


def read_events(
    path: Path, run_length: float, condition: str = "trial_type", ignore: Collection[str] = (), file_ids: bool = False
) -> pd.DataFrame:
    """onset and duration (seconds) and stimulus (text), a row an event, in order of onset.

    run_length: seconds. condition: the column that names the stimulus. ignore: its values that are left out. file_ids:
    the stimulus is the name of a file without folder and ending. An event may end after the run, but not start there,
    and start up to 24 s before the first scan. Raises ValueError where a column is missing, onset or duration is no
    number, a duration is negative, an event has no stimulus (n/a), or none is left.
    """
    table = read_tsv(path, "events")
    for column in ("onset", "duration", condition):
        if column not in table:
            raise ValueError(f"{path}: the column '{column}' is missing; it has: {', '.join(map(str, table))}")
    table = table[~table[condition].isin(list(ignore))]
    events = pd.DataFrame(index=table.index)
    for column in ("onset", "duration"):
        events[column] = pd.to_numeric(table[column], errors="coerce").astype(float)
        wrong = ~np.isfinite(events[column])
        if wrong.any():
            raise ValueError(
                f"{path}: {column} in line {_line(table, wrong)} is '{table.loc[wrong, column].iloc[0]}'; "
                "expected a number of seconds"
            )
    negative = events["duration"] < 0
    if negative.any():
        raise ValueError(
            f"{path}: duration in line {_line(table, negative)} is {events.loc[negative, 'duration'].iloc[0]:g} s; "
            "expected 0 or more"
        )
    nameless = table[condition].isin(["", "n/a"])
    if nameless.any():
        raise ValueError(
            f"{path}: the event in line {_line(table, nameless)} has no {condition} (n/a); "
            "name it, or add n/a to 'ignore' in the spec"
        )
    names = table[condition]
    events["stimulus"] = names.map(lambda name: PurePosixPath(name).stem) if file_ids else names
    if file_ids:
        _check_one_file_each(path, names, events["stimulus"])
    if events.empty:
        raise ValueError(f"{path}: no event is left; the spec ignores: {', '.join(ignore) or 'none'}")
    late = events["onset"] >= run_length
    if late.any():
        raise ValueError(
            f"{path}: onset {events.loc[late, 'onset'].iloc[0]:g} s in line {_line(table, late)} lies past the end of "
            f"the run ({run_length:g} s); onsets are in seconds from the first scan, and t_r must be right"
        )
    early = events["onset"] < _EARLIEST
    if early.any():
        raise ValueError(
            f"{path}: onset {events.loc[early, 'onset'].iloc[0]:g} s in line {_line(table, early)} lies more than "
            f"{-_EARLIEST:g} s before the first scan; onsets are in seconds from there: correct it, or leave it out"
        )
    return events.sort_values("onset", kind="stable", ignore_index=True)


def _check_one_file_each(path: Path, names: pd.Series, ids: pd.Series) -> None:
    """Raise ValueError where files of several folders or endings would become one stimulus."""
    several = names.groupby(ids).unique()
    several = several[several.map(len) > 1]
    if len(several):
        one, other = several.iloc[0][:2]
        raise ValueError(
            f"{path}: '{one}' and '{other}' would both be stimulus '{several.index[0]}', since folder and ending are "
            "left out; give the files different names"
        )


def _line(table: pd.DataFrame, which: pd.Series) -> int:
    """Where the first of these rows stands in the file, its heading being line 1."""
    return int(table.index[which][0]) + 2
