"""The Natural Scenes Dataset (NSD) as its data manual describes it.

Source: Allen et al. (2022), Nature Neuroscience 25, 116-126, and the NSD Data Manual, pages Functional data (NSD),
Behavioral data, Experiments, ROIs and Technical notes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from brainrdl.fmri.images import Region, read_region, read_vertices
from brainrdl.fmri.layouts.selection import (
    choose_sessions,
    denoised_note,
    drop_unmeasured,
    enough_repetitions,
    known_roi,
    layout_settings,
    read_masked,
    region_by_itself,
    trial_volumes,
)
from brainrdl.fmri.spec import BrainSpec
from brainrdl.fmri.trials import Trials
from brainrdl.rdms.hdf5 import check_stored, open_hdf5
from brainrdl.rdms.matlab import mat_variables, real_array
from brainrdl.restricted_files import reading

SESSIONS = {f"subj{k:02d}": n for k, n in enumerate((40, 40, 32, 30, 40, 32, 40, 30), start=1)}
TRIALS_PER_SESSION = 750  # in 12 runs of 63 and 62 by turns
IMAGES = 73_000  # 73KID counts them from 1
SHARED_IMAGES = 1_000  # the first of every subject's 10KID
IMAGES_SHOWN = 70_566  # of the 73,000, to anyone in the sessions above
SHARED_SHOWN_3_TIMES = 515  # of the 1,000, to every subject
SCALE = 300  # int16 responses are percent signal change times this

_DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"


def read_nsd(spec: BrainSpec, folder: Path, subject: str, roi: str) -> Trials:
    """Single-trial responses in percent signal change; voxels outside the brain mask (0) are dropped.

    stimulus: "nsd-00013", image 13 of the publisher's nsd_stimuli.hdf5 counted from 0, is written as in Algonauts 2023;
    the table's 73KID and 10KID count from 1. shared: shown to all subjects. Of a session only the region is kept.
    Raises ValueError: unknown subject or session, files missing, damaged or not in this layout.
    """
    settings = layout_settings(spec)
    if subject not in SESSIONS:
        raise ValueError(f"{spec.name}: subject '{subject}' is unknown; expected one of: {', '.join(SESSIONS)}")
    betas = settings.betas or "betas_fithrf_GLMdenoise_RR"
    where = folder / "nsddata_betas/ppdata" / subject / settings.space / betas
    what = f"{spec.name}, {subject}"
    found = {k: files for k in range(1, SESSIONS[subject] + 1) if (files := _session_files(where, settings.space, k))}
    expected = where / (
        "lh.betas_session01.mgh" if settings.space == "fsaverage" else "betas_session01.hdf5 or .nii.gz"
    )
    sessions = choose_sessions(settings.sessions, list(found), SESSIONS[subject], what, str(expected))
    table = _trial_table(folder, subject)
    table = table[table["session"].isin([f"{k:02d}" for k in sessions])]
    table = table[table["shared"]] if settings.shared_only else table
    table = enough_repetitions(table, settings.min_repetitions, what)
    region = _region(spec, folder, subject, roi, found[sessions[0]])
    responses = np.empty((len(table), int(region.mask.sum())), dtype=np.float32)
    unmeasured = np.zeros(responses.shape[1], dtype=bool)
    for k in sessions:
        values = _read_session(found[k], region, roi)
        unmeasured |= ((values == 0) | np.isnan(values)).all(0)
        rows = (table["session"] == f"{k:02d}").to_numpy()
        responses[rows] = values[table["row"].to_numpy()[rows]]
    why = "0 in all trials of a session (outside the brain mask)"
    responses, dropped = drop_unmeasured(responses, unmeasured, why, f"{what}, roi '{roi}'")
    few = len(sessions) < SESSIONS[subject]
    notes = (dropped, f"{len(sessions)} of the subject's {SESSIONS[subject]} sessions" if few else "", *region.notes)
    return Trials(
        responses,
        table.drop(columns="row"),
        subject,
        roi,
        notes=(*filter(None, notes), *denoised_note(betas)),
    )


class Coverage(NamedTuple):
    """images_shown: to anyone; IMAGES_SHOWN in the published design. shared_3_times: SHARED_SHOWN_3_TIMES there."""

    images_shown: int
    shared_3_times: int


def coverage(masterordering: np.ndarray, subjectim: np.ndarray) -> Coverage:
    """What a design showed in the sessions that were measured.

    masterordering: (n_trials,) 10KID of each trial, the same for all subjects; subjectim: (n_subjects, 10000) 73KID of
    each 10KID; both count from 1, as in nsd_expdesign.mat.
    """
    counts = np.zeros((len(SESSIONS), IMAGES + 1), dtype=np.int64)
    for row, n_sessions in enumerate(SESSIONS.values()):
        shown = masterordering.ravel()[: n_sessions * TRIALS_PER_SESSION]
        np.add.at(counts[row], subjectim[row, shown - 1], 1)
    return Coverage(int((counts > 0).any(0).sum()), int((counts >= 3).all(0).sum()))


def _session_files(where: Path, space: str, session: int) -> list[Path]:
    """The files of a session: one volume, HDF5 where there is one, or a surface file a hemisphere; none: []."""
    if space == "fsaverage":
        files = [where / f"{hemi}.betas_session{session:02d}.mgh" for hemi in ("lh", "rh")]
        return files if all(file.is_file() for file in files) else []
    volumes = [where / f"betas_session{session:02d}{ending}" for ending in (".hdf5", ".nii.gz")]
    return [file for file in volumes if file.is_file()][:1]


def _region(spec: BrainSpec, folder: Path, subject: str, name: str, like: list[Path]) -> Region:
    roi = known_roi(spec, name)
    if roi.mask is not None:
        raise ValueError(
            f"{spec.name}: roi '{name}' is given as a mask, but NSD's files of regions have -1 outside the cortex; "
            "give it as an atlas with labels"
        )
    if like[0].suffix == ".mgh":
        return read_region(roi, folder, subject, like, ("lh", "rh"), name)
    return region_by_itself(roi, folder, subject, ("lh", "rh"), name)  # HDF5 tells no space


def _trial_table(folder: Path, subject: str) -> pd.DataFrame:
    """A row a trial of all sessions; row: in the session's file, from 0."""
    behaviour = folder / "nsddata/ppdata" / subject / "behav/responses.tsv"
    design = folder / _DESIGN
    if behaviour.is_file():
        table, source = _from_behaviour(behaviour), behaviour
    elif design.is_file():
        table, source = _from_design(design, subject), design
    else:
        raise ValueError(f"no order of trials: expected {behaviour} or {design}; fetch one of them")
    if not table["73KID"].between(1, IMAGES).all() or not table["10KID"].between(1, 10_000).all():
        raise ValueError(
            f"{source}: expected 73KID of 1 to {IMAGES} and 10KID of 1 to 10000, counted from 1, got "
            f"{table['73KID'].min()} to {table['73KID'].max()} and {table['10KID'].min()} to {table['10KID'].max()}"
        )
    per_session = table.groupby("session").size()
    if (per_session != TRIALS_PER_SESSION).any():
        first = per_session[per_session != TRIALS_PER_SESSION].index[0]
        raise ValueError(
            f"{source}: session {first} has {per_session[first]} trials, expected {TRIALS_PER_SESSION}; fetch it again"
        )
    table["row"] = table.groupby("session").cumcount()
    table["stimulus"] = [f"nsd-{number - 1:05d}" for number in table["73KID"]]
    table["shared"] = table["10KID"] <= SHARED_IMAGES
    return table


