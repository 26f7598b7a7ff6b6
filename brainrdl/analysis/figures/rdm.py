"""One RDM, its stimuli's categories or pictures along its sides; and what every figure of RDMs is drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from brainrdl.analysis.figures.style import Width, check_width, looks, new_figure, print_style
from brainrdl.analysis.figures.text import fitted, in_a_row, shortened, text_width
from brainrdl.analysis.figures.thumbnails import depth, draw_along, overhang, pictures_of, rows_beside, side_within
from brainrdl.rdms import measure_name
from brainrdl.rdms.checks import check_finite
from brainrdl.rdms.selection import group_rdms, rdm_descriptor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs

    from brainrdl.data.thumbnails import Thumbnails

SCALES = ("percentile", "raw")
# Points: titles; names of categories and ranges.
TITLE, SMALL = 8.0, 5.5
# Inches: a line of small text; the strip of categories and its distance.
LINE = 0.115
STRIP, STRIP_GAP = 0.03, 0.012
# More categories than there are colours that everybody can tell apart are shown in alternating greys.
_MOST_COLOURS = 7
_GREYS = ("0.35", "0.75")
# Below this share of the largest dissimilarity, a negative one is rounding.
_ROUNDING = 1e-6


def plot(
    rdms: RDMs,
    ax: Axes | None = None,
    scale: str = "percentile",
    sort_by: str | None = "category",
    thumbnails: Thumbnails | None = None,
    width: Width = "single",
) -> Axes:
    """One RDM with its colour bar; along its sides the stimuli's categories, their pictures, or their names.

    rdms: one RDM. Its pattern_descriptor `sort_by` sorts and names categories ("category" that is not there: label);
    None: stimuli as they come. Pairs that are NaN (not measured) are hatched.
    scale: "percentile" (ranks) or "raw" (dissimilarities as they are, without the diagonal's zeros; where some are
    negative, as crossnobis can be, in two colours on both sides of 0).
    thumbnails: id -> picture, instead of categories' names. ax: where to draw; None makes a figure of `width`.
    width: "single" (85 mm) or "double" (180 mm).
    Raises ValueError for several RDMs or an undefined one, unknown scales and descriptors, and pictures that are
    missing or do not fit.
    """
    inches = check_width(width)
    check_single(rdms)
    shades = shade(rdms, scale)
    sides = arrange(rdms, sort_by, thumbnails)
    with print_style():
        figure = None
        if ax is None:
            sides = sides.for_side(inches - sides.longest() - 0.2)
            room = inches - sides.longest() - STRIP - 0.16
            side = side_within(len(sides.pictures), room)
            below = sides.reach(side) + sides.overhang(side) + sides.below(side) + STRIP + bar_height(shades, inches)
            below += key_height(sides, inches)
            figure = new_figure(side + below + 0.12, width=inches)
            ax = figure.subplots()
        else:
            box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
            side = float(min(box.width, box.height))
        draw_rdm(ax, shades, 0, sides, side)
        draw_sides(ax, sides, side)
        add_bar(ax.figure, [ax], shades)
        if figure is not None:
            add_key(figure, sides)
            settle(figure)
    return ax


class Shades(NamedTuple):
    """What RDMs' colours are.

    values: (n_rdms, n_pairs) as drawn, NaN = not measured. limits: per RDM, of its colours. colours: the colour map's
    name. label: what the bar says. own: each RDM has limits of its own, which `ranges` names in words.
    """

    values: np.ndarray
    limits: tuple[tuple[float, float], ...]
    colours: str
    label: str
    own: bool
    ranges: tuple[str, ...]


def shade(rdms: RDMs, scale: str = "percentile", shared: bool = False) -> Shades:
    """Colours of the RDMs: ranked ("percentile") or as they are ("raw"), each by itself or (shared) over all of them.

    Raises ValueError for an unknown scale and for infinite dissimilarities.
    """
    if scale not in SCALES:
        raise ValueError(f"unknown scale '{scale}' of RDMs; expected one of {', '.join(SCALES)}")
    vectors = rdms.dissimilarities
    check_finite(vectors, [str(k) for k in range(rdms.n_cond)], "RDMs to draw")
    measure = measure_name(rdms.dissimilarity_measure)
    label = f"Dissimilarity ({measure})" if measure else "Dissimilarity"
    several = rdms.n_rdm > 1
    if scale == "percentile":
        ends = "(0 = smallest, 100 = largest)"
        if several:
            label += ", ranked over all RDMs together" if shared else ", ranked within each RDM"
            ends = "(0 = smallest of all, 100 = largest)" if shared else "(0 = its smallest, 100 = its largest)"
        else:
            label += ", ranked"
        limits = ((0.0, 100.0),) * rdms.n_rdm
        return Shades(_percentiles(vectors, shared), limits, "viridis", f"{label}\n{ends}", False, ("",) * rdms.n_rdm)
    negative = bool(np.nanmin(vectors, initial=0) < -_ROUNDING * np.nanmax(np.abs(vectors), initial=0))
    parts = [vectors] * rdms.n_rdm if shared else list(vectors)
    limits = tuple(_limits(part, measure == "crossnobis", negative) for part in parts)
    if several:
        label += ", all RDMs on one scale" if shared else ", each RDM on the scale given below it"
    if negative:
        label += "\n(white = 0, blue = below it)"
    ranges = tuple(_range(vector) for vector in vectors)
    return Shades(vectors, limits, "RdBu_r" if negative else "viridis", label, several and not shared, ranges)


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


def check_single(rdms: RDMs) -> None:
    """Raise ValueError for anything but one RDM of which something was measured, saying how to choose one."""
    if rdms.n_rdm == 1:
        return check_drawable(rdms)
    kept, _ = group_rdms(rdms, ())
    differ = [name for name in kept if len(set(rdm_descriptor(rdms, name))) > 1]
    how = ", ".join(f"{name}='{rdms.rdm_descriptors[name][0]}'" for name in differ)
    choose = f"brainrdl.rdms.select_rdms(rdms, {how})" if differ else "rdms[0]"
    raise ValueError(
        f"expected one RDM, got {rdms.n_rdm}; choose one, e.g. {choose}, average them, or draw all with rdm_grid.plot"
    )


def check_drawable(rdms: RDMs) -> None:
    """Raise ValueError naming the first RDM of which nothing was measured."""
    for k, vector in enumerate(rdms.dissimilarities):
        if np.isnan(vector).all():
            title = titles(rdms)[k]
            raise ValueError(
                f"RDM {k}{f' ({title})' if title else ''} cannot be drawn: it is NaN (not measured) throughout; "
                "leave it out"
            )


def titles(rdms: RDMs) -> list[str]:
    """What tells the RDMs apart, from their descriptors; "" for one alone, a number where no descriptor does."""
    kept, groups = group_rdms(rdms, ())
    varying = [name for name in kept if len(set(rdm_descriptor(rdms, name))) > 1]
    names = [", ".join(str(rdms.rdm_descriptors[name][k]) for name in varying) for k in range(rdms.n_rdm)]
    if len(groups) == rdms.n_rdm:
        return names
    return [f"{name}, RDM {k}".removeprefix(", ") for k, name in enumerate(names)]


def draw_rdm(
    ax: Axes, shades: Shades, k: int, sides: Sides, side: float, title: str = "", fontsize: float = TITLE
) -> None:
    """RDM `k` into `ax`, whose side will be `side` inches long; hatched where nothing was measured.

    fontsize: of the title, which is shortened where it is still longer than the side.
    """
    import matplotlib
    from matplotlib.patches import Rectangle
    from scipy.spatial.distance import squareform

    matrix = squareform(shades.values[k], checks=False)[np.ix_(sides.order, sides.order)]
    colours = matplotlib.colormaps[shades.colours].with_extremes(bad=(0, 0, 0, 0))
    low, high = shades.limits[k]
    # Larger than what is printed, it is averaged: leaving out rows would show some stimuli and not others.
    finer = len(matrix) > side * 300
    ax.imshow(matrix, cmap=colours, vmin=low, vmax=high, interpolation="antialiased" if finer else "nearest")
    if np.isnan(shades.values[k]).any():
        # One piece behind the image, which is transparent there.
        ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, zorder=-1, **_hatched()))
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        text, size = fitted(title, side, fontsize)
        ax.set_title(text, pad=3, fontsize=size)
    if shades.own:
        style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
        below = -72 * (STRIP + STRIP_GAP) * sides.banded - 2.5
        text = shades.ranges[k].replace(" … ", " …\n" if range_height(shades, side) > LINE else " … ")
        ax.annotate(text, (0.5, 0), (0, below), va="top", fontsize=SMALL, linespacing=1, **style)


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


def add_bar(figure: Any, axes: Sequence[Axes], shades: Shades) -> Colorbar:
    """The colour bar below `axes`, with what the hatching means where any pair was not measured."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    missing = bool(np.isnan(shades.values).any())
    room = figure.bbox.width / figure.dpi
    norm = Normalize(0, 1) if shades.own else Normalize(*shades.limits[0])
    mappable = ScalarMappable(norm, matplotlib.colormaps[shades.colours])
    # On the left where the hatching is explained beside it.
    length, anchor = (0.45, (0.0, 1.0)) if missing else (0.55, (0.5, 1.0))
    length = min(length, 3.2 / room)
    bar: Colorbar = figure.colorbar(
        mappable,
        ax=axes,
        location="bottom",
        shrink=length,
        aspect=length * 10 * room,
        pad=0.02,
        anchor=anchor,
        panchor=False,
    )
    bar.set_label("\n".join(_bar_lines(shades, room)), loc="left" if missing else "center")
    bar.outline.set_linewidth(0.5)
    if shades.own:
        diverging = shades.limits[0][0] == -shades.limits[0][1]
        words = ["−its largest", "0", "its largest"] if diverging else ["its smallest", "its largest"]
        bar.set_ticks(list(np.linspace(0, 1, len(words))), labels=words)
    if missing:
        bar.ax.legend(
            handles=[Patch(label="not measured", **_hatched())],
            loc="center left",
            bbox_to_anchor=(1.05, 0.5),
            borderaxespad=0,
            handlelength=1.4,
            handletextpad=0.5,
        )
    return bar


