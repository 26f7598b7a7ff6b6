"""BOLD5000, release 2.0: single-trial responses made with GLMsingle.

Source: Chang et al. (2019), Scientific Data 6:49; the release's README (BOLD5000-dataset/BOLD5000 on GitHub), which
names the versions (one is spelled TYBEB), files, sessions and 37 stimuli a run; doi:10.1184/R1/14456124.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

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
from brainrdl.restricted_files import reading

SESSIONS = {"CSI1": 15, "CSI2": 15, "CSI3": 15, "CSI4": 9}
STIMULI_PER_RUN = 37
VERSIONS = ("TYPEA-ASSUMEHRF", "TYBEB-FITHRF", "TYPEC-FITHRF-GLMDENOISE", "TYPED-FITHRF-GLMDENOISE-RR")


def read_bold5000(spec: BrainSpec, folder: Path, subject: str, roi: str) -> Trials:
    """Single-trial responses in percent signal change; voxels that are NaN or 0 throughout a session are dropped.

    stimulus: the image's file name as in CSIx_imgnames.txt. source: ImageNet, COCO or Scene; networks trained on the
    first two may have seen the images. A few images were shown more than once, most of them not.
    Masks and responses have no common affine: voxels are matched by their index, and so the notes say.
    Raises ValueError: unknown subject or session, files missing, damaged, or not in this layout.
    """
    settings = layout_settings(spec)
    if subject not in SESSIONS:
        raise ValueError(f"{spec.name}: subject '{subject}' is unknown; expected one of: {', '.join(SESSIONS)}")
    betas = settings.betas or "TYPED-FITHRF-GLMDENOISE-RR"
    if betas not in VERSIONS:
        raise ValueError(f"{spec.name}: data.betas '{betas}' is unknown; expected one of: {', '.join(VERSIONS)}")
    what = f"{spec.name}, {subject}"
    files = {k: folder / f"{subject}_GLMbetas-{betas}_ses-{k:02d}.nii.gz" for k in range(1, SESSIONS[subject] + 1)}
    present = [k for k, file in files.items() if file.is_file()]
    sessions = choose_sessions(settings.sessions, present, SESSIONS[subject], what, str(files[1]))
    # Where a session's images stand in the list follows from the lengths of all sessions before it.
    images = {k: trial_volumes(files[k]) for k in range(1, sessions[-1] + 1)}
    table = _trial_table(folder / f"{subject}_imgnames.txt", files, {k: image.shape[3] for k, image in images.items()})
    table = table[table["session"].isin([f"{k:02d}" for k in sessions])]
    table = enough_repetitions(table, settings.min_repetitions, what)
    region = region_by_itself(known_roi(spec, roi), folder, subject, spec.hemispheres, roi)
    responses = np.empty((len(table), int(region.mask.sum())), dtype=np.float32)
    unmeasured = np.zeros(responses.shape[1], dtype=bool)
    for k in sessions:
        if images[k].shape[:3] != region.mask.shape:
            raise ValueError(
                f"{files[k]}: responses of shape {images[k].shape[:3]}, roi '{roi}' of {region.mask.shape}; "
                "take the masks of the same subject, in the space of the responses"
            )
        values = read_masked(images[k], region.mask, files[k])
        unmeasured |= np.isnan(values).any(0) | (values == 0).all(0)
        rows = (table["session"] == f"{k:02d}").to_numpy()
        responses[rows] = values[table["row"].to_numpy()[rows]]
    responses, dropped = drop_unmeasured(
        responses, unmeasured, "NaN, or 0 throughout a session", f"{what}, roi '{roi}'"
    )
    notes = [dropped, _sources(table), *denoised_note(betas)]
    if not np.allclose(images[sessions[0]].affine, region.image.affine, atol=1e-3):
        notes.append("the mask's affine is another than the responses': voxels are matched by their index")
    return Trials(responses, table.drop(columns="row"), subject, roi, notes=tuple(filter(None, notes)))


def image_source(name: str) -> str:
    """ImageNet (n01440764_10026.JPEG), COCO (COCO_train2014_000000000036.jpg) or Scene, by an image's file name."""
    if re.match(r"n\d{8}_", name):
        return "ImageNet"
    return "COCO" if name.startswith("COCO_") else "Scene"


def _trial_table(path: Path, files: dict[int, Path], n_trials: dict[int, int]) -> pd.DataFrame:
    """A row a trial of the first sessions, in the order of CSIx_imgnames.txt. n_trials: by session."""
    if not path.is_file():
        raise ValueError(f"no order of trials {path}; fetch it with the responses")
    with reading(path, "expected the images' names", "fetch it again"):
        names = path.read_text("utf-8").split()
    for k, number in n_trials.items():
        if number % STIMULI_PER_RUN:
            raise ValueError(
                f"{files[k]}: {number} trials, expected a multiple of {STIMULI_PER_RUN} (a run); fetch it again"
            )
    total = sum(n_trials.values())
    if total > len(names) or (len(n_trials) == len(files) and total != len(names)):
        raise ValueError(f"{path}: {len(names)} images for {total} trials in {len(n_trials)} sessions; fetch it again")
    rows = np.concatenate([np.arange(number) for number in n_trials.values()])
    table = pd.DataFrame(
        {
            "stimulus": names[:total],
            "session": np.repeat([f"{k:02d}" for k in n_trials], list(n_trials.values())),
            "run": [f"{row // STIMULI_PER_RUN + 1:02d}" for row in rows],
            "row": rows,
        }
    )
    table["source"] = [image_source(name) for name in table["stimulus"]]
    return table


def _sources(table: pd.DataFrame) -> str:
    counts = table.drop_duplicates("stimulus")["source"].value_counts()
    told = ", ".join(f"{number} {source}" for source, number in counts.items() if source != "Scene")
    return f"{told} images: networks trained on ImageNet or COCO may have seen them" if told else ""
