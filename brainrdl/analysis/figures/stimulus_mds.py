"""The stimuli of one RDM in a plane, as pictures or as points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from brainrdl.analysis.figures.labels import label_points, leave_out_overlapping
from brainrdl.analysis.figures.rdm import check_single, settle
from brainrdl.analysis.figures.rdm_sides import Sides, arrange
from brainrdl.analysis.figures.style import MILLIMETRE, Width, check_width, looks, new_figure, print_style
from brainrdl.analysis.figures.text import fitted, in_a_row, shortened
from brainrdl.analysis.figures.thumbnails import SMALLEST, pictures_of, too_many
from brainrdl.analysis.scaling import multidimensional_scaling
from brainrdl.rdms import measure_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rsatoolbox.rdm import RDMs

    from brainrdl.data.thumbnails import Thumbnails

_MARKERS = ("o", "s", "^", "D")
# Of categories that a reader can tell apart by colour, as of frames; points have shapes, too.
_MOST_COLOURS = 7
# Names of more points, or longer ones, would stand where nobody knows whose they are.
_MOST_NAMES, _LETTERS = 20, 12
_POINT = 0.1  # inches, with the space around it
# Of the figure's area that pictures may cover: more, and most would hide others.
_COVERED = 0.3
_LARGEST = 10 * MILLIMETRE
_FRAME = 0.08  # of a picture's width
# Below this share of the largest dissimilarity, a negative one is rounding.
_ROUNDING = 1e-6


def plot(
    rdms: RDMs,
    thumbnails: Thumbnails | None = None,
    ax: Axes | None = None,
    metric: bool = True,
    colour_by: str | None = "category",
    width: Width = "single",
) -> Axes:
    """Stimuli as far apart as they are dissimilar, by multidimensional scaling, whose stress is in the title.

    rdms: one RDM, every pair measured. thumbnails: id -> picture, framed in its category's colour; None: points.
    metric: whether dissimilarities are kept, or (False) their order alone. colour_by: a pattern_descriptor;
    "category" that is not there: label; None: none. Up to 20 points are named by pattern_descriptor `stimulus`, as
    far as there is room. ax: where to draw; None makes a figure of `width`: "single" (85 mm) or "double" (180 mm).
    Raises ValueError for several RDMs, pairs that are NaN (not measured), negative dissimilarities where they are to
    be kept, and pictures that are missing or do not fit.
    """
    inches = check_width(width)
    distances = _distances(rdms, metric)
    categories = _categories(arrange(rdms, colour_by), _MARKERS if thumbnails is None else _MARKERS[:1])
    pictures = None if thumbnails is None else pictures_of(rdms, thumbnails)
    scaling = multidimensional_scaling(distances, metric)
    points = scaling.coordinates
    measure = measure_name(rdms.dissimilarity_measure)
    measure = f"dissimilarity ({measure})" if measure else "dissimilarity"
    title = f"{'MDS' if metric else 'Non-metric MDS'} of {len(points)} stimuli by {measure}"
    title += f", stress {scaling.stress:.2f}{categories.note}"
    with print_style():
        side = inches - 0.12
        if ax is not None:
            side = float(ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted()).width)
        size = _POINT if pictures is None else _picture_size(points, side)
        middle, frame = _frame(points, side, size)
        figure = None
        if ax is None:
            rows = -(-len(categories.names) // in_a_row(categories.names, side))
            title_height = 0.3 + 0.13 * title.count("\n")
            figure = new_figure(side * frame[1] / frame[0] + title_height + 0.16 * rows, width=inches)
            ax = figure.subplots()
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.set_xlim(middle[0] - frame[0] / 2, middle[0] + frame[0] / 2)
        ax.set_ylim(middle[1] - frame[1] / 2, middle[1] + frame[1] / 2)
        for spine in ax.spines.values():
            spine.set(visible=True, color="0.8")
        text, fontsize = fitted(title, side, 7.5)
        ax.set_title(text, loc="left", fontsize=fontsize)
        _key(ax, categories, side, pictures is not None)
        if figure is not None:
            settle(figure)
        if pictures is not None:
            _pictures(ax, points, pictures, categories, size)
        else:
            _points(ax, points, categories)
            ids = [shortened(str(stimulus), _LETTERS) for stimulus in rdms.pattern_descriptors.get("stimulus", ())]
            if 0 < len(ids) <= _MOST_NAMES:
                label_points(ax, points, ids, ["0"] * len(ids))
                leave_out_overlapping(ax)
    return ax


class _Categories(NamedTuple):
    """code: (n_stimuli,) the category of each; names, colours and markers: one a category. note: what is not shown."""

    code: np.ndarray
    names: list[str]
    colours: list[str]
    markers: list[str]
    note: str = ""


def _categories(sides: Sides, shapes: Sequence[str]) -> _Categories:
    groups = [group for group in sides.groups if group.colour is not None]
    alike = _Categories(np.zeros(sides.n_stimuli, dtype=int), [], ["0.3"], ["o"])
    if not groups:
        return alike
    if len(groups) > _MOST_COLOURS * len(shapes):
        return alike._replace(note=f"\n{len(groups)} categories, too many for colours")
    code = np.empty(sides.n_stimuli, dtype=int)
    code[sides.order] = np.repeat(np.arange(len(groups)), [group.n_stimuli for group in groups])
    colours = [look.colour for look in looks(str(k) for k in range(len(groups))).values()]
    markers = [shapes[k // _MOST_COLOURS] for k in range(len(groups))]
    return _Categories(code, [group.name for group in groups], colours, markers)


def _distances(rdms: RDMs, metric: bool) -> np.ndarray:
    """(n_stimuli, n_stimuli), none negative."""
    from scipy.spatial.distance import squareform

    check_single(rdms)
    vector = np.asarray(rdms.dissimilarities[0], dtype=float)
    missing = int(np.isnan(vector).sum())
    if missing:
        raise ValueError(
            f"scaling needs all pairs of stimuli, but {missing} of {len(vector)} are NaN (not measured); leave out "
            "stimuli (brainrdl.rdms.subset_stimuli) or average over subjects (brainrdl.rdms.average_rdms)"
        )
    lowest = float(vector.min())
    if lowest < -_ROUNDING * np.abs(vector).max():
        if metric:
            raise ValueError(
                f"{int((vector < 0).sum())} of {len(vector)} dissimilarities are negative, down to {lowest:.3g}, which "
                "no distance can be (crossnobis estimates can); scale their order alone: metric=False, --non-metric"
            )
        vector = vector - lowest
    return np.asarray(squareform(vector.clip(min=0), checks=False))


def _frame(points: np.ndarray, side: float, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Middle, and width and height around what is `size` inches wide at each point, in a figure `side` inches wide."""
    low, high = points.min(0), points.max(0)
    wide = float(high[0] - low[0]) or 1.0
    around = 1.15 * size * wide / (side - 1.15 * size)
    # A picture that is nearly flat keeps room for what stands in it.
    return (low + high) / 2, np.array([wide + around, max(float(high[1] - low[1]), wide / 2) + around])


