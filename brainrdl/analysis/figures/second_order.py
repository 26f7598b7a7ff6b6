"""Methods and layers as points, as far apart as their RDMs (Figs. 4 and 6, McClure & Kriegeskorte 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brainrdl.analysis.figures.style import TEACHER_COLOUR, Look, looks, new_figure, print_style
from brainrdl.analysis.second_order import SecondOrder

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_REFERENCES: dict[str, dict[str, Any]] = {
    "pixels": {"marker": "*", "linestyle": "", "color": "0.5"},
    "labels": {"marker": "*", "linestyle": "", "color": "0.5", "markerfacecolor": "white"},
}


def plot(
    second_order: SecondOrder, ax: Axes | None = None, teacher: str = "teacher", methods: Sequence[str] | None = None
) -> Axes:
    """A point an RDM: colour = network, shape = layer, a network's layers joined along depth; pixels and labels marked.

    second_order: with descriptors network and layer, layers in order of depth.
    teacher: the network drawn in black, larger and below the others.
    methods: all methods of the experiment in order, so that each has its colour in every figure; None: those there are.
    Where all networks but the teacher show one layer, the shape tells networks apart, of which there may be many.
    ax: where to draw; None makes a figure (`ax.figure`). Raises ValueError where a descriptor is missing.
    """
    points = second_order.descriptors
    for name in ("network", "layer"):
        if name not in points:
            raise ValueError(f"the second-order figure needs the rdm_descriptor '{name}'; these RDMs lack it")
    with print_style():
        if ax is None:
            ax = new_figure(height=4.3).subplots()
        networks = [n for n in dict.fromkeys(points["network"]) if n not in (*_REFERENCES, teacher)]
        look = {name: look for name, look in looks([*(methods or ()), *networks]).items() if name in networks}
        if teacher in set(points["network"]):
            look[teacher] = Look(TEACHER_COLOUR, "-")
        layers = list(dict.fromkeys(points.loc[~points["network"].isin(_REFERENCES), "layer"]))
        markers = {layer: _MARKERS[k % len(_MARKERS)] for k, layer in enumerate(layers)}
        of_network = {name: _MARKERS[k % len(_MARKERS)] for k, name in enumerate(n for n in look if n != teacher)}
        alone = all((points["network"] == name).sum() == 1 for name in of_network) and len(of_network) > 1
        if alone:
            markers = {name: marker for name, marker in markers.items() if name in set(_layers_of(points, teacher))}
        for network, (colour, dashes) in look.items():
            rows = (points["network"] == network).to_numpy()
            x, y = second_order.coordinates[rows].T
            # The teacher lies below and is larger: a network that coincides with it stays visible.
            is_teacher = network == teacher
            size, width, order = (7.5, 2.0, 2) if is_teacher else (5.0, 0.9, 3)
            ax.plot(x, y, dashes, color=colour, linewidth=width, alpha=0.8, zorder=order)
            for layer, x_k, y_k in zip(points.loc[rows, "layer"], x, y, strict=True):
                style: dict[str, Any] = {"markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.4}
                marker = of_network[network] if alone and not is_teacher else markers[layer]
                ax.plot(x_k, y_k, marker, color=colour, zorder=order + 0.5, **style)
        for reference, style in _REFERENCES.items():
            for x_k, y_k in second_order.coordinates[(points["network"] == reference).to_numpy()]:
                ax.plot(x_k, y_k, markersize=12, zorder=1, **style)
        ax.set_aspect("equal", adjustable="datalim")
        ax.margins(0.08)
        ax.set_xlabel("MDS dimension 1")
        ax.set_ylabel("MDS dimension 2")
        distance = _in_words(second_order.comparison)
        ax.set_title(
            f"Distance between points: {distance} (stress {second_order.stress:.2f})", loc="left", fontsize=7.5
        )
        references = [name for name in _REFERENCES if name in set(points["network"])]
        _legend(ax, look, markers, references, of_network if alone else {})
    return ax


def _layers_of(points: pd.DataFrame, network: str) -> list[str]:
    return list(points.loc[points["network"] == network, "layer"])


def _in_words(comparison: str) -> str:
    return {
        "correlation": "1 − Pearson correlation of RDMs",
        "normalized_euclidean": "Euclidean distance of RDMs of norm 1",
    }.get(comparison, f"1 − {comparison} similarity of RDMs")


def _legend(
    ax: Axes,
    look: Mapping[str, Look],
    markers: Mapping[str, str],
    references: Sequence[str],
    of_network: Mapping[str, str],
) -> None:
    """of_network: the networks' shapes where these do not stand for layers."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=colour, linestyle="", marker=of_network[name], markersize=5, label=name)
        if name in of_network
        else Line2D([], [], color=colour, linestyle=dashes, label=name)
        for name, (colour, dashes) in look.items()
    ]
    handles.append(Line2D([], [], linestyle="", label=""))
    handles += [
        Line2D([], [], color="0.4", marker=marker, linestyle="", markersize=5, label=layer or "output")
        for layer, marker in markers.items()
    ]
    handles += [Line2D([], [], markersize=8, label=name, **_REFERENCES[name]) for name in references]
    ax.legend(
        handles=handles,
        title="Colour and shape: network" if of_network else "Colour: network, shape: layer",
        title_fontsize=6.5,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        alignment="left",
        borderaxespad=0,
    )
