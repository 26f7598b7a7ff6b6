"""Methods and layers as points, as far apart as their RDMs (Figs. 4 and 6, McClure & Kriegeskorte 2016)."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from brainrdl.analysis.figures.agreement import MEASURES
from brainrdl.analysis.figures.labels import label_points
from brainrdl.analysis.figures.style import TEACHER_COLOUR, Look, Width, check_width, looks, new_figure, print_style
from brainrdl.analysis.figures.text import clipped, text_width
from brainrdl.analysis.second_order import SecondOrder

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

REFERENCES: dict[str, dict[str, Any]] = {
    "pixels": {"marker": "*", "linestyle": "", "color": "0.5"},
    "labels": {"marker": "*", "linestyle": "", "color": "0.5", "markerfacecolor": "white"},
}
_DISTANCES = {
    "normalized_euclidean": "Euclidean distance of RDMs of norm 1",
    "bures_metric": "Bures distance of RDMs",
    "bures": "1\u00a0−\u00a0Bures similarity of RDMs",
    "kendall": "1\u00a0−\u00a0Kendall's τ-b of RDMs",
    "correlation": "1\u00a0−\u00a0Pearson's r of RDMs",
}
TARGET: dict[str, Any] = {
    "marker": "*",
    "linestyle": "",
    "color": TEACHER_COLOUR,
    "markeredgecolor": "white",
    "markeredgewidth": 0.4,
    "markersize": 11,
}
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_MOST_COLOURS = 28
# Filled and hollow.
_MOST_SHAPES = 2 * len(_SHAPES)
# Each colour meets each shape before a pair of them comes again: 7 and 11 have no common factor.
_MOST_OF_BOTH = 77
# Entries of a legend beside or below the axes, above which it has two columns.
_LONG_LEGEND = {"single": 16, "double": 26}
# An ellipse needs them.
_FEWEST_SAMPLES = 3
# Letters of a title on one line.
_LETTERS = {"single": 54, "double": 105}
# Points of a legend's entries; of the figure's width what a legend beside the axes takes at most.
_ENTRY = {"single": 6.5, "double": 7.0}
_BESIDE = 0.45


class _Coding(NamedTuple):
    """What colour and shape stand for.

    look: of each value of the descriptor `colour_by`. shapes: the number of the shape of each value of `shape_by`.
    own: the same of each value of `colour_by`, where it has its colour and shape for itself; then `shapes` are of the
    teacher's RDMs only.
    """

    colour_by: str
    shape_by: str
    look: dict[str, Look]
    shapes: dict[str, int]
    own: dict[str, int]


def plot(
    second_order: SecondOrder,
    ax: Axes | None = None,
    teacher: str = "teacher",
    methods: Sequence[str] | None = None,
    targets: Sequence[str] = (),
    colour_by: str | None = None,
    shape_by: str | None = None,
    spread: bool = True,
    width: Width = "double",
) -> Axes:
    """A point an RDM: colour = network, shape = layer, a network's layers joined along depth; pixels and labels marked.

    second_order: layers in order of depth. Its stress, comparison and samples stand above the axes.
    teacher: the network drawn in black, larger and below the others. targets: networks, such as the brain, in black
    and not joined, each RDM with its name beside it.
    methods: all methods of the experiment in order, so that each has its colour in every figure; None: those there are.
    colour_by, shape_by: the descriptors that colour and shape stand for, which may be the same; None: network and
    layer, or without these what tells the RDMs apart. Where all networks but teacher and targets show one layer, the
    shape tells networks apart, of which there may be many.
    spread: ellipses of one standard deviation over the bootstrap samples, where there are at least 3.
    width: "single" (85 mm, the legend below) or "double" (180 mm, beside). ax: where to draw; None makes a figure
    (`ax.figure`).
    Raises ValueError for a descriptor or a target that is missing, naming those there are, and for more colours or
    shapes than can be told apart (28 and 22; 77 where they stand for one thing).
    """
    check_width(width)
    points = second_order.descriptors.astype(str)
    coding = _coding(points, colour_by, shape_by, teacher, targets, methods)
    values = points[coding.colour_by]
    for name in targets:
        if not (values == name).any():
            raise ValueError(
                f"no RDM is of the target '{name}'; of {coding.colour_by} there are: {', '.join(dict.fromkeys(values))}"
            )
    stars = {name: style for name, style in REFERENCES.items() if (values == name).any()}
    stars |= {f"{name} (target)": TARGET for name in targets if (values == name).any()}
    with print_style():
        handles, n_columns = _legend_entries(coding, stars, width)
        if ax is None:
            n_lines = -(-len(handles) // n_columns)
            height = max(4.3, 0.7 + 0.147 * n_lines) if width == "double" else 3.6 + 0.14 * n_lines
            ax = new_figure(height, width).subplots()
        for name in coding.look:
            _draw_network(ax, second_order.coordinates, points, coding, name, is_teacher=name == teacher)
        for name, style in {**REFERENCES, **dict.fromkeys(targets, TARGET)}.items():
            for x, y in second_order.coordinates[(values == name).to_numpy()]:
                ax.plot(x, y, zorder=3.5 if name in targets else 1, **{"markersize": 12, **style})
        has_spread = spread and len(second_order.samples) >= _FEWEST_SAMPLES
        if has_spread:
            _draw_spread(ax, second_order, values, coding)
        ax.set_aspect("equal", adjustable="datalim")
        ax.margins(0.08)
        ax.set_xlabel("MDS dimension 1")
        ax.set_ylabel("MDS dimension 2")
        ax.locator_params(nbins=6)
        ax.set_title(_title(second_order, has_spread, _LETTERS[width]), loc="left", fontsize=7)
        _legend(ax, coding, handles, n_columns, width)
        _name_targets(ax, second_order.coordinates, points, coding, targets)
    return ax


def distance_in_words(comparison: str) -> str:
    """What a distance between two RDMs is, for an axis or a title."""
    return _DISTANCES.get(comparison, f"1\u00a0−\u00a0{MEASURES.get(comparison, comparison)} of RDMs")


def samples_in_words(n_bootstrap: int, n_stimuli: int) -> str:
    """Over which stimuli distances are."""
    if not n_bootstrap:
        return f"all {n_stimuli} stimuli"
    return f"mean of {n_bootstrap} bootstrap sample{'s' * (n_bootstrap > 1)} of {n_stimuli} stimuli"


def ellipse(ax: Axes, samples: np.ndarray, centre: np.ndarray, colour: str) -> None:
    """One standard deviation of the samples (n_samples, 2) in every direction, about `centre`, faint."""
    from matplotlib.patches import Ellipse

    variances, axes = np.linalg.eigh(np.cov(samples.T))
    width, height = 2 * np.sqrt(variances.clip(0))
    angle = float(np.degrees(np.arctan2(axes[1, 0], axes[0, 0])))
    place = (float(centre[0]), float(centre[1]))
    style: dict[str, Any] = {"facecolor": colour, "edgecolor": "none", "alpha": 0.13, "zorder": 1.5}
    ax.add_patch(Ellipse(place, float(width), float(height), angle=angle, **style))


def _coding(
    points: pd.DataFrame,
    colour_by: str | None,
    shape_by: str | None,
    teacher: str,
    targets: Sequence[str],
    methods: Sequence[str] | None,
) -> _Coding:
    colour_by, shape_by = _descriptors(points, colour_by, shape_by)
    named = points[~points[colour_by].isin([*REFERENCES, *targets])]
    ordinary = named[named[colour_by] != teacher]
    names = list(dict.fromkeys(ordinary[colour_by]))
    alone = len(names) > 1 and len(ordinary) == len(names)
    own = {name: k for k, name in enumerate(names)} if alone or colour_by == shape_by else {}
    shaped = named[named[colour_by] == teacher] if own else named
    shapes = {name: k for k, name in enumerate(dict.fromkeys(shaped[shape_by]))}
    _check_number(names, colour_by, _MOST_OF_BOTH if own else _MOST_COLOURS, "colours")
    _check_number(shapes, shape_by, _MOST_SHAPES, "shapes")
    # Methods that are not shown keep their colours.
    look = looks([*(methods or ()), *names])
    shown = {name: look[name] for name in look if name in set(names)}
    if len(named) > len(ordinary):
        shown[teacher] = Look(TEACHER_COLOUR, "-")
    return _Coding(colour_by, shape_by, shown, shapes, own)


def _descriptors(points: pd.DataFrame, colour_by: str | None, shape_by: str | None) -> tuple[str, str]:
    """The descriptors that colour and shape stand for: as asked, network and layer, or those of the fewest values."""
    there = [str(name) for name in points]
    for name in (colour_by, shape_by):
        if name is not None and name not in there:
            raise ValueError(f"the RDMs have no descriptor '{name}'; they have: {', '.join(there) or 'none'}")
    differing = sorted((name for name in there if points[name].nunique() > 1), key=lambda name: points[name].nunique())
    for_colour = ["network"] * ("network" in there) + [name for name in differing if name != shape_by]
    colour_by = colour_by or next(iter(for_colour), shape_by)
    if colour_by is None:
        raise ValueError(
            f"no descriptor tells the {len(points)} RDMs apart; they have: {', '.join(there) or 'none'}; give them an "
            "rdm_descriptor such as network or roi"
        )
    for_shape = ["layer"] * ("layer" in there) + [name for name in differing if name != colour_by]
    return colour_by, shape_by or next(iter(for_shape), colour_by)


def _check_number(values: Collection[str], descriptor: str, most: int, what: str) -> None:
    if len(values) > most:
        raise ValueError(
            f"descriptor '{descriptor}' has {len(values)} values, and no more than {most} {what} can be told apart; "
            "draw fewer RDMs, or let colour and shape stand for other descriptors (colour_by, shape_by)"
        )


def _draw_network(
    ax: Axes, coordinates: np.ndarray, points: pd.DataFrame, coding: _Coding, name: str, is_teacher: bool
) -> None:
    colour, dashes = coding.look[name]
    rows = np.flatnonzero(points[coding.colour_by] == name)
    # The teacher lies below and is larger: a network that coincides with it stays visible.
    size, width, order = (7.5, 2.0, 2.0) if is_teacher else (5.0, 0.9, 3.0)
    if coding.shape_by == "layer":
        for chain in (chain for chain in _chains(rows, points["layer"]) if len(chain) > 1):
            ax.plot(*coordinates[chain].T, dashes, color=colour, linewidth=width, alpha=0.8, zorder=order)
    for row in rows:
        value = points[coding.shape_by].iloc[row]
        # In its colour each shape is filled: colours tell those apart that have the same.
        shape = coding.shapes[value] if is_teacher or not coding.own else coding.own[name] % len(_SHAPES)
        style = {**_shape(shape, colour), "markersize": size, "zorder": order + 0.5}
        ax.plot(*coordinates[row], color=colour, **style)


def _chains(rows: np.ndarray, layers: pd.Series[str]) -> list[list[int]]:
    """Rows that are joined: a layer that comes again begins another network, of another seed, say."""
    chains: list[list[int]] = []
    for row in rows:
        if not chains or layers.iloc[row] in {layers.iloc[other] for other in chains[-1]}:
            chains.append([])
        chains[-1].append(int(row))
    return chains


def _shape(number: int, colour: str) -> dict[str, Any]:
    """matplotlib's style of a point: the shapes filled, then the same hollow."""
    hollow = number >= len(_SHAPES)
    return {
        "marker": _SHAPES[number % len(_SHAPES)],
        "markerfacecolor": "white" if hollow else colour,
        "markeredgecolor": colour if hollow else "white",
        "markeredgewidth": 0.9 if hollow else 0.4,
        "linestyle": "",
    }


