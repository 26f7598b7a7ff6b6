"""Trials made ready for RDMs: bad voxels out, z-scored, reliable voxels chosen; what counts as a fold."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from brainrdl.fmri.images import usable_voxels
from brainrdl.fmri.trials import Residuals, Trials

_LARGEST = 1e100


class Halves(NamedTuple):
    """Mean patterns of two halves of the folds, (n_stimuli, n_voxels) each. stimuli: the rows' ids, sorted."""

    first: np.ndarray
    second: np.ndarray
    stimuli: list[str]


def drop_bad_voxels(trials: Trials) -> Trials:
    """Without the trials that were not measured (NaN throughout), and the voxels constant, or NaN in any other trial.

    How many is in the notes. Responses become float64 in memory. Raises ValueError where fewer than 2 voxels are left,
    or their squares would be infinite.
    """
    trials = replace(trials, responses=np.asarray(trials.responses, dtype=float))
    unmeasured = np.isnan(trials.responses).all(1)
    if unmeasured.any() and not unmeasured.all():
        note = f"{int(unmeasured.sum())} of {len(unmeasured)} trials dropped, which are NaN throughout"
        trials = replace(select_trials(trials, ~unmeasured), notes=(*trials.notes, note))
    usable = usable_voxels([trials.responses], who(trials))
    largest = np.abs(trials.responses[:, usable.keep]).max()
    if largest > _LARGEST:
        raise ValueError(
            f"{who(trials)}: responses of up to {largest:g}, whose squares are infinite; the scale in the images' "
            "headers is wrong: fetch or write them again"
        )
    notes = (*trials.notes, usable.note) if usable.note else trials.notes
    return _with_voxels(replace(trials, notes=notes), usable.keep)


def zscore(trials: Trials, within: Literal["session", "run"]) -> Trials:
    """Each voxel to mean 0 and standard deviation 1 over the trials of each session, or of each run.

    Distances are then in units of this standard deviation; residuals, which are in the old units, are left out.
    Voxels that are constant in one session (run) are dropped. Raises ValueError where one has a single trial, or fewer
    than 2 voxels are left.
    """
    label = fold_labels(trials, within)
    responses = np.asarray(trials.responses, dtype=float)
    members = [np.flatnonzero(label == one) for one in dict.fromkeys(label)]
    smallest = min(members, key=len)
    if len(smallest) < 2:
        raise ValueError(
            f"{who(trials)}: {within} '{label[smallest[0]]}' has a single trial, which cannot be z-scored; "
            "set zscore: none"
        )
    usable = usable_voxels([responses[rows] for rows in members], who(trials))
    scaled = responses[:, usable.keep]
    for rows in members:
        scaled[rows] = (scaled[rows] - scaled[rows].mean(0)) / scaled[rows].std(0)
    notes = [*trials.notes, f"z-scored within {within}: distances are in units of a voxel's standard deviation there"]
    if usable.note:
        notes.append(f"{usable.note} (within a {within})")
    return replace(trials, responses=scaled, residuals=None, notes=tuple(notes))


def fold_labels(trials: Trials, folds: str) -> np.ndarray:
    """(n_trials,) text: which fold each trial is of.

    folds: "run" (the runs of each session), "session", or another column of the trial table. Raises ValueError for a
    column in which one run has several values: trials of one run share its noise, so folds of them are not independent.
    """
    table = trials.table
    run = table["session"].astype(str) + "/" + table["run"].astype(str)
    if folds == "run":
        return run.to_numpy(dtype=object)
    if folds not in table:
        raise ValueError(f"{who(trials)}: no column '{folds}' to make folds of; expected 'run' or 'session'")
    label = table[folds].astype(str)
    mixed = label.groupby(run).nunique() > 1
    if mixed.any():
        raise ValueError(
            f"{who(trials)}: the folds '{folds}' divide the trials of one run ({mixed.index[mixed][0]}), which share "
            "its noise; folds are whole runs or sessions"
        )
    return label.to_numpy(dtype=object)


def half_labels(trials: Trials, folds: str, folds_a_half: int = 1) -> np.ndarray:
    """(n_trials,) 0 or 1: in which half of the folds the trial is; -1: its stimulus was measured in one fold.

    The halves are the odd and the even folds, in the order in which the table has them, where every stimulus then has
    `folds_a_half` in both (or fewer than twice as many in all). Elsewhere they are the odd and the even ones among the
    folds in which the trial's own stimulus was measured: a fold may then be in the first half for one stimulus and in
    the second for another (`halves_share_folds`).
    Raises ValueError for means over repetitions, which have no halves, and as `fold_labels`.
    """
    if trials.averaged:
        raise ValueError(f"{who(trials)}: the responses are means over repetitions, which cannot be split into halves")
    table = pd.DataFrame({"stimulus": trials.table["stimulus"], "fold": pd.factorize(fold_labels(trials, folds))[0]})
    by_stimulus = table.groupby("stimulus")["fold"]
    n_folds = by_stimulus.transform("nunique")
    half = table["fold"] % 2
    once = table.drop_duplicates()
    n_odd = (once["fold"] % 2).groupby(once["stimulus"]).sum()
    n_all = once.groupby("stimulus")["fold"].size()
    fewest = np.minimum(n_odd, n_all - n_odd)
    if (fewest[n_all >= 2 * folds_a_half] < folds_a_half).any():
        half = by_stimulus.rank(method="dense").astype(int).sub(1) % 2
    return np.asarray(half.where(n_folds > 1, -1))


