"""Algonauts Project 2023: NSD's surface responses, z-scored within session and averaged over repetitions.

Source: Gifford et al. (2023), arXiv:2301.03198, and the challenge's page and tutorial.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from brainrdl.fmri.images import read_region, read_vertices
from brainrdl.fmri.layouts.selection import known_roi
from brainrdl.fmri.paths import fill
from brainrdl.fmri.spec import BrainSpec, Roi
from brainrdl.fmri.trials import Trials
from brainrdl.restricted_files import load_dict, reading

_IMAGE = re.compile(r"train-(\d{4,})_(nsd-\d{5})\.png")


def read_algonauts(spec: BrainSpec, folder: Path, subject: str, roi: str) -> Trials:
    """Mean responses to the training images, a row an image; crossnobis and reliability cannot be had of them.

    stimulus: "nsd-00013", from the image's file name, counts NSD's 73,000 images from 0. A region is an atlas such as
    "{subject}/roi_masks/{hemi}.streams_challenge_space.npy", its labels numbers, or names that mapping_streams.npy
    beside it has.
    Raises ValueError: files missing, hemispheres or images that do not fit together, unknown labels.
    """
    files = [folder / subject / f"training_split/training_fmri/{hemi}_training_fmri.npy" for hemi in ("lh", "rh")]
    maps = [read_vertices(file) for file in files]
    images = _training_images(folder / subject / "training_split/training_images")
    for file, values in zip(files, maps, strict=True):
        if len(values) != len(images):
            raise ValueError(
                f"{file}: {len(values)} rows for {len(images)} training images; expected (images, vertices) of the "
                "same subject; fetch both again"
            )
    region = read_region(_numbered(known_roi(spec, roi), folder, subject), folder, subject, files, ("lh", "rh"), roi)
    masks = np.split(region.mask, [maps[0].shape[1]])
    parts = [values[:, inside] for values, inside in zip(maps, masks, strict=True)]
    table = pd.DataFrame({"stimulus": list(images), "run": "", "session": "", "file": list(images.values())})
    notes = ("z-scored within session and averaged over repetitions by the publisher",)
    responses = np.concatenate(parts, axis=1).astype(np.float32)
    return Trials(responses, table, subject, roi, averaged=True, notes=notes)


def _training_images(folder: Path) -> dict[str, str]:
    """Stimulus ids and file names in the order of the responses: the first number in the names, counted from 1."""
    found = sorted(
        (int(match[1]), match[2], match[0]) for path in folder.glob("*") if (match := _IMAGE.fullmatch(path.name))
    )
    if [number for number, _, _ in found] != list(range(1, len(found) + 1)) or not found:
        raise ValueError(
            f"{folder}: expected train-0001_nsd-XXXXX.png and so on, without gaps, got {len(found)} images; their "
            "names tell which rows of the responses they are; fetch them again"
        )
    return {stimulus: name for _, stimulus, name in found}


def _numbered(roi: Roi, folder: Path, subject: str) -> Roi:
    """The region with the numbers of its labels in place of their names."""
    if roi.atlas is None or not any(isinstance(label, str) for label in roi.labels):
        return roi
    atlas = fill(roi.atlas, folder, subject, hemispheres=("lh",))[0]
    mapping = atlas.with_name(f"mapping_{atlas.name.removeprefix('lh.').replace('_challenge_space', '')}")
    with reading(mapping, "expected a number and a name of each label", "fetch it again"):
        numbers = {str(name): int(number) for number, name in load_dict(mapping).items()}
    unknown = [label for label in roi.labels if isinstance(label, str) and label not in numbers]
    if unknown:
        raise ValueError(f"{mapping}: no label '{unknown[0]}'; it has: {', '.join(numbers)}")
    labels = tuple(numbers[label] if isinstance(label, str) else label for label in roi.labels)
    return roi.model_copy(update={"labels": labels})
