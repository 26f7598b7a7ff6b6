"""What GLMsingle (in Python) writes: single-trial responses in chronological order, as a pickled dict or as HDF5.

Source: Prince et al. (2022), eLife 11:e77599; cvnlab/GLMsingle, glmsingle/glmsingle.py (file names, `betasmd`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainrdl.fmri.layouts.selection import (
    denoised_note,
    drop_unmeasured,
    enough_repetitions,
    known_roi,
    layout_settings,
    read_table,
    region_by_itself,
)
from brainrdl.fmri.paths import fill
from brainrdl.fmri.spec import BrainSpec
from brainrdl.fmri.trials import Trials
from brainrdl.rdms.hdf5 import check_stored, open_hdf5
from brainrdl.restricted_files import load_dict

MODELS = ("TYPEB_FITHRF", "TYPEC_FITHRF_GLMDENOISE", "TYPED_FITHRF_GLMDENOISE_RR")


def read_glmsingle(spec: BrainSpec, folder: Path, subject: str, roi: str) -> Trials:
    """Single-trial responses `betasmd`, from HDF5 where there is one, else from the .npy (all of it in memory at once).

    The file tells neither which trial is which, so the table `trials` does, in the order of the design; nor a space:
    voxels are matched with the region's by their index. Voxels that are NaN, or 0 throughout, are dropped.
    Raises ValueError: files missing or damaged, a pickle that needs code, a table or region of another length.
    """
    settings = layout_settings(spec)
    betas = settings.betas or MODELS[-1]
    if betas not in MODELS:
        raise ValueError(
            f"{spec.name}: data.betas '{betas}' has no single trials; expected one of: {', '.join(MODELS)}"
        )
    what = f"{spec.name}, subject '{subject}'"
    path = _output(fill(settings.outputs or "", folder, subject)[0], betas)
    table_file = fill(settings.trials or "", folder, subject)[0]
    table = _trial_table(table_file)
    region = region_by_itself(known_roi(spec, roi), folder, subject, spec.hemispheres, roi)
    read = _read_hdf5 if path.suffix == ".hdf5" else _read_npy
    responses = read(path, region.mask, roi)
    if len(responses) != len(table):
        raise ValueError(
            f"{table_file}: {len(table)} rows for the {len(responses)} trials of {path}; "
            "expected a row a trial, in the order of the design"
        )
    unmeasured = np.isnan(responses).any(0) | (responses == 0).all(0)
    responses, dropped = drop_unmeasured(responses, unmeasured, "NaN, or 0 throughout", f"{what}, roi '{roi}'")
    table["row"] = np.arange(len(table))
    if settings.sessions is not None:
        unknown = set(settings.sessions) - set(table["session"])
        if unknown:
            raise ValueError(
                f"{table_file}: no session '{min(unknown)}'; it has: {', '.join(sorted(set(table['session'])))}"
            )
        table = table[table["session"].isin(settings.sessions)]
    table = enough_repetitions(table, settings.min_repetitions, what)
    if len(table) < len(responses):
        responses = responses[table["row"].to_numpy()]
    notes = ("voxels are matched by their index: GLMsingle's file tells no space", dropped, *denoised_note(betas))
    return Trials(responses, table.drop(columns="row"), subject, roi, notes=tuple(filter(None, notes)))


def _output(folder: Path, betas: str) -> Path:
    for ending in ".hdf5", ".npy":
        if (folder / f"{betas}{ending}").is_file():
            return folder / f"{betas}{ending}"
    matlab = (
        ", but a .mat of GLMsingle's MATLAB version, which is not read" if (folder / f"{betas}.mat").is_file() else ""
    )
    raise ValueError(
        f"{folder}: no {betas}.hdf5 or {betas}.npy{matlab}; correct data.outputs or data.betas, or run GLMsingle "
        "(in Python) with this output written"
    )


def _trial_table(path: Path) -> pd.DataFrame:
    """stimulus, run and session ("" where the table has no such column), and its further columns, as text."""
    table = read_table(path, ("stimulus",), "trial table")
    return table.assign(**{name: "" for name in ("run", "session") if name not in table})


def _read_hdf5(path: Path, mask: np.ndarray, roi: str) -> np.ndarray:
    """(n_trials, n_voxels) float32, a plane of voxels at a time."""
    import h5py

    with open_hdf5(path, "cannot be read", "copy or write it again") as file:
        betas = file.get("betasmd")
        if not isinstance(betas, h5py.Dataset):
            raise ValueError(f"{path}: expected the data set 'betasmd', got: {', '.join(file)}; run GLMsingle again")
        planes = _as_voxels(mask, betas, path, roi)
        check_stored(betas, path)
        parts = [betas[x][inside] for x, inside in enumerate(planes) if inside.any()]
    return np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts]).T.astype(np.float32)


def _read_npy(path: Path, mask: np.ndarray, roi: str) -> np.ndarray:
    betas = load_dict(path).get("betasmd")
    if not isinstance(betas, np.ndarray):
        raise ValueError(f"{path}: expected a dict with the array 'betasmd'; run GLMsingle again")
    inside = _as_voxels(mask, betas, path, roi)
    return np.asarray(betas[inside].T, dtype=np.float32)


def _as_voxels(mask: np.ndarray, betas: Any, path: Path, roi: str) -> np.ndarray:
    """`mask` in the shape of `betasmd`'s voxels: (x, y, z), or (n, 1, 1) or (n,) where the data were units x time.

    betas: an array, in memory or in HDF5. Raises ValueError where it is not of real numbers, or of other voxels.
    """
    if betas.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected betasmd of real numbers, got {betas.dtype}; run GLMsingle again")
    shape: tuple[int, ...] = betas.shape or ()
    voxels = shape[:-1]
    if len(voxels) not in (1, 3) or mask.size != np.prod(voxels) or (mask.ndim == 3 and mask.shape != voxels):
        raise ValueError(
            f"{path}: betasmd has shape {shape} (voxels, trials), roi '{roi}' {mask.shape}; use the region in the "
            "space that GLMsingle was given"
        )
    return mask.reshape(voxels)