def _draw_spread(ax: Axes, second_order: SecondOrder, values: pd.Series[str], coding: _Coding) -> None:
    for k, name in enumerate(values):
        colour = coding.look[name].colour if name in coding.look else REFERENCES.get(name, TARGET)["color"]
        ellipse(ax, second_order.samples[:, k], second_order.coordinates[k], colour)


def _name_targets(
    ax: Axes, coordinates: np.ndarray, points: pd.DataFrame, coding: _Coding, targets: Sequence[str]
) -> None:
    """Beside each target its shape's value, a roi, say; its own name where it has one RDM."""
    values = points[coding.colour_by]
    rows = np.flatnonzero(values.isin(targets))
    if not len(rows):
        return
    names = [points[coding.shape_by].iloc[k] if (values == values.iloc[k]).sum() > 1 else values.iloc[k] for k in rows]
    others = np.delete(coordinates, rows, axis=0)
    figure: Any = ax.figure.canvas.figure
    figure.draw_without_rendering()
    label_points(ax, coordinates[rows], names, [TEACHER_COLOUR] * len(rows), others=others, radius=5)


def _title(second_order: SecondOrder, spread: bool, letters: int) -> str:
    what = "Distances between points" if second_order.metric else "Order of distances between points (non-metric)"
    samples = samples_in_words(len(second_order.samples), second_order.n_stimuli)
    words = f"{what}: {distance_in_words(second_order.comparison)}, {samples}. Stress\u00a0{second_order.stress:.2f}."
    if spread:
        words += " Ellipses: 1\u00a0s.d. over samples."
    return textwrap.fill(words, letters, break_on_hyphens=False)