def _picture_size(points: np.ndarray, side: float) -> float:
    """Inches: as large as the area allows, smaller where pictures would hide each other, never too small to see."""
    from scipy.spatial import KDTree

    _, frame = _frame(points, side, SMALLEST)
    area = _COVERED * side**2 * frame[1] / frame[0]
    largest = min(float(np.sqrt(area / len(points))), _LARGEST)
    if largest < SMALLEST:
        where = f"in a plane {side / MILLIMETRE:.0f} mm wide"
        raise too_many(len(points), int(area / SMALLEST**2), where, "points (no thumbnails)")
    nearest, _ = KDTree(points).query(points, k=2, p=np.inf)
    # Four of five keep at least two thirds of their width to themselves, unless all would be tiny for it.
    free = float(np.quantile(nearest[:, 1], 0.2)) * side / frame[0] * 1.5
    return float(max(min(largest, free), 0.7 * largest, SMALLEST))


def _pictures(
    ax: Axes, points: np.ndarray, pictures: Sequence[np.ndarray], categories: _Categories, size: float
) -> None:
    from rsatoolbox.vis import Icon

    framed = bool(categories.names)
    for (x, y), picture, code in zip(points, pictures, categories.code, strict=True):
        longer = max(picture.shape[:2])
        border = max(round(longer * _FRAME), 1) if framed else 0
        style: dict[str, Any] = {"color": categories.colours[code], "border_type": "pad", "border_width": border}
        Icon(image=picture, **(style if framed else {})).plot(x, y, ax=ax, size=72 * size / (longer + 2 * border))


def _points(ax: Axes, points: np.ndarray, categories: _Categories) -> None:
    for k, (colour, marker) in enumerate(zip(categories.colours, categories.markers, strict=True)):
        x, y = points[categories.code == k].T
        ax.plot(x, y, marker, color=colour, markersize=4.5, markeredgecolor="white", markeredgewidth=0.4)


def _key(ax: Axes, categories: _Categories, side: float, framed: bool) -> None:
    """The categories' names below the plane; of framed pictures the shape says nothing."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linestyle": "", "markersize": 5}
    handles = [
        Line2D([], [], color=colour, marker="s" if framed else marker, label=name, **look)
        for name, colour, marker in zip(categories.names, categories.colours, categories.markers, strict=False)
    ]
    if handles:
        columns = in_a_row(categories.names, side)
        place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 0.4}
        ax.legend(handles=handles, ncols=columns, handletextpad=0.1, columnspacing=1, **place)
