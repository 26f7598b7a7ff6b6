"""How RDMs move towards their target in training: a path through their second-order MDS, and the distance itself."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from brainrdl.analysis.figures.labels import label_points, leave_out_overlapping
from brainrdl.analysis.figures.second_order import REFERENCES, TARGET, distance_in_words, samples_in_words
from brainrdl.analysis.figures.style import MILLIMETRE, PAGE, Look, Width, check_width, looks, new_figure, print_style
from brainrdl.analysis.figures.text import ENTRY, SMALL, fitted, legend_columns, text_width
from brainrdl.analysis.scaling import multidimensional_scaling
from brainrdl.analysis.second_order import second_order_distances, undefined_rdms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs

# Layers side by side.
_A_ROW: dict[str, int] = {"single": 2, "double": 4}
_SIZES = (2.0, 5.5)
# How much white is in the colour of the first epoch; none in that of the last.
_PALEST = 0.65
# Labels of the same number that are nearer than this, in points of print, are one.
_NEAR = 16
_SHARED_COLOUR = "0.25"
# Inches that a number of epochs needs on the axis; and of a panel's width, those that are not the axis.
_TICK, _BESIDE = 0.26, 0.5
# Of layers one above the other, the least that paths and distances take of the height.
_LEAST = 2.7
_ENTRY = 6.5  # points
# Decades' worth of the axis of epochs between 0 and 1.
_LINEAR = 0.5
# Letters of the title on one line.
_LETTERS = {"single": 62, "double": 125}


class _Panel(NamedTuple):
    """A layer's data. points: method, epoch, x, y of one seed, in time. stars: places of target, pixels and labels.

    distances: method, seed, epoch, distance to the target.
    """

    title: str
    points: pd.DataFrame
    stars: dict[str, np.ndarray]
    distances: pd.DataFrame


def plot(
    rdms: RDMs,
    target: str = "teacher",
    layers: Mapping[str, str] | Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    comparison: str = "correlation",
    n_bootstrap: int = 20,
    n_stimuli: int | None = None,
    metric: bool = True,
    references: bool = False,
    width: Width = "double",
) -> Figure:
    """For each layer, a path a method through its RDMs' second-order MDS, and below it their distance to the target.

    The path is of the first seed; points grow and darken with the epochs, and at its ends stands the number of epochs
    trained, 0 before training; once where several end together. Distances are as `second_order_distances` gives them,
    mean over its samples: lines are the mean over seeds, bands reach from the least to the largest. Epochs are on a
    logarithmic axis, linear up to 1.
    rdms: with descriptors network, layer, epoch (from 0; -1 = before training) and, of several, seed.
    target: the network that has the target RDMs, such as teacher or brain; of several epochs, the last.
    layers: of the methods, in order, and the target's layer (or roi) for each; None, or names only: its layer of the
    same name, or its only one. methods: all methods in order, so that each has its colour in every figure; None: those
    there are. references: whether pixels and labels take part, where they are among the RDMs; far ones leave
    little room to the paths.
    An RDM that is constant or nowhere measured has no distance to others: it is left out, which the title says.
    comparison, n_bootstrap, n_stimuli, metric: as of `second_order_mds`. width: "single" (85 mm) or "double" (180 mm).
    Raises ValueError where a descriptor, the target or a layer is missing, RDMs occur twice, no method has two
    epochs, or more layers are drawn than fit on a page.
    """
    check_width(width)
    table = _table(rdms)
    towards = _towards(table, target, layers)
    special = (target, *REFERENCES)
    undefined = [k for k in undefined_rdms(rdms, comparison) if table["network"].iloc[k] not in special]
    n_undefined = int(table.loc[undefined, "layer"].isin(towards).sum())
    panels = []
    for layer, target_row in towards.items():
        rows = _rows_of(table.drop(index=undefined), layer, target)
        arguments = (comparison, n_bootstrap, n_stimuli)
        stars = {name: k for name in REFERENCES if references for k in np.flatnonzero(table["network"] == name)[:1]}
        panels.append(_panel(rdms, table, rows, target_row, stars, arguments, metric))
    names = [name for panel in panels for name in panel.distances["method"]]
    shown = dict.fromkeys(names)
    look = {name: style for name, style in looks([*(methods or ()), *names]).items() if name in shown}
    title = _title(panels, comparison, n_bootstrap, n_stimuli or rdms.n_cond, metric)
    if n_undefined:
        title += f" {n_undefined} RDMs that are constant or NaN have no distance and are left out."
    with print_style():
        return _draw(panels, look, target, title, width)


def _title(panels: Sequence[_Panel], comparison: str, n_bootstrap: int, n_stimuli: int, metric: bool) -> str:
    words = f"Distances: {distance_in_words(comparison)}, {samples_in_words(n_bootstrap, n_stimuli)}."
    words += " Paths" if metric else " Paths, by the order of distances (non-metric)"
    n_seeds = max(panel.distances["seed"].nunique() for panel in panels)
    if n_seeds > 1:
        return f"{words}: one seed, from pale to dark; numbers: epochs. Curves: mean and range over {n_seeds} seeds."
    return f"{words}: from pale to dark; numbers: epochs."


def _table(rdms: RDMs) -> pd.DataFrame:
    """The descriptors that count, a row an RDM."""
    known = rdms.rdm_descriptors
    for name in ("network", "layer", "epoch"):
        if name not in known:
            raise ValueError(
                f"the training figure needs the rdm_descriptor '{name}'; the RDMs have: "
                f"{', '.join(key for key in known if key != 'index') or 'none'}"
            )
    return pd.DataFrame(
        {
            "network": [str(name) for name in known["network"]],
            "layer": [str(name) for name in known["layer"]],
            "epoch": [int(epoch) for epoch in known["epoch"]],
            "seed": [str(seed) for seed in known.get("seed", [0] * rdms.n_rdm)],
        }
    )


def _towards(table: pd.DataFrame, target: str, layers: Mapping[str, str] | Sequence[str] | None) -> dict[str, int]:
    """For each layer of the methods, the row of its target."""
    of_target = table[table["network"] == target].sort_values("epoch", kind="stable")
    if of_target.empty:
        raise ValueError(
            f"no RDM is of the target '{target}'; the networks are: {', '.join(dict.fromkeys(table['network']))}"
        )
    known = list(dict.fromkeys(table.loc[~table["network"].isin([target, *REFERENCES]), "layer"]))
    theirs = list(dict.fromkeys(of_target["layer"]))
    if layers is None:
        layers = [name for name in known if name in theirs or len(theirs) == 1]
    if not isinstance(layers, Mapping):
        layers = {name: theirs[0] if len(theirs) == 1 else name for name in layers}
    if not layers:
        raise ValueError(
            f"no layer has the name of one of the target's; name its target for each, as layers={{'{known[0]}': "
            f"'{theirs[0]}'}}; layers: {', '.join(known)}; of {target}: {', '.join(theirs)}"
            if known
            else f"there is no RDM besides those of {target}, pixels and labels"
        )
    rows = {}
    for name, of_name in layers.items():
        if name not in known:
            raise ValueError(f"no method has layer '{name}'; there are: {', '.join(known)}")
        if of_name not in theirs:
            raise ValueError(f"target '{target}' has no layer '{of_name}'; it has: {', '.join(theirs)}")
        candidates = of_target[of_target["layer"] == of_name]
        if candidates["epoch"].duplicated().any():
            raise ValueError(
                f"target '{target}' has {len(candidates)} RDMs of '{of_name}'; choose one, or average "
                "them (average_rdms)"
            )
        rows[name] = int(candidates.index[-1])
    return rows


def _rows_of(table: pd.DataFrame, layer: str, target: str) -> pd.DataFrame:
    """The methods' rows of a layer, in time."""
    rows = table[(table["layer"] == layer) & ~table["network"].isin([target, *REFERENCES])]
    twice = rows[rows.duplicated(["network", "seed", "epoch"])]
    if len(twice):
        first = twice.iloc[0]
        raise ValueError(
            f"network '{first['network']}' has layer '{layer}' twice at epoch {first['epoch']}, seed {first['seed']}; "
            "choose one, or give each a seed"
        )
    if not (rows.groupby(["network", "seed"])["epoch"].nunique() > 1).any():
        logged = ", ".join(str(epoch + 1) for epoch in sorted(set(rows["epoch"])))
        raise ValueError(
            f"no network has RDMs of layer '{layer}' at two epochs, as a path needs (epochs of training logged: "
            f"{logged or 'none'}); log more with `analysis.every` in the experiment file"
        )
    order = {name: k for k, name in enumerate(dict.fromkeys(rows["network"]))}
    return rows.sort_values(
        ["network", "epoch"],
        key=lambda values: values.map(order) if values.name == "network" else values,
        kind="stable",
    )


