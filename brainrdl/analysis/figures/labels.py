"""Labels beside points, where they cover least of what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RADIUS = 3.0
# Places of a label around a point of that radius, in points, in order of preference.
_OFFSETS = [
    (far * x, far * y)
    for far in (1, 1.7, 2.4)
    for x, y in ((0, 7), (0, -7), (12, 0), (-12, 0), (9, 6), (-9, 6), (9, -6), (-9, -6))
]


def label_points(
    ax: Axes,
    points: np.ndarray,
    labels: Sequence[str],
    colours: Sequence[str],
    lines: Sequence[np.ndarray] = (),
    others: np.ndarray | None = None,
    radius: float = _RADIUS,
) -> None:
    """Write each label beside its point, at the nearest place that covers no point, line or label, or least of them.

    Called last, when all stands that makes room for itself (titles, legends), and the figure is laid out: where things
    come to lie is known only after its `draw_without_rendering()`.
    points: (n_points, 2) in the axes' units. labels, colours: one a point. lines: (n_corners, 2) each, what is joined.
    others: (n_others, 2) points without labels. radius: half the size of a point, in points of print.
    """
    if not len(points):
        return
    point_size = ax.figure.canvas.figure.dpi / 72
    marked = ax.transData.transform(points if others is None else np.concatenate([points, others]))
    # Squares (x0, y0, x1, y1) in pixels: of the points, along the lines, then of each label written.
    taken = [np.concatenate([place - radius * point_size, place + radius * point_size]) for place in marked]
    for corners in lines:
        places = ax.transData.transform(corners)
        for begin, end in pairwise(places):
            between = np.linspace(begin, end, 50)
            taken += list(np.concatenate([between - 0.6 * point_size, between + 0.6 * point_size], axis=1))
    inside = np.array(ax.bbox.extents)
    for point, text, colour in zip(points, labels, colours, strict=True):
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5, "color": colour, "zorder": 5}
        label = ax.annotate(text, (point[0], point[1]), xytext=(0, 0), textcoords="offset points", **style)
        # A label finds its place among what is laid out, and moves nothing of it.
        label.set_in_layout(False)
        box = label.get_window_extent().extents
        # A long label is further to the side.
        aside = max(0.0, (box[2] - box[0]) / 2 / point_size - 6)
        offsets = [
            (x + np.sign(x) * (aside + radius - _RADIUS), y + np.sign(y) * (radius - _RADIUS)) for x, y in _OFFSETS
        ]
        boxes = {offset: box + point_size * np.array([*offset, *offset]) for offset in offsets}
        label.xyann = min(boxes, key=lambda offset: _covered(boxes[offset], np.array(taken), inside))
        taken.append(boxes[label.xyann])


def leave_out_overlapping(ax: Axes) -> None:
    """Take away the labels of `ax` that lie on an earlier one, where nobody could read either."""
    kept: list[Any] = []
    for text in list(ax.texts):
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in kept):
            text.remove()
        else:
            kept.append(box)


def _covered(box: np.ndarray, others: np.ndarray, inside: np.ndarray) -> float:
    """The area of `box` (x0, y0, x1, y1) that lies on the others (n_boxes, 4), or not in `inside`."""
    rivals = np.vstack([others, inside])
    shared = np.minimum(box[2:], rivals[:, 2:]) - np.maximum(box[:2], rivals[:, :2])
    areas = shared.clip(min=0).prod(axis=1)
    return float(areas[:-1].sum() + (box[2:] - box[:2]).prod() - areas[-1])
