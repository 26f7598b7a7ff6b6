"""A montage of deformed digits: `python docs/draw_deformed_digits.py OUT` (.png or .pdf; needs MNIST).

A row a class: ten deformations of its first training digit. The digit itself is the data set's, and not shown.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from brainrdl.analysis.figures.style import new_figure, print_style, save_figure
from brainrdl.data import DataSettings, deformed, load_data
from brainrdl.stimuli import read_stimuli

N_DEFORMED = 10


def draw(out: Path) -> None:
    """Draw the montage and write the file."""
    train = load_data(DataSettings(spec="mnist", train=50000, validation=10000)).train
    assert train.labels is not None
    first = read_stimuli(train.subset(torch.tensor([int((train.labels == k).nonzero()[0]) for k in range(10)])))
    shown = deformed(first, 10 * N_DEFORMED).images.view(N_DEFORMED, 10, 28, 28)
    with print_style():
        figure = new_figure(3.6, width=3.5)
        for (row, column), ax in np.ndenumerate(figure.subplots(10, N_DEFORMED)):
            ax.imshow(shown[column, row], cmap="gray_r", vmin=0, vmax=1)
            ax.set_xticks([])
            ax.set_yticks([])
            for side in ax.spines.values():
                side.set_visible(False)
        save_figure(figure, out.with_suffix(""), [out.suffix.removeprefix(".")])


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