def settle(figure: Figure) -> None:
    """Lay the figure out until what stands around axes of fixed proportions has its room: once is not enough."""
    engine = figure.get_layout_engine()
    if engine is not None:
        for _ in range(2):
            engine.execute(figure)


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


def range_height(shades: Shades, side: float) -> float:
    """Inches that the RDMs' ranges take up below RDMs of `side` inches: a line, or two where one is too long."""
    if not shades.own:
        return 0.0
    return LINE if all(text_width(text, SMALL) < side for text in shades.ranges) else 2 * LINE


def bar_height(shades: Shades, room: float) -> float:
    """Inches that the bar takes up with its words, in a figure of so many inches."""
    return 0.42 + 0.13 * len(_bar_lines(shades, room))


def _percentiles(vectors: np.ndarray, shared: bool) -> np.ndarray:
    """Ranks as 0…100, the smallest 0 and the largest 100, equal dissimilarities alike; NaN stays NaN."""
    from scipy.stats import rankdata

    parts = [vectors] if shared else list(vectors)
    scaled = []
    for part in parts:
        ranks = rankdata(part, axis=None, nan_policy="omit").reshape(part.shape)
        ranks -= np.nanmin(ranks, initial=np.inf)
        largest = np.nanmax(ranks, initial=0)
        scaled.append(100 * ranks / (largest if largest > 0 else 1))
    return scaled[0] if shared else np.stack(scaled)


