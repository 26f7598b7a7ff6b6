"""What a teacher's layers say of the training images, computed once for all students of a run."""

from __future__ import annotations

import shutil
from math import ceil, prod
from pathlib import Path

from brainrdl.sources.cache import PatternCache
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli, StoredStimuli, in_batches

# More than this, in bytes, is computed again at every step instead.
_LARGEST = 4 << 30
_BATCH = 500


def keep_patterns(teacher: NetworkTeacher, images: Stimuli | StoredStimuli, folder: Path) -> bool:
    """Write the teacher's patterns of all images to `folder`, in place of what is there; False where too many.

    Any number of processes may read them at the same time, with `kept_patterns`. They may take half of the free disk: a
    mapped file that finds no room ends the process.
    """
    remove_patterns(folder)
    first = next(iter(in_batches(images, 2)))
    n_bytes = sum(4 * prod(p.shape[1:]) * len(images.ids) for p in teacher.patterns(first).values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    if n_bytes > min(_LARGEST, shutil.disk_usage(folder.parent).free // 2):
        return False
    cache = PatternCache(folder)
    # Of about the same size: a single image is multiplied in another way than several, and rounds otherwise.
    for batch in in_batches(images, ceil(len(images.ids) / ceil(len(images.ids) / _BATCH))):
        cache.fetch(batch, teacher.patterns)
    return True


def kept_patterns(folder: Path) -> PatternCache | None:
    """What `keep_patterns` wrote; None where it did not."""
    return PatternCache(folder, read_only=True) if folder.exists() else None


def remove_patterns(folder: Path) -> None:
    """Delete what `keep_patterns` wrote."""
    shutil.rmtree(folder, ignore_errors=True)
