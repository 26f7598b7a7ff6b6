"""Reader of single-trial responses: images whose volumes are trials, tables that say which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from brainrdl.fmri.events import read_tsv
from brainrdl.fmri.images import read_region, read_voxels
from brainrdl.fmri.paths import Run, fill, find_runs
from brainrdl.fmri.spec import Betas, BrainSpec
from brainrdl.fmri.trials import Trials


def read_betas(spec: BrainSpec, folder: Path, subject: str, roi: str) -> Trials:
    """A row a trial, from all image files of a subject in a region.

    Raises ValueError naming the file that is missing, damaged, in another space, or whose table has another length.
    """
    data = spec.data
    assert isinstance(data, Betas)
    runs = find_runs(data.images, folder, subject, data.sessions, data.runs, spec.hemispheres)
    images = [fill(data.images, folder, subject, run, spec.hemispheres) for run in runs]
    region = read_region(spec.rois[roi], folder, subject, images[0], spec.hemispheres, roi)
    responses, tables = [], []
    for run, files in zip(runs, images, strict=True):
        values = read_voxels(files, region, roi)
        path = fill(data.trials, folder, subject, run)[0]
        table = _read_trials(path, data.stimulus, run)
        if len(table) != len(values):
            raise ValueError(f"{path}: {len(table)} trials for the {len(values)} volumes of {files[0]}")
        responses.append(values)
        tables.append(table)
    return Trials(
        np.concatenate(responses), pd.concat(tables, ignore_index=True), subject, roi, notes=tuple(region.notes)
    )


def _read_trials(path: Path, stimulus: str, run: Run) -> pd.DataFrame:
    table = read_tsv(path, "trial table")
    if stimulus not in table:
        raise ValueError(f"{path}: the column '{stimulus}' is missing; it has: {', '.join(map(str, table))}")
    nameless = table[stimulus].isin(["", "n/a"])
    if nameless.any():
        raise ValueError(
            f"{path}: the trial in line {int(nameless.to_numpy().argmax()) + 2} has no {stimulus}; name it"
        )
    named = {"session": run.session, "run": run.run}
    return table.assign(stimulus=table[stimulus], **{name: table.get(name, value) for name, value in named.items()})
