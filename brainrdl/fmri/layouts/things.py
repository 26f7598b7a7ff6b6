"""THINGS-fMRI: single-trial responses in table format, as the authors' usage notes describe them.

Source: Hebart et al. (2023), eLife 12:e82580; ViCCo-Group/THINGS-data, MRI/notebooks/fmri_usage.ipynb; the data set
"THINGS-data: fMRI Single Trial Responses (table format)", doi:10.25452/figshare.plus.20492835.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainrdl.fmri.layouts.selection import (
    choose_sessions,
    enough_repetitions,
    known_roi,
    layout_settings,
    read_table,
    whole_numbers,
)
from brainrdl.fmri.paths import fill
from brainrdl.fmri.spec import BrainSpec, Roi
from brainrdl.fmri.trials import Trials
from brainrdl.rdms.hdf5 import check_stored, open_hdf5


def read_things(spec: BrainSpec, folder: Path, subject: str, roi: str) -> Trials:
    """Single-trial responses (voxels x trials in the file, trials x voxels here); only the region's rows are read.

    stimulus: the image's file name. A region is an atlas, sub-XX_VoxelMetadata.csv, and labels, those of its columns in
    which the region's voxels are not 0. Images of trial_type "test" were shown in every session, the others once:
    crossnobis and ceilings are for the former alone (`Trials.repeated_only`).
    Raises ValueError: files missing, or not in this layout; columns that are not there.
    """
    settings = layout_settings(spec)
    what = f"{spec.name}, subject '{subject}'"
    path = folder / f"betas_csv/sub-{subject}_ResponseData.h5"
    stimuli = folder / f"betas_csv/sub-{subject}_StimulusMetadata.csv"
    table = read_table(stimuli, ("stimulus", "session", "run", "trial_type", "trial_id"), "table of stimuli")
    _check_trials(table, stimuli)
    voxels, inside = _voxels(known_roi(spec, roi), folder, subject, roi)
    n_trials = len(table)
    numbers = whole_numbers(table, "session", stimuli)
    chosen = choose_sessions(settings.sessions, sorted(set(numbers)), numbers.max(), what, str(stimuli))
    table = enough_repetitions(table[numbers.isin(chosen)], settings.min_repetitions, what)
    columns = whole_numbers(table, "trial_id", stimuli).to_numpy()
    responses = _read_responses(path, voxels, np.flatnonzero(inside), n_trials, columns)
    test = frozenset(table["stimulus"][table["trial_type"] == "test"])
    return Trials(responses, table, subject, roi, repeated_only=test)


def _check_trials(table: pd.DataFrame, path: Path) -> None:
    other = sorted(set(table["trial_type"]) - {"train", "test"})
    if other:
        raise ValueError(f"{path}: expected trial_type train or test, got '{other[0]}'; take the table format's file")
    if table.empty:
        raise ValueError(f"{path}: there is no trial in it; fetch it again")
    if sorted(whole_numbers(table, "trial_id", path)) != list(range(len(table))):
        raise ValueError(f"{path}: expected trial_id of 0 to {len(table) - 1}, each once; fetch it again")


def _voxels(roi: Roi, folder: Path, subject: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """voxel_id of all rows of the responses, and which of them lie in the region."""
    if roi.atlas is None or not roi.atlas.endswith(".csv"):
        raise ValueError(
            f"roi '{name}': expected sub-{{subject}}_VoxelMetadata.csv as the atlas, with columns of it as labels, "
            f"got '{roi.atlas or roi.mask}'"
        )
    path = fill(roi.atlas, folder, subject)[0]
    table = read_table(path, ("voxel_id",), "table of voxels")
    inside = np.zeros(len(table), dtype=bool)
    for label in map(str, roi.labels):
        if label not in table:
            close = get_close_matches(label, table.columns, n=3, cutoff=0.3)
            raise ValueError(
                f"{path}: roi '{name}' names the column '{label}', which it has not; near it: {', '.join(close)}"
            )
        numbers = pd.to_numeric(table[label], errors="coerce").to_numpy(dtype=float)
        if np.isnan(numbers).any():
            line = int(np.isnan(numbers).argmax()) + 2
            raise ValueError(f"{path}: {label} in line {line} is '{table[label].iloc[line - 2]}'; expected a number")
        inside |= numbers != 0
    if not inside.any():
        raise ValueError(
            f"{path}: roi '{name}' ({', '.join(map(str, roi.labels))}) has no voxel in subject '{subject}'"
        )
    return whole_numbers(table, "voxel_id", path).to_numpy(), inside


def _read_responses(
    path: Path, voxel_ids: np.ndarray, rows: np.ndarray, n_trials: int, columns: np.ndarray
) -> np.ndarray:
    """(n_kept_trials, n_kept_voxels) float32 from what pandas wrote as one frame; nothing is unpickled.

    The frame's numbers lie in blocks by type: the responses, (n_voxels, n_trials), and the column voxel_id.
    """
    if not path.is_file():
        raise ValueError(f"no file of responses {path}; fetch the data set, or correct folder")
    with open_hdf5(path, "cannot be read", "fetch it again") as file:
        blocks = _blocks(file)
        expected = (len(voxel_ids), n_trials)
        found = [block for block in blocks if block.shape == expected]
        if len(found) != 1 or found[0].dtype.kind not in "biuf":
            shapes = ", ".join(f"{block.shape} of {block.dtype}" for block in blocks) or "none"
            raise ValueError(
                f"{path}: expected one block of {expected} (voxels of VoxelMetadata, trials of StimulusMetadata) of "
                f"numbers, got: {shapes}; take the three files of one subject and release"
            )
        for block in blocks:
            check_stored(block, path)
            if block.shape == (len(voxel_ids), 1) and not np.array_equal(block[:, 0], voxel_ids):
                raise ValueError(f"{path}: its voxel_id are not those of VoxelMetadata; take files of one release")
        values = np.empty((len(columns), len(rows)), dtype=np.float32)
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            values[:, part] = found[0][rows[part[0]] : rows[part[-1]] + 1][:, columns].T
    return values


def _blocks(file: Any) -> list[Any]:
    groups = [group for group in file.values() if hasattr(group, "keys")]
    found = [group[name] for group in groups for name in group if re.fullmatch(r"block\d*_values", name)]
    return [block for block in found if hasattr(block, "dtype")]
