"""The 92 objects' images and categories out of the MATLAB file in which they were published."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from brainrdl.runs import write_bytes, write_text

_COLUMNS = ("category", "human", "face", "animal", "natural")


def unpack_stimuli(path: str | Path, folder: str | Path) -> None:
    """Write stimuli.tsv (stimulus, file and what is known of each) and stimuli/stim01.png, … from a .mat file.

    Those that are there are left as they are.
    path: its struct array `stimuli_92objs` has the fields category, human, face, animal, natural and image,
    (height, width, 3) uint8 (Kriegeskorte et al. 2008, rsatoolbox's demos). Raises ValueError where it is something
    else.
    """
    from PIL import Image
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        stimuli = loadmat(path, variable_names=["stimuli_92objs"], squeeze_me=True)["stimuli_92objs"].ravel()
        images = [np.asarray(stimulus["image"], dtype=np.uint8) for stimulus in stimuli]
        known = pd.DataFrame({name: [stimulus[name] for stimulus in stimuli] for name in _COLUMNS})
    except (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError, MatReadError) as error:
        raise ValueError(f"{path}: expected a MATLAB file with stimuli_92objs ({error}); fetch it again") from None
    ids = [f"stim{number:02d}" for number in range(1, len(images) + 1)]
    table = pd.DataFrame({"stimulus": ids, "file": [f"stimuli/{stimulus}.png" for stimulus in ids]}).join(known)
    for file, image in zip(table["file"], images, strict=True):
        if not (target := Path(folder) / file).is_file():
            written = BytesIO()
            Image.fromarray(image).save(written, format="PNG")
            write_bytes(target, written.getvalue())
    if not (target := Path(folder) / "stimuli.tsv").is_file():
        write_text(target, table.to_csv(sep="\t", index=False, lineterminator="\n"))
