"""One RDM, its stimuli's categories or pictures along its sides; and what every figure of RDMs is drawn with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from brainrdl.analysis.figures.rdm_colours import Shades, add_bar, bar_height, hatched, range_height, shade
from brainrdl.analysis.figures.rdm_sides import STRIP, STRIP_GAP, Sides, add_key, arrange, draw_sides, key_height
from brainrdl.analysis.figures.style import Width, check_width, new_figure, print_style
from brainrdl.analysis.figures.text import LINE, SMALL, TITLE, fitted
from brainrdl.analysis.figures.thumbnails import side_within
from brainrdl.rdms.selection import group_rdms, rdm_descriptor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs

    from brainrdl.data.thumbnails import Thumbnails


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
        ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, zorder=-1, **hatched()))
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


def settle(figure: Figure) -> None:
    """Lay the figure out until what stands around axes of fixed proportions has its room: once is not enough."""
    engine = figure.get_layout_engine()
    if engine is not None:
        for _ in range(2):
            engine.execute(figure)
