"""Pictures of stimuli in figures: which there are, how many fit, and how they stand along an RDM's sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from brainrdl.analysis.figures.style import MILLIMETRE
from brainrdl.rdms import stimulus_ids

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rsatoolbox.rdm import RDMs

    from brainrdl.data.thumbnails import Thumbnails

# Inches. Below the smallest a picture is a blot; from the legible size on, one row of them is enough.
SMALLEST = 2.2 * MILLIMETRE
_LEGIBLE = 3.2 * MILLIMETRE
_LARGEST = 9 * MILLIMETRE
# In two rows, each picture is as wide as two stimuli: twice as many are legible.
_MOST_ROWS = 2
_FILLED = 0.92  # of a picture's place; the rest keeps neighbours apart


def pictures_of(rdms: RDMs, thumbnails: Thumbnails) -> list[np.ndarray]:
    """The picture of each stimulus, in the RDMs' order: (height, width, 3) uint8.

    Raises ValueError where the RDMs have no pattern descriptor `stimulus`, or stimuli have no picture.
    """
    ids = stimulus_ids(rdms)
    missing = [stimulus for stimulus in ids if stimulus not in thumbnails]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(ids)} stimuli have no picture, the first is '{missing[0]}'; give one for each, "
            "by stimulus id, or draw without thumbnails"
        )
    return [thumbnails[stimulus] for stimulus in ids]


def rows_beside(n_stimuli: int, side: float) -> int:
    """In how many rows the pictures stand along an RDM whose side is printed `side` inches long: one or two.

    Raises ValueError, saying how many fit, where they would be smaller than can be made out.
    """
    for rows in range(1, _MOST_ROWS + 1):
        if _large_enough(n_stimuli, rows, side):
            return rows
    raise _too_many_beside(n_stimuli, int(_MOST_ROWS * side / SMALLEST), side)


def side_within(n_stimuli: int, room: float, n_rdms: int = 1) -> float:
    """The side of RDMs next to each other, the first with pictures on its left, `room` inches for each; inches.

    n_stimuli: 0 for no pictures. Raises ValueError as `rows_beside`.
    """
    if not n_stimuli:
        return room
    for rows in range(1, _MOST_ROWS + 1):
        side = room / (1 + depth(n_stimuli, rows, room) / n_rdms + overhang(n_stimuli, rows))
        if _large_enough(n_stimuli, rows, side):
            return side
    # What pictures take up, in stimuli, is the same however many there are.
    taken = n_stimuli * (depth(n_stimuli, _MOST_ROWS, room) / n_rdms + overhang(n_stimuli, _MOST_ROWS))
    raise _too_many_beside(n_stimuli, int(_MOST_ROWS * room / SMALLEST - taken), room)


def _large_enough(n_stimuli: int, rows: int, side: float) -> bool:
    return rows * side / n_stimuli >= (SMALLEST if rows == _MOST_ROWS else _LEGIBLE)


def _too_many_beside(n_stimuli: int, fitting: int, room: float) -> ValueError:
    return too_many(n_stimuli, fitting, f"along an RDM of {room / MILLIMETRE:.0f} mm", "category bands (no thumbnails)")


def too_many(n_stimuli: int, fitting: int, where: str, instead: str) -> ValueError:
    """The error of more pictures than fit."""
    return ValueError(
        f"{n_stimuli} pictures of stimuli do not fit {where}: {fitting} do, {SMALLEST / MILLIMETRE:.1f} mm wide; "
        f"draw fewer stimuli (brainrdl.rdms.subset_stimuli), a larger figure (width='double'), or {instead}"
    )


def depth(n_stimuli: int, rows: int, side: float) -> float:
    """How far the pictures reach out from an RDM, as a share of its side (inches)."""
    return rows * (_size(n_stimuli, rows, side) + _gap(rows)) / n_stimuli


def overhang(n_stimuli: int, rows: int) -> float:
    """How much longer than the RDM's side a row of pictures is, as a share of the side."""
    return max(rows * _FILLED - 1, 0) / n_stimuli


def draw_along(
    ax: Axes, pictures: list[np.ndarray], rows: int, side: float, left: bool, below: bool, lower: float = 0
) -> None:
    """Pictures beside the rows and columns of the RDM in `ax`, in their order; a line leads from the outer row.

    side: of the RDM, inches. lower: how much lower the pictures below stand, inches.
    """
    n_stimuli = len(pictures)
    reach = depth(n_stimuli, rows, side)
    size, gap = _size(n_stimuli, rows, side), _gap(rows)
    # Both have the RDM's own unit, one stimulus, in both directions.
    if left:
        strip = ax.inset_axes((-reach, 0, reach, 1))
        strip.set(xlim=(-reach * n_stimuli, 0), ylim=(n_stimuli - 0.5, -0.5))
    if below:
        floor = ax.inset_axes((0, -reach - lower / side, 1, reach))
        floor.set(xlim=(-0.5, n_stimuli - 0.5), ylim=(reach * n_stimuli, 0))
    for k, picture in enumerate(pictures):
        height, width = (_FILLED * size / 2 * np.array(picture.shape[:2]) / max(picture.shape[:2])).tolist()
        out = (k % rows) * (size + gap) + gap + size / 2
        if left:
            _place(strip, picture, (-out, k), (width, height))
            if k % rows:
                strip.plot([-out + width, 0], [k, k], color="0.6", linewidth=0.3, zorder=0)
        if below:
            _place(floor, picture, (k, out), (width, height))
            if k % rows:
                floor.plot([k, k], [out - height, 0], color="0.6", linewidth=0.3, zorder=0)
    for drawn in ax.child_axes:
        drawn.set(xticks=[], yticks=[])
        drawn.axis("off")


def _place(ax: Axes, picture: np.ndarray, middle: tuple[float, float], half: tuple[float, float]) -> None:
    (x, y), (width, height) = middle, half
    # Stimuli count downwards. The last of two rows reaches half a stimulus beyond the RDM.
    box = (x - width, x + width, y + height, y - height)
    ax.imshow(picture, extent=box, aspect="auto", zorder=1, clip_on=False)


def _size(n_stimuli: int, rows: int, side: float) -> float:
    """Of a picture's place, in stimuli."""
    return min(rows, _LARGEST / (side / n_stimuli))


def _gap(rows: int) -> float:
    """Between the RDM and the pictures, and between their rows; in stimuli."""
    return 0.2 * rows
