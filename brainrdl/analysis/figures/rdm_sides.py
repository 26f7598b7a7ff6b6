"""What stands along an RDM's sides: categories in strips with their names, or the stimuli's pictures or names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from brainrdl.analysis.figures.style import looks
from brainrdl.analysis.figures.text import LINE, SMALL, in_a_row, shortened, text_width
from brainrdl.analysis.figures.thumbnails import depth, draw_along, overhang, pictures_of, rows_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs

    from brainrdl.data.thumbnails import Thumbnails

# Inches: the strip of categories and its distance.
STRIP, STRIP_GAP = 0.03, 0.012
# More categories than there are colours that everybody can tell apart are shown in alternating greys.
_MOST_COLOURS = 7
_GREYS = ("0.35", "0.75")


class Group(NamedTuple):
    """Neighbouring stimuli that are named together."""

    name: str
    n_stimuli: int
    colour: str | None


class Sides(NamedTuple):
    """What stands along an RDM's sides. order: (n_stimuli,), the RDMs' rows as drawn. groups: in that order.

    pictures: one a stimulus, in that order; they take the place of names. key: names stand in a key of colours.
    """

    order: np.ndarray
    groups: tuple[Group, ...]
    pictures: list[np.ndarray]
    key: bool = False

    @property
    def n_stimuli(self) -> int:
        return len(self.order)

    @property
    def banded(self) -> bool:
        """Whether categories are named, by names and strips of colour."""
        return bool(self.groups) and not self.pictures and self.groups[0].colour is not None

    def longest(self) -> float:
        """Inches that the names take up; 0 without names."""
        if self.pictures or self.key:
            return 0
        return max((text_width(group.name, SMALL) + 0.03 for group in self.groups), default=0)

    def overhang(self, side: float) -> float:
        """Inches by which a row of pictures is longer than an RDM of `side` inches."""
        n_stimuli = len(self.pictures)
        return side * overhang(n_stimuli, rows_beside(n_stimuli, side)) if n_stimuli else 0

    def below(self, side: float) -> float:
        """Inches that names take up below an RDM of `side` inches: a line where each fits over its stimuli."""
        return (
            LINE if self.longest() and _level(*_that_fit(self.groups, side), side / self.n_stimuli) else self.longest()
        )

    def for_side(self, side: float) -> Sides:
        """With a key, where the categories' names do not all fit along an RDM of `side` inches and have colours."""
        fitting, _ = _that_fit(self.groups, side)
        coloured = self.banded and len(self.groups) <= _MOST_COLOURS
        return self._replace(key=coloured and len(fitting) < len(self.groups))

    def reach(self, side: float) -> float:
        """Inches that pictures reach out from an RDM of `side` inches. Raises ValueError as `rows_beside`."""
        n_stimuli = len(self.pictures)
        return side * depth(n_stimuli, rows_beside(n_stimuli, side), side) if n_stimuli else 0


def arrange(rdms: RDMs, sort_by: str | None = "category", thumbnails: Thumbnails | None = None) -> Sides:
    """Stimuli sorted by a pattern descriptor, with categories' names and colours, or with the stimuli's pictures.

    Numbers are sorted by size, other values in the order in which they first come; "category" by label where there is
    one, and is replaced by label where there is none. Without either the stimuli are named themselves.
    Raises ValueError for a descriptor that is not there, and stimuli without a picture.
    """
    descriptors = rdms.pattern_descriptors
    if sort_by == "category" and "category" not in descriptors:
        sort_by = "label" if "label" in descriptors else None
    if sort_by is None:
        order, groups = np.arange(rdms.n_cond), _stimuli(rdms)
    elif sort_by in descriptors:
        order, groups = _categories(rdms, sort_by)
    else:
        known = ", ".join(name for name in descriptors if name != "index") or "none"
        raise ValueError(f"stimuli cannot be sorted by '{sort_by}': the RDMs' pattern_descriptors are: {known}")
    pictures = [] if thumbnails is None else pictures_of(rdms, thumbnails)
    return Sides(order, groups, [pictures[k] for k in order] if pictures else [])


def category_colours(names: Sequence[str]) -> list[str]:
    """A colour a category: different ones for a few, alternating greys for more than can be told apart."""
    if len(names) > _MOST_COLOURS:
        return [_GREYS[k % 2] for k in range(len(names))]
    return [look.colour for look in looks(names).values()]


def draw_sides(ax: Axes, sides: Sides, side: float, left: bool = True, below: bool = True, lower: float = 0) -> None:
    """Categories' strips and names, or pictures, on the left of the RDM in `ax` and below it.

    side: of the RDM, inches. lower: how much lower what is below stands, inches.
    """
    if sides.pictures:
        rows = rows_beside(len(sides.pictures), side)
        draw_along(ax, sides.pictures, rows, side, left, below, lower)
        return
    if sides.banded:
        _strips(ax, sides.groups, left, below)
    if sides.key:
        return
    names, places = _that_fit(sides.groups, side)
    pad = 72 * (STRIP + STRIP_GAP) * sides.banded + 1.0
    if left:
        ax.set_yticks(places, names, fontsize=SMALL)
        ax.tick_params(axis="y", length=0, pad=pad)
    if below:
        rotation = 0 if _level(names, places, side / sides.n_stimuli) else 90
        ax.set_xticks(places, names, rotation=rotation, fontsize=SMALL)
        ax.tick_params(axis="x", length=0, pad=pad + 72 * lower)