def _limits(values: np.ndarray, zero_counts: bool, negative: bool) -> tuple[float, float]:
    """Of pairs alone: a diagonal of zeros would take up half the colours where zero is far."""
    measured = values[~np.isnan(values)]
    if not len(measured):
        return 0.0, 1.0
    low, high = float(measured.min()), float(measured.max())
    if negative:
        largest = max(-low, high) or 1.0
        return -largest, largest
    if zero_counts:
        low = min(low, 0.0)
    return low, high if high > low else low + (abs(low) or 1.0)


def _range(vector: np.ndarray) -> str:
    """Smallest and largest with as many decimals as the larger of them needs."""
    measured = vector[~np.isnan(vector)]
    if not len(measured):
        return ""
    largest = np.abs(measured).max()
    decimals = 2 - int(np.floor(np.log10(largest))) if largest > 0 else 0
    form = f".{max(decimals, 0)}f" if -2 <= decimals <= 5 else ".2e"
    return f"{measured.min():{form}} … {measured.max():{form}}".replace("-", "−")


def _bar_lines(shades: Shades, room: float) -> list[str]:
    """The bar's words in lines that fit below RDMs, which take up most of a figure `room` inches wide."""
    lines: list[str] = []
    for line in shades.label.splitlines():
        letters = int(0.7 * room / text_width(line, 7.5) * len(line))
        parts = [line] if len(line) <= letters else line.replace(", ", ",\n", 1).splitlines()
        lines += [piece for part in parts for piece in wrap(part, letters)]
    return lines


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


def _hatched() -> dict[str, Any]:
    # Grey, since white is a colour of maps centred on 0; dense, so that a single pair shows it.
    return {"facecolor": "0.87", "edgecolor": "0.45", "hatch": "/" * 14, "linewidth": 0}
