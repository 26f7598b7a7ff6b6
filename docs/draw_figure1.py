"""Figure 1: RDMs of the output layer, MNIST and CIFAR-10 side by side: `python docs/draw_figure1.py MNIST CIFAR OUT`.

MNIST, CIFAR: files of RDMs, of which those of the layer "softmax" are drawn; OUT: a name that ends with .png or .pdf.
"""

from __future__ import annotations

import sys
from pathlib import Path

from brainrdl.analysis.figures import rdm
from brainrdl.analysis.figures.style import new_figure, print_style, save_figure
from brainrdl.rdms import load_rdms, select_rdms


def draw(mnist: Path, cifar: Path, out: Path) -> None:
    """Draw both and write the file."""
    with print_style():
        figure = new_figure(4.1, width=7.08)
        for ax, file, title in zip(figure.subplots(1, 2), (mnist, cifar), ("MNIST", "CIFAR-10"), strict=True):
            rdm.plot(select_rdms(load_rdms(file), layer="softmax"), ax, scale="raw")
            ax.set_title(title)
        rdm.settle(figure)
        save_figure(figure, out.with_suffix(""), [out.suffix.removeprefix(".")])


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:]))