def _from_behaviour(path: Path) -> pd.DataFrame:
    columns = ["SESSION", "RUN", "73KID", "10KID"]
    with reading(path, f"expected a table of whole numbers, with the columns {', '.join(columns)}", "fetch it again"):
        table = pd.read_csv(path, sep="\t", usecols=columns, dtype=int)
    if table.empty:
        raise ValueError(f"{path}: there is no trial in it; fetch it again")
    if (table["SESSION"].diff() < 0).any():
        raise ValueError(f"{path}: expected the trials in the order of the sessions; fetch it again")
    for name in "SESSION", "RUN":
        table[name] = [f"{number:02d}" for number in table[name]]
    return table.rename(columns={"SESSION": "session", "RUN": "run"})


def _from_design(path: Path, subject: str) -> pd.DataFrame:
    names = ("masterordering", "subjectim")
    design = mat_variables(path, names)
    for name in names:
        if name not in design:
            raise ValueError(f"{path}: expected masterordering and subjectim ('{name}' is missing); fetch it again")
    order, images = (_whole(real_array(design[name], path, name), path, name) for name in names)
    order = order.ravel()
    n_sessions = SESSIONS[subject]
    order = order[: n_sessions * TRIALS_PER_SESSION]
    lowest = order.min(initial=1)
    if (
        len(order) < n_sessions * TRIALS_PER_SESSION
        or len(images) != len(SESSIONS)
        or lowest < 1
        or images.ndim != 2
        or order.max() > images.shape[1]
    ):
        raise ValueError(
            f"{path}: expected masterordering of at least {n_sessions * TRIALS_PER_SESSION} trials, counted from 1, "
            f"and subjectim of 8 rows, got {len(order)} (from {lowest}) and {images.shape}; fetch it again"
        )
    run_lengths = [63, 62] * 6
    table = pd.DataFrame(
        {
            "session": np.repeat([f"{k:02d}" for k in range(1, n_sessions + 1)], TRIALS_PER_SESSION),
            "run": np.tile(np.repeat([f"{k:02d}" for k in range(1, 13)], run_lengths), n_sessions),
            "10KID": order,
        }
    )
    table["73KID"] = images[list(SESSIONS).index(subject), order - 1]
    return table