def add_key(figure: Figure, sides: Sides) -> None:
    """The categories' colours with their names, at the foot of the figure, where `sides` have a key."""
    from matplotlib.patches import Patch

    if sides.key:
        handles = [Patch(color=group.colour, label=group.name) for group in sides.groups]
        columns = in_a_row([group.name for group in sides.groups], figure.get_figwidth())
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1)


def key_height(sides: Sides, room: float) -> float:
    """Inches that the key takes up in a figure of so many inches; 0 without one."""
    names = [group.name for group in sides.groups]
    return 0.05 + 0.14 * -(-len(names) // in_a_row(names, room)) if sides.key else 0.0


def _stimuli(rdms: RDMs) -> tuple[Group, ...]:
    """Each stimulus by its name, where the RDMs have names."""
    return tuple(Group(shortened(str(name)), 1, None) for name in rdms.pattern_descriptors.get("stimulus", ()))


def _categories(rdms: RDMs, sort_by: str) -> tuple[np.ndarray, tuple[Group, ...]]:
    values = [str(value) for value in rdms.pattern_descriptors[sort_by]]
    known = sort_by == "category" and "label" in rdms.pattern_descriptors
    keys = _as_numbers(rdms.pattern_descriptors["label" if known else sort_by])
    first: dict[str, float] = {}
    for key, value in zip(keys, values, strict=True):
        first[value] = min(key, first.get(value, np.inf))
    names = sorted(first, key=first.__getitem__)
    rank = {name: k for k, name in enumerate(names)}
    code = np.array([rank[value] for value in values])
    counts = np.bincount(code, minlength=len(names)).tolist()
    colours = category_colours(names)
    groups = [Group(shortened(name), n, colour) for name, n, colour in zip(names, counts, colours, strict=True)]
    return np.argsort(code, kind="stable"), tuple(groups)


def _as_numbers(values: Sequence[Any]) -> list[float]:
    """Numbers as they are; where not all are numbers, at which place each stands."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = [np.nan]
    return [float(k) for k in range(len(values))] if np.isnan(numbers).any() else numbers


def _level(names: Sequence[str], places: Sequence[float], pitch: float) -> bool:
    """Whether names fit side by side at their places, which are in stimuli of `pitch` inches."""
    closest = np.diff(places).min(initial=np.inf) * pitch
    return bool(max((text_width(name, SMALL) for name in names), default=0) < 0.9 * closest)


def _strips(ax: Axes, groups: Sequence[Group], left: bool, below: bool) -> None:
    """A coloured strip along each of the sides; its width and distance are the same in every size of RDM."""
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    ends = np.cumsum([group.n_stimuli for group in groups]) - 0.5
    starts = ends - [group.n_stimuli for group in groups]
    corner: Any = ax.transAxes
    inches = ax.figure.dpi_scale_trans + ScaledTranslation(0, 0, corner)
    far, near = -STRIP - STRIP_GAP, -STRIP_GAP
    boxes: Any = np.array([[(far, a), (near, a), (near, b), (far, b)] for a, b in zip(starts, ends, strict=True)])
    style: dict[str, Any] = {"facecolors": [group.colour for group in groups], "linewidths": 0, "clip_on": False}
    # Makes room for a strip: the layout knows nothing of collections in such units.
    room: dict[str, Any] = {"facecolor": "none", "edgecolor": "none", "clip_on": False}
    if left:
        place = blended_transform_factory(inches, ax.transData)
        ax.add_collection(PolyCollection(boxes, transform=place, **style), autolim=False)
        ax.add_artist(Rectangle((far, -0.5), STRIP, float(ends[-1]) + 0.5, transform=place, **room))
    if below:
        place = blended_transform_factory(ax.transData, inches)
        ax.add_collection(PolyCollection(boxes[..., ::-1], transform=place, **style), autolim=False)
        ax.add_artist(Rectangle((-0.5, far), float(ends[-1]) + 0.5, STRIP, transform=place, **room))


def _that_fit(groups: Sequence[Group], side: float) -> tuple[list[str], list[float]]:
    """Names and the rows in the middle of their stimuli; of names that would touch, those of the larger groups."""
    n_stimuli = sum(group.n_stimuli for group in groups)
    ends = np.cumsum([group.n_stimuli for group in groups])
    middles = ends - np.array([group.n_stimuli for group in groups]) / 2 - 0.5
    apart = SMALL * 1.2 / 72 * n_stimuli / side  # in stimuli
    kept: list[int] = []
    for k in sorted(range(len(groups)), key=lambda k: -groups[k].n_stimuli):
        if all(abs(middles[k] - middles[other]) >= apart for other in kept):
            kept.append(k)
    # Of single stimuli a few that happen to fit would say nothing.
    kept = sorted(kept) if len(kept) == len(groups) or groups[0].colour else []
    return [groups[k].name for k in kept], [float(middles[k]) for k in kept]