def _legend_entries(coding: _Coding, stars: Mapping[str, Mapping[str, Any]], width: Width) -> tuple[list[Any], int]:
    """The legend's entries, colours first, and in how many columns they stand."""
    from matplotlib.lines import Line2D

    colours: list[Any] = []
    for name, (colour, dashes) in coding.look.items():
        style: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5}
        if name in coding.own:
            style = {**_shape(coding.own[name] % len(_SHAPES), colour), "markersize": 5}
        elif coding.shape_by == "layer":
            style = {"linestyle": dashes}
        colours.append(Line2D([], [], color=colour, label=name, **style))
    others: list[Any] = [
        Line2D([], [], color="0.4", markersize=5, label=name or "output", **_shape(number, "0.4"))
        for name, number in coding.shapes.items()
    ]
    others += [Line2D([], [], label=name, **{**style, "markersize": 8}) for name, style in stars.items()]
    empty = Line2D([], [], linestyle="", label="")
    one_column = [*colours, *[empty] * bool(colours and others), *others]
    longest = max(text_width(str(handle.get_label()), _ENTRY[width]) for handle in one_column)
    # Beside the axes there is room for one long column; below them it is for names that are too long for two.
    if len(one_column) <= _LONG_LEGEND[width] and (width == "double" or longest > _room(width, 2)):
        return _clip(one_column, width, 1), 1
    longer = max(len(colours), len(others))
    if 2 * longer <= 1.4 * (len(colours) + len(others)):
        side_by_side = [part[k] if k < len(part) else empty for part in (colours, others) for k in range(longer)]
        return _clip(side_by_side, width, 2), 2
    n_columns = 3 if width == "single" and longest <= _room(width, 3) else 2
    return _clip(one_column, width, n_columns), n_columns


