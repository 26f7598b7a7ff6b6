"""Reader of BOLD time series with events: an image a run, a first-level model a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from brainrdl.fmri.events import read_events, read_tsv
from brainrdl.fmri.glm import RunFit, fit_run
from brainrdl.fmri.images import read_region, read_voxels, scan_interval, usable_voxels
from brainrdl.fmri.paths import fill, find_runs
from brainrdl.fmri.spec import Bold, BrainSpec
from brainrdl.fmri.trials import Residuals, Trials

# Seconds from scan to scan that are believed; the model's memory grows with their inverse.
SHORTEST, LONGEST = 0.01, 100.0


def read_bold(spec: BrainSpec, folder: Path, subject: str, roi: str) -> Trials:
    """A row a stimulus and run (or a trial), from all runs of a subject in a region; with the models' residuals.

    Voxels that are constant or NaN in any run are dropped in all, and counted in the notes. These also tell a t_r of
    the spec that is not the images' own.
    Raises ValueError naming the file that is missing, damaged, in another space, or does not fit the others.
    """
    data = spec.data
    assert isinstance(data, Bold)
    hemispheres = spec.hemispheres
    runs = find_runs(data.images, folder, subject, data.sessions, data.runs, hemispheres)
    images = [fill(data.images, folder, subject, run, hemispheres) for run in runs]
    region = read_region(spec.rois[roi], folder, subject, images[0], hemispheres, roi)
    series = [read_voxels(files, region, roi) for files in images]
    for files, values in zip(images, series, strict=True):
        if len(values) < 2:
            raise ValueError(
                f"{files[0]}: expected a time series, got {len(values)} volume; set format: betas for those"
            )
        usable_voxels([values], f"{files[0]}, roi '{roi}'")  # names the run that has none
    usable = usable_voxels(series, f"subject '{subject}', roi '{roi}'")
    notes = dict.fromkeys([*region.notes, *([usable.note] if usable.note else [])])
    fits: list[RunFit] = []
    tables = []
    for run, files, values in zip(runs, images, series, strict=True):
        told = scan_interval(files[0])
        t_r = data.t_r or told
        if t_r is None:
            raise ValueError(f"{files[0]} does not tell the seconds from scan to scan; set data.t_r in the spec")
        if not SHORTEST <= t_r <= LONGEST:
            whose = f"{spec.name}: data.t_r" if data.t_r else f"{files[0]}: the time from scan to scan"
            raise ValueError(
                f"{whose} is {t_r:g} s; expected {SHORTEST:g} to {LONGEST:g} s (not milliseconds): correct data.t_r in "
                "the spec"
            )
        if told is not None and abs(t_r - told) > 1e-3 * t_r:
            notes[f"t_r is {t_r:g} s by the spec, {told:g} s by the images' header: the spec's is taken"] = None
        events_file = fill(data.events, folder, subject, run)[0]
        events = read_events(events_file, t_r * len(values), data.condition, data.ignore, data.file_ids)
        confounds = None
        if data.confounds is not None:
            confounds = _read_confounds(
                fill(data.confounds, folder, subject, run)[0], data.confounds_columns, len(values)
            )
            if confounds.isna().any(axis=None):
                notes["n/a in confounds replaced by the column's mean"] = None
                confounds = confounds.fillna(confounds.mean())
        fit = fit_run(values[:, usable.keep], events, t_r, data, confounds, str(files[0]))
        fits.append(fit)
        tables.append(pd.DataFrame({"stimulus": fit.stimuli, "run": run.run, "session": run.session}))
    residuals = [fit.residuals for fit in fits if fit.residuals is not None]
    return Trials(
        np.concatenate([fit.betas for fit in fits]),
        pd.concat(tables, ignore_index=True),
        subject,
        roi,
        Residuals(np.concatenate(residuals), sum(fit.dof for fit in fits)) if residuals else None,
        notes=tuple(notes),
    )


def _read_confounds(path: Path, columns: tuple[str, ...] | None, n_scans: int) -> pd.DataFrame:
    """(n_scans, n_confounds) numbers, NaN where the file says n/a."""
    table = read_tsv(path, "confounds")
    missing = [column for column in columns or () if column not in table]
    if missing:
        raise ValueError(f"{path}: the column '{missing[0]}' is missing; it has: {', '.join(map(str, table))}")
    if len(table) != n_scans:
        raise ValueError(f"{path}: {len(table)} rows for {n_scans} scans; expected a row a scan")
    chosen = table[list(columns or table)]
    numbers = pd.DataFrame({name: pd.to_numeric(chosen[name], errors="coerce").astype(float) for name in chosen})
    wrong = numbers.isna() & ~chosen.isin(["n/a", "", "nan", "NaN"])
    for name in wrong.columns[wrong.any()][:1]:
        line = int(wrong[name].to_numpy().argmax())
        raise ValueError(
            f"{path}: {name} in line {line + 2} is '{chosen[name].iloc[line][:40]}'; expected a number or n/a; choose "
            "columns with confounds_columns"
        )
    infinite = [name for name in numbers if np.isinf(numbers[name]).any()]
    if infinite:
        raise ValueError(f"{path}: the column '{infinite[0]}' has infinite values; write n/a for what is not known")
    empty = numbers.columns[numbers.isna().all()]
    if len(empty):
        raise ValueError(f"{path}: the column '{empty[0]}' has no number in it; leave it out with confounds_columns")
    return numbers
