"""Random changes of training images, made once for all: student and teacher see the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from brainrdl.stimuli import without_waiting


def horizontal_flips(images: Tensor, generator: np.random.Generator) -> Tensor:
    """Each image, with probability one half, mirrored left to right.

    images: (n_stimuli, channels, height, width); returns the same shape, the input is left as it is.
    """
    flipped = without_waiting(torch.from_numpy(generator.random(len(images)) < 0.5), images.device)
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)
