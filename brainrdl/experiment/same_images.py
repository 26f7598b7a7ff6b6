"""One image under several ids: what was learned under one may be held out under another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from brainrdl.data import ImageFiles
from brainrdl.run_folder import file_checksum


def same_images(images: ImageFiles, groups: Mapping[str, str] | None = None) -> list[str]:
    """A note where stimuli that may come into different folds are the same file; else none.

    groups: id -> group, which folds never divide.
    """
    apart = [
        (images.ids[one], images.ids[other])
        for one, other in same_files(images.files)
        if groups is None or groups[images.ids[one]] != groups[images.ids[other]]
    ]
    if not apart:
        return []
    return [
        f"stimuli: {len(apart)} are the same image file as another one (such as '{apart[0][0]}' and '{apart[0][1]}'), "
        "so what a network learned under one id may be held out under the other; keep one of each, or put them in one "
        "group (folds.group)"
    ]


def same_files(files: Sequence[Path]) -> list[tuple[int, int]]:
    """(position of the first, of a later one) of files with the same content; only those of one size are read."""
    by_size: dict[int, list[int]] = {}
    for position, file in enumerate(files):
        by_size.setdefault(file.stat().st_size, []).append(position)
    first: dict[str | None, int] = {}
    found = []
    for position in (one for alike in by_size.values() if len(alike) > 1 for one in alike):
        checksum = file_checksum(str(files[position]))
        if checksum in first:
            found.append((first[checksum], position))
        else:
            first[checksum] = position
    return found


def image_digests(images: np.ndarray) -> list[bytes]:
    """A digest of each of (n_images, ...) images: two that are alike are so to the pixel."""
    return [hashlib.blake2b(image, digest_size=16).digest() for image in np.ascontiguousarray(images)]


def shared_images(splits: Mapping[str, Mapping[bytes, str]], sides: Sequence[tuple[str, str]]) -> list[str]:
    """A note for each two sides of a split that have images in common.

    splits: name -> digest -> id. sides: which are to be apart, the one that is measured on first.
    """
    told = []
    for side, other in sides:
        both = [(name, splits[other][digest]) for digest, name in splits[side].items() if digest in splits[other]]
        if both:
            name, same = min(both)
            told.append(
                f"data: {len(both)} {side} images are {other} images too, to the pixel, under another id (such as "
                f"'{name}' and '{same}'), so errors on them are not errors on new images; keep one of each"
            )
    return told