def _room(width: Width, n_columns: int) -> float:
    """Inches for a name in a legend of so many columns: below the axes all of the width, beside them part of it."""
    across = check_width(width) - 0.5 if width == "single" else _BESIDE * check_width(width)
    return across / n_columns - 0.4


def _clip(handles: list[Any], width: Width, n_columns: int) -> list[Any]:
    """Long names would leave no room to the axes, or be cut off."""
    for handle in handles:
        handle.set_label(clipped(str(handle.get_label()), _room(width, n_columns), _ENTRY[width]))
    return handles


def _legend(ax: Axes, coding: _Coding, handles: Sequence[Any], n_columns: int, width: Width) -> None:
    from matplotlib.transforms import ScaledTranslation

    root: Any = ax.figure.canvas.figure
    below = width == "single"
    below_axis = ax.transAxes + ScaledTranslation(0, -0.36, root.dpi_scale_trans)
    what = f"Colour{' and shape' * bool(coding.own)}: {coding.colour_by}"
    ax.legend(
        handles=handles,
        title=what if coding.own else f"{what}, shape: {coding.shape_by}",
        title_fontsize=6.5,
        fontsize=_ENTRY[width],
        ncols=n_columns,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0) if below else (1.01, 1.0),
        bbox_transform=below_axis if below else ax.transAxes,
        alignment="left",
        columnspacing=1.2,
        borderaxespad=0,
    )