def _panel(
    rdms: RDMs,
    table: pd.DataFrame,
    rows: pd.DataFrame,
    target_row: int,
    references: Mapping[str, int],
    arguments: tuple[str, int, int | None],
    metric: bool,
) -> _Panel:
    name, of_name = rows["layer"].iloc[0], table["layer"].iloc[target_row]
    target = table["network"].iloc[target_row]
    distances: list[pd.DataFrame] = []
    for _, of_seed in rows.groupby("seed", sort=False):
        chosen = [target_row, *references.values(), *of_seed.index]
        between = second_order_distances(rdms[chosen], *arguments).mean(0)
        own = of_seed.assign(distance=between[0, 1 + len(references) :])
        if not distances:
            places, stress = multidimensional_scaling(between, metric)
            points = of_seed.assign(x=places[1 + len(references) :, 0], y=places[1 + len(references) :, 1])
        distances.append(own)
    stars = dict(zip([target, *references], places, strict=False))
    return _Panel(
        f"{name or 'output'}{f' to {of_name}' * (of_name not in (name, target))} (stress {stress:.2f})",
        points.rename(columns={"network": "method"}),
        stars,
        pd.concat(distances).rename(columns={"network": "method"}),
    )


def _draw(panels: Sequence[_Panel], look: Mapping[str, Look], target: str, title: str, width: Width) -> Figure:
    n_across = min(len(panels), _A_ROW[width])
    n_down = -(-len(panels) // n_across)
    beside = len(panels) == 1 and width == "double"
    handles = _legend(look, target, panels)
    n_columns = legend_columns(handles, check_width(width), 2 if width == "single" else 5, _ENTRY)
    around = 0.4 + ENTRY * -(-len(handles) // n_columns) + 0.1
    each = 2.9 if beside else 2 * (1.7 if n_across > 2 or (width == "single" and n_across == 2) else 2.5) + 0.4
    each = max(min(each, (PAGE - around) / n_down), _LEAST)
    if n_down * each + around > PAGE:
        fitting = n_across * max(int((PAGE - around) / _LEAST), 1)
        raise ValueError(
            f"{len(panels)} layers do not fit on a page {PAGE / MILLIMETRE:.0f} mm high: {fitting} do; choose some of "
            "them (layers), or a larger figure (width='double')"
        )
    figure = new_figure(n_down * each + around, width)
    figure.suptitle(textwrap.fill(title, _LETTERS[width], break_on_hyphens=False), x=0.01, ha="left", fontsize=7)
    axes: Any = figure.subplots(1 if beside else 2 * n_down, 2 if beside else n_across, squeeze=False)
    for k, panel in enumerate(panels):
        row, column = 2 * (k // n_across), k % n_across
        above, below = axes[0] if beside else axes[row : row + 2, column]
        inches = figure.get_figwidth() / (2 if beside else n_across) - _BESIDE
        _draw_paths(above, panel, look, inches)
        _draw_distances(below, panel, look, inches)
        if column == 0 or beside:
            above.set_ylabel("MDS dimension 2")
            below.set_ylabel(f"Distance to {target}")
    for ax in axes.ravel():
        if not ax.has_data():
            ax.remove()
    figure.legend(handles=handles, loc="outside lower center", ncols=n_columns, columnspacing=1.2, fontsize=_ENTRY)
    figure.draw_without_rendering()
    for k, panel in enumerate(panels):
        _label_ends(axes[0, 0] if beside else axes[2 * (k // n_across), k % n_across], panel, look)
    return figure


def _draw_paths(ax: Axes, panel: _Panel, look: Mapping[str, Look], inches: float) -> None:
    """inches: how wide the axes are, about."""
    epochs = sorted(panel.points["epoch"].unique())
    for name, path in panel.points.groupby("method", sort=False):
        colour = look[str(name)].colour
        ax.plot(path["x"], path["y"], color=colour, linewidth=0.7, alpha=0.7, zorder=2)
        for x, y, epoch in zip(path["x"], path["y"], path["epoch"], strict=True):
            age = epochs.index(epoch) / max(len(epochs) - 1, 1)
            style: dict[str, Any] = {
                "markersize": _SIZES[0] + age * (_SIZES[1] - _SIZES[0]),
                "markerfacecolor": _paler(colour, _PALEST * (1 - age)),
                "markeredgecolor": colour,
                "markeredgewidth": 0.4,
            }
            ax.plot(x, y, "o", zorder=3 + age, **style)
    for name, (x, y) in panel.stars.items():
        ax.plot(x, y, zorder=5, **REFERENCES.get(name, TARGET))
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.12)
    ax.locator_params(nbins=4)
    ax.set_xlabel("MDS dimension 1")
    title = panel.title if text_width(panel.title, SMALL) < inches else panel.title.replace(" (stress", "\n(stress")
    text, fontsize = fitted(title, inches, 7.5)
    ax.set_title(text, fontsize=fontsize)


def _label_ends(ax: Axes, panel: _Panel, look: Mapping[str, Look]) -> None:
    """The number of epochs at both ends of each path, in its colour; of ends that lie together one number, in grey."""
    point_size = ax.figure.canvas.figure.dpi / 72
    paths = {str(name): path for name, path in panel.points.groupby("method", sort=False)}
    kept: list[tuple[np.ndarray, str, str]] = []
    for row in (0, -1):
        for name, path in paths.items():
            place, text = path[["x", "y"]].to_numpy()[row], str(path["epoch"].iloc[row] + 1)
            near = [
                k
                for k, (other, known, _) in enumerate(kept)
                if known == text and np.ptp(ax.transData.transform([place, other]), axis=0).max() < _NEAR * point_size
            ]
            if near:
                kept[near[0]] = (kept[near[0]][0], text, _SHARED_COLOUR)
            elif row == 0 or len(path) > 1:
                kept.append((place, text, look[name].colour))
    places, texts, colours = zip(*kept, strict=True)
    lines = [path[["x", "y"]].to_numpy() for path in paths.values()]
    label_points(ax, np.array(places), texts, colours, lines, np.concatenate([*lines, [*panel.stars.values()]]))
    leave_out_overlapping(ax)


def _paler(colour: str, white: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = (white + (1 - white) * part for part in to_rgb(colour))
    return red, green, blue


def _draw_distances(ax: Axes, panel: _Panel, look: Mapping[str, Look], inches: float) -> None:
    """inches: how long the axis of epochs is, about."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    for name, (colour, dashes) in look.items():
        rows = panel.distances[panel.distances["method"] == name]
        if rows.empty:
            continue
        by_epoch = rows.pivot(index="epoch", columns="seed", values="distance").dropna()
        trained = by_epoch.index.to_numpy() + 1
        ax.fill_between(trained, by_epoch.min(axis=1), by_epoch.max(axis=1), color=colour, alpha=0.18, linewidth=0)
        ax.plot(trained, by_epoch.mean(axis=1), dashes, color=colour, marker="o", markersize=2, label=name)
    ax.set_xscale("symlog", linthresh=1, linscale=_LINEAR)
    logged = sorted(int(epoch) + 1 for epoch in panel.distances["epoch"].unique())
    ax.xaxis.set_major_locator(FixedLocator(_ticks(logged, inches)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("Epochs of training")
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="y", nbins=6)
    ax.grid(axis="y", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)


def _ticks(logged: Sequence[int], inches: float) -> list[float]:
    """The logged epochs whose numbers have room on an axis of that length, the last one first."""
    ratio = 10 ** (_TICK * (_LINEAR + np.log10(max(logged[-1], 1))) / inches)
    kept = [logged[-1]]
    for epoch in reversed(logged[:-1]):
        if epoch * ratio < kept[-1]:
            kept.append(epoch)
    return [float(epoch) for epoch in kept]


def _legend(look: Mapping[str, Look], target: str, panels: Sequence[_Panel]) -> list[Any]:
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=colour, linestyle=dashes, marker="o", markersize=3, label=name)
        for name, (colour, dashes) in look.items()
    ]
    stars = {name: {**REFERENCES.get(name, TARGET), "markersize": 8} for panel in panels for name in panel.stars}
    labels = {target: f"{target} (target)"}
    return handles + [Line2D([], [], label=labels.get(name, name), **style) for name, style in stars.items()]
