"""Methods and layers as points, as far apart as their RDMs (Figs. 4 and 6, McClure & Kriegeskorte 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brainrdl.analysis.figures.style import REFERENCE_COLOUR, Look, looks, new_figure, print_style
from brainrdl.analysis.second_order import SecondOrder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
_REFERENCES = ("pixels", "labels")


def plot(
    second_order: SecondOrder, ax: Axes | None = None, teacher: str = "teacher", methods: Sequence[str] | None = None
) -> Axes:
    """A point an RDM: colour = network, shape = layer, a network's layers joined along depth; pixels and labels marked.

    second_order: with descriptors network and layer, layers in order of depth. teacher: the network drawn in black.
    methods: all methods of the experiment in order, so that each has its colour in every figure; None: those there are.
    ax: where to draw; None makes a figure (`ax.figure`). Raises ValueError where a descriptor is missing.
    """
    from matplotlib.patheffects import withStroke

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
            look[teacher] = Look(REFERENCE_COLOUR, "-")
        layers = list(dict.fromkeys(points.loc[~points["network"].isin(_REFERENCES), "layer"]))
        markers = {layer: _MARKERS[k % len(_MARKERS)] for k, layer in enumerate(layers)}
        for network, (colour, dashes) in look.items():
            rows = (points["network"] == network).to_numpy()
            x, y = second_order.coordinates[rows].T
            ax.plot(x, y, dashes, color=colour, linewidth=0.9, alpha=0.8, zorder=2)
            for layer, x_k, y_k in zip(points.loc[rows, "layer"], x, y, strict=True):
                ax.plot(
                    x_k,
                    y_k,
                    markers[layer],
                    color=colour,
                    markersize=5,
                    markeredgecolor="white",
                    markeredgewidth=0.4,
                    zorder=3,
                )
        for reference in _REFERENCES:
            for x_k, y_k in second_order.coordinates[(points["network"] == reference).to_numpy()]:
                ax.plot(x_k, y_k, "*", color=REFERENCE_COLOUR, markersize=9, zorder=4)
                text = ax.annotate(
                    reference, (x_k, y_k), xytext=(0, 7), textcoords="offset points", ha="center", fontweight="bold"
                )
                text.set_path_effects([withStroke(linewidth=2, foreground="white")])
        ax.set_aspect("equal", adjustable="datalim")
        ax.margins(0.08)
        ax.set_xlabel("MDS dimension 1")
        ax.set_ylabel("MDS dimension 2")
        distance = _in_words(second_order.comparison)
        ax.set_title(
            f"Distance between points: {distance} (stress {second_order.stress:.2f})", loc="left", fontsize=7.5
        )
        _legend(ax, look, markers)
    return ax


def _in_words(comparison: str) -> str:
    return {
        "correlation": "1 − Pearson correlation of RDMs",
        "normalized_euclidean": "Euclidean distance of RDMs of norm 1",
    }.get(comparison, f"1 − {comparison} similarity of RDMs")


def _legend(ax: Axes, look: Mapping[str, Look], markers: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=colour, linestyle=dashes, label=name) for name, (colour, dashes) in look.items()
    ]
    handles.append(Line2D([], [], linestyle="", label=""))
    handles += [
        Line2D([], [], color="0.4", marker=marker, linestyle="", markersize=5, label=layer or "output")
        for layer, marker in markers.items()
    ]
    ax.legend(
        handles=handles,
        title="Colour: network, shape: layer",
        title_fontsize=6.5,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        alignment="left",
        borderaxespad=0,
    )