def halves_share_folds(trials: Trials, folds: str, folds_a_half: int = 1) -> bool:
    """Whether a fold is in different halves for different stimuli, so that its noise is in both (`half_labels`)."""
    half = half_labels(trials, folds, folds_a_half)
    used = half >= 0
    return bool((pd.Series(half[used]).groupby(fold_labels(trials, folds)[used]).nunique() > 1).any())


def split_halves(trials: Trials, folds: str) -> Halves:
    """Every stimulus's mean pattern over either half of its folds (`half_labels`).

    Stimuli measured in one fold only are left out. Raises ValueError where no stimulus was measured in two folds.
    """
    half = half_labels(trials, folds)
    responses = pd.DataFrame(np.asarray(trials.responses, dtype=float))
    stimulus = trials.table["stimulus"].to_numpy()
    first, second = (responses[half == k].groupby(stimulus[half == k]).mean() for k in (0, 1))
    if first.empty:
        raise ValueError(f"{who(trials)}: no stimulus was measured in two {folds}s, so there are no halves to compare")
    return Halves(first.to_numpy(), second.to_numpy(), [str(name) for name in first.index])


def voxel_reliability(trials: Trials, folds: str, stimuli: Collection[str]) -> np.ndarray:
    """(n_voxels,) Pearson correlation over stimuli of the two halves' responses (`split_halves`), not stepped up.

    stimuli: ids to use; those measured in one fold only do not count. NaN: a voxel constant in a half.
    Raises ValueError where fewer than 3 are left.
    """
    halves = split_halves(trials, folds)
    rows = [k for k, stimulus in enumerate(halves.stimuli) if stimulus in set(stimuli)]
    if len(rows) < 3:
        raise ValueError(
            f"{who(trials)}: {len(rows)} of the {len(stimuli)} stimuli for voxel selection were measured in two "
            f"{folds}s; expected at least 3"
        )
    return column_correlations(halves.first[rows], halves.second[rows])


def select_voxels(trials: Trials, min_reliability: float, folds: str, stimuli: Collection[str]) -> Trials:
    """The voxels whose `voxel_reliability` over `stimuli` is at least the given one (Tarhan & Konkle 2020).

    stimuli: training stimuli only, where others are scored afterwards: choosing on those would favour them; how many
    of them were measured in two folds is in the notes. Raises ValueError where fewer than 2 voxels remain.
    """
    reliability = voxel_reliability(trials, folds, stimuli)
    keep = np.nan_to_num(reliability, nan=-np.inf) >= min_reliability
    if keep.sum() < 2:
        raise ValueError(
            f"{who(trials)}: {int(keep.sum())} of {len(keep)} voxels reach a reliability of {min_reliability}, the "
            f"best has {np.nanmax(reliability, initial=-1):.2f}; lower voxels.min_reliability"
        )
    chosen = f"{int(keep.sum())} of {len(keep)} voxels chosen"
    n_used = len(set(stimuli) & set(trials.table["stimulus"][half_labels(trials, folds) >= 0]))
    of_list = "" if n_used == len(set(stimuli)) else f" (of the {len(set(stimuli))} listed)"
    note = f"{chosen}: split-half reliability at least {min_reliability} over {n_used} stimuli{of_list}"
    return _with_voxels(replace(trials, notes=(*trials.notes, note)), keep)


def select_trials(trials: Trials, rows: np.ndarray) -> Trials:
    """Some of the trials. rows: (n_trials,) bool."""
    return replace(trials, responses=trials.responses[rows], table=trials.table[rows].reset_index(drop=True))


def column_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r of each column of a with the same column of b; NaN where one is constant.

    a, b: (n_rows, n_columns). Returns (n_columns,).
    """
    a, b = a - a.mean(0), b - b.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0)))


def who(trials: Trials) -> str:
    """Subject and region, for messages."""
    return f"subject '{trials.subject}', roi '{trials.roi}'"


def _with_voxels(trials: Trials, keep: np.ndarray) -> Trials:
    residuals = trials.residuals
    return replace(
        trials,
        responses=trials.responses[:, keep],
        residuals=None if residuals is None else Residuals(residuals.values[:, keep], residuals.dof),
    )