def _whole(values: np.ndarray, path: Path, name: str) -> np.ndarray:
    if not (np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**31)).all():
        raise ValueError(f"{path}: '{name}' is not of whole numbers; fetch it again")
    return values.astype(int)


def _read_session(files: list[Path], region: Region, roi: str) -> np.ndarray:
    """(750, n_voxels) float32, percent signal change."""
    if files[0].suffix == ".hdf5":
        return _read_hdf5(files[0], region.mask, roi)
    if files[0].suffix == ".mgh":
        return _read_surface(files, region.mask, roi)
    image = trial_volumes(files[0])
    _check_shape(files[0], image.shape, (*region.mask.shape, TRIALS_PER_SESSION), roi)
    _check_type(files[0], image.get_data_dtype(), np.dtype(np.int16))
    if (image.dataobj.slope, image.dataobj.inter) != (1, 0):
        raise ValueError(
            f"{files[0]}: expected integers without a scale in the header, got slope {image.dataobj.slope} and "
            f"intercept {image.dataobj.inter}; fetch the published file"
        )
    return read_masked(image, region.mask, files[0]) / np.float32(SCALE)


def _read_hdf5(path: Path, mask: np.ndarray, roi: str) -> np.ndarray:
    """`/betas` was written by MATLAB as (x, y, z, trials), so that here its axes are (trials, z, y, x).

    Its chunks hold one voxel each: voxels are read one by one, never the whole session.
    """
    import h5py

    with open_hdf5(path, "cannot be read", "fetch it again") as file:
        betas = file.get("betas")
        if not isinstance(betas, h5py.Dataset):
            raise ValueError(f"{path}: expected the data set 'betas', got: {', '.join(file)}; fetch it again")
        _check_shape(path, (betas.shape or ())[::-1], (*mask.shape, TRIALS_PER_SESSION), roi)
        _check_type(path, betas.dtype, np.dtype(np.int16))
        check_stored(betas, path)
        columns = [betas[:, z, y, x] for x, y, z in zip(*np.nonzero(mask), strict=True)]
    return np.stack(columns, axis=1).astype(np.float32) / np.float32(SCALE)


def _read_surface(files: list[Path], mask: np.ndarray, roi: str) -> np.ndarray:
    """fsaverage responses are float32 in percent signal change already: never divided."""
    maps = [read_vertices(file) for file in files]
    n_vertices = sum(values.shape[1] for values in maps)
    _check_shape(files[0], (n_vertices, len(maps[0])), (len(mask), TRIALS_PER_SESSION), roi)
    masks = np.split(mask, np.cumsum([values.shape[1] for values in maps])[:-1])
    for file, values in zip(files, maps, strict=True):
        _check_type(file, values.dtype, np.dtype(np.float32))
    parts = [values[:, inside] for values, inside in zip(maps, masks, strict=True)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _check_shape(path: Path, got: tuple[int, ...], expected: tuple[int, ...], roi: str) -> None:
    if tuple(got) != expected:
        raise ValueError(
            f"{path}: expected {expected} (the space of roi '{roi}', {TRIALS_PER_SESSION} trials), got {tuple(got)}; "
            "take regions of the same subject and space, or fetch the file again"
        )


def _check_type(path: Path, got: np.dtype, expected: np.dtype) -> None:
    got = got.newbyteorder("=")
    if got != expected:
        raise ValueError(
            f"{path}: expected {expected} as published, got {got}; its unit cannot be known: fetch the published file"
        )
