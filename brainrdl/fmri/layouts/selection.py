"""What the readers of published layouts share: which sessions, trials and voxels are read, and how volumes are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainrdl.fmri.events import read_tsv
from brainrdl.fmri.images import Region, is_surface, load_volume, read_region
from brainrdl.fmri.paths import fill
from brainrdl.fmri.spec import BrainSpec, LayoutSettings, Roi
from brainrdl.restricted_files import reading

VOLUMES_AT_ONCE = 50


def layout_settings(spec: BrainSpec) -> LayoutSettings:
    """What the spec says under `data`. Raises ValueError where its format is no layout's."""
    if not isinstance(spec.data, LayoutSettings):
        raise ValueError(f"{spec.name}: format '{spec.data.format}' is no published layout")
    return spec.data


def known_roi(spec: BrainSpec, name: str) -> Roi:
    """The region of that name. Raises ValueError, naming those there are, where the spec has none."""
    if name not in spec.rois:
        raise ValueError(f"{spec.name}: roi '{name}' is not in the spec; it has: {', '.join(spec.rois)}")
    return spec.rois[name]


def read_table(path: Path, columns: Sequence[str], what: str) -> pd.DataFrame:
    """A table of text with at least these columns. Raises ValueError as `read_tsv`, and where one is missing."""
    table = read_tsv(path, what)
    for name in columns:
        if name not in table:
            raise ValueError(f"{path}: the column '{name}' is missing; it has: {', '.join(table.columns[:20])}")
    return table


def whole_numbers(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """A column of a table of text as integers. Raises ValueError naming file, column and line of the first other."""
    texts = table[column]
    wrong = ~texts.str.fullmatch("-?[0-9]{1,15}").astype(bool)
    if wrong.any():
        line = int(wrong.to_numpy().argmax()) + 2
        raise ValueError(f"{path}: {column} in line {line} is '{texts[wrong].iloc[0]}'; expected a whole number")
    return texts.astype(int)


def choose_sessions(
    asked: Sequence[str] | None, present: Sequence[int], performed: int, what: str, missing: str
) -> list[int]:
    """Numbers of the sessions to read: those asked for, or all that are on disk, in ascending order.

    performed: how many the subject took part in. missing: where their files were expected, for the message.
    Raises ValueError where no session is on disk, or one that was asked for is not or was never performed.
    """
    if asked is None:
        if not present:
            raise ValueError(f"{what}: no session file; expected {missing}; fetch the data set, or correct folder")
        return sorted(present)
    chosen = []
    for text in asked:
        if not text.isdigit() or not 1 <= int(text) <= performed:
            raise ValueError(f"{what} has sessions 1 to {performed}, got '{text}'; correct data.sessions")
        if int(text) not in present:
            raise ValueError(f"{what}: session {int(text)} has no file; expected {missing}; fetch it")
        chosen.append(int(text))
    return sorted(set(chosen))


def enough_repetitions(table: pd.DataFrame, least: int, what: str) -> pd.DataFrame:
    """The rows whose stimulus stands in at least `least` rows. Raises ValueError where there are none."""
    kept = table[table.groupby("stimulus")["stimulus"].transform("size") >= least]
    if kept.empty:
        raise ValueError(
            f"{what}: no stimulus stands in {least} of the {len(table)} trials; lower data.min_repetitions "
            "or take more sessions"
        )
    return kept.reset_index(drop=True)


def drop_unmeasured(responses: np.ndarray, unmeasured: np.ndarray, why: str, what: str) -> tuple[np.ndarray, str]:
    """`responses` (n_trials, n_voxels) without the voxels in `unmeasured` (n_voxels,), and how many in words.

    Raises ValueError where none is left.
    """
    if unmeasured.all():
        raise ValueError(f"{what}: none of its {len(unmeasured)} voxels was measured ({why}); correct the roi")
    if not unmeasured.any():
        return responses, ""
    return responses[:, ~unmeasured], f"{int(unmeasured.sum())} of {len(unmeasured)} voxels dropped: {why}"


def denoised_note(betas: str) -> tuple[str, ...]:
    """A note where the responses are denoised: GLMdenoise and ridge regression are tuned over all runs."""
    if "denoise" not in betas.lower():
        return ()
    return (f"responses {betas} were denoised over all runs: crossnobis is unbiased given these responses",)


def region_by_itself(roi: Roi, folder: Path, subject: str, hemispheres: Sequence[str], name: str) -> Region:
    """A region where the responses tell no space of their own; of volumes in two files, both.

    Raises ValueError as `read_region`, for resampling, and for two volumes of different shapes.
    """
    if roi.resample is not None:
        raise ValueError(
            f"roi '{name}': resample cannot be had, because these responses tell no space; bring the mask to theirs"
        )
    files = fill(roi.mask or roi.atlas or "", folder, subject, hemispheres=hemispheres)
    if len(files) == 1 or is_surface(files[0]):
        return read_region(roi, folder, subject, files, hemispheres, name)
    parts = [
        read_region(roi, folder, subject, [file], [hemi], name) for file, hemi in zip(files, hemispheres, strict=True)
    ]
    masks = [part.mask for part in parts]
    if len({mask.shape for mask in masks}) > 1:
        raise ValueError(f"roi '{name}': {files[0]} and {files[1]} have shapes {masks[0].shape} and {masks[1].shape}")
    return Region(np.logical_or.reduce(masks), parts[0].image)


def trial_volumes(path: Path) -> Any:
    """A nibabel image of (x, y, z, n_trials), opened so that a packed file is unpacked once, from front to back.

    Raises ValueError as `load_volume`, and for another number of dimensions.
    """
    import nibabel

    load_volume(path)
    image: Any = nibabel.load(path, keep_file_open=True)  # which was possible a moment ago
    if len(image.shape) != 4:
        raise ValueError(f"{path}: expected (x, y, z, trials), got shape {image.shape}; fetch the file of responses")
    return image


def read_masked(image: Any, mask: np.ndarray, path: Path) -> np.ndarray:
    """(n_trials, n_voxels) float32 of an image (x, y, z, n_trials); some volumes at a time are in memory.

    Raises ValueError where the file is cut short or damaged. path: for the message.
    """
    values = np.empty((image.shape[3], int(mask.sum())), dtype=np.float32)
    with reading(path, "cannot be read", "fetch it again"):
        for start in range(0, len(values), VOLUMES_AT_ONCE):
            block = np.asarray(image.dataobj[..., start : start + VOLUMES_AT_ONCE])
            values[start : start + VOLUMES_AT_ONCE] = block[mask].T
    return values
