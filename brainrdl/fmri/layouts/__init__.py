"""Public fMRI data sets in their publishers' layouts, and one reader for each.

Facts of each layout, with their sources, stand in the reader's file; tried on small files of the layout only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brainrdl.fmri.layouts.algonauts import read_algonauts
from brainrdl.fmri.layouts.bold5000 import read_bold5000
from brainrdl.fmri.layouts.glmsingle import read_glmsingle
from brainrdl.fmri.layouts.nsd import read_nsd
from brainrdl.fmri.layouts.selection import layout_settings
from brainrdl.fmri.layouts.things import read_things
from brainrdl.fmri.spec import BrainSpec
from brainrdl.fmri.trials import Trials

READERS: dict[str, Callable[[BrainSpec, Path, str, str], Trials]] = {
    "nsd": read_nsd,
    "things_fmri": read_things,
    "bold5000": read_bold5000,
    "algonauts2023": read_algonauts,
    "glmsingle": read_glmsingle,
}


def read_layout(spec: BrainSpec, folder: Path, subject: str, roi: str) -> Trials:
    """Responses of one subject in one of the spec's regions. Raises ValueError: file, expected, got, remedy."""
    return READERS[layout_settings(spec).format](spec, folder, subject, roi)
