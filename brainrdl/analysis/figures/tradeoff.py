"""What agreement with the brain costs the task: accuracy against agreement over alpha, the auxiliary error's weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from brainrdl.analysis.figures.style import looks, new_figure, print_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Places of a label around its point, in points, in order of preference.
_OFFSETS = [
    (far * x, far * y)
    for far in (1, 1.7, 2.4)
    for x, y in ((0, 7), (0, -7), (12, 0), (-12, 0), (9, 6), (-9, 6), (9, -6))
]
_COLUMNS = ("roi", "alpha", "seed", "accuracy", "score")


def plot(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A line a region through its means over seeds, in the order of alpha, which stands at each point; seeds are faint.

    table: a row a region, alpha and seed: roi, alpha, seed, accuracy on the task (a fraction), score (agreement, mean
    over subjects). Rows with a NaN are not drawn. ax: where to draw; None makes a figure (`ax.figure`).
    Raises ValueError for missing columns, a seed that occurs twice, or nothing to draw.
    """
    for name in _COLUMNS:
        if name not in table:
            raise ValueError(
                f"table of accuracies and scores: column '{name}' is missing; expected {', '.join(_COLUMNS)}"
            )
    repeated = table.duplicated(["roi", "alpha", "seed"])
    if repeated.any():
        row = table[repeated].iloc[0]
        raise ValueError(
            f"table of accuracies and scores: roi {row['roi']}, alpha {row['alpha']}, seed {row['seed']} occurs twice; "
            "average layers, folds and subjects first, or choose among them"
        )
    table = table.dropna(subset=["accuracy", "score"])
    if table.empty:
        raise ValueError("table of accuracies and scores: no row has both; nothing to draw")
    look = looks(table["roi"])
    with print_style():
        if ax is None:
            ax = new_figure(height=3.2).subplots()
        means = table.groupby(["roi", "alpha"])[["score", "accuracy"]].mean()
        for roi, (colour, _) in look.items():
            seeds, mean = table[table["roi"] == roi], means.loc[roi]
            faint: dict[str, Any] = {"markersize": 2.5, "markeredgewidth": 0, "alpha": 0.35}
            ax.plot(seeds["score"], 100 * seeds["accuracy"], "o", color=colour, zorder=2, **faint)
            ax.plot(mean["score"], 100 * mean["accuracy"], color=colour, linewidth=0.9, alpha=0.7, zorder=3)
            style: dict[str, Any] = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
            ax.plot(mean["score"], 100 * mean["accuracy"], "o", color=colour, label=roi, zorder=4, **style)
        ax.margins(0.1)
        region = next(iter(look)) if len(look) == 1 else "the brain"
        ax.set_xlabel(f"Agreement with {region}, mean over subjects")
        ax.set_ylabel("Task accuracy (%)")
        ax.set_title("At each point: α; large: mean over seeds", loc="left", fontsize=7.5)
        if len(look) > 1:
            ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, title="Region", alignment="left")
        points = np.column_stack([means["score"], 100 * means["accuracy"]])
        colours = [look[roi].colour for roi, _ in means.index]
        _label(ax, points, [f"{alpha:g}" for _, alpha in means.index], colours)
    return ax


def _label(ax: Axes, points: np.ndarray, labels: list[str], colours: list[str]) -> None:
    """Write each label beside its point, at the nearest place that covers no point, line or label, or least of them.

    points: (n_points, 2), in the axes' units; those of one colour are joined by a line, in order.
    """
    figure: Any = ax.figure
    # Where things come to lie is known only once the figure is laid out.
    figure.draw_without_rendering()
    point_size = figure.dpi / 72
    places = ax.transData.transform(points)
    # Squares (x0, y0, x1, y1) in pixels: of the points, along the lines, then of each label written.
    taken = [np.concatenate([place - 3 * point_size, place + 3 * point_size]) for place in places]
    for k in range(1, len(places)):
        if colours[k] == colours[k - 1]:
            between = np.linspace(places[k - 1], places[k], 50)
            taken += list(np.concatenate([between - 0.6 * point_size, between + 0.6 * point_size], axis=1))
    for point, text, colour in zip(points, labels, colours, strict=True):
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5, "color": colour, "zorder": 5}
        label = ax.annotate(text, tuple(point), xytext=(0, 0), textcoords="offset points", **style)
        box = label.get_window_extent().extents
        boxes = {offset: box + point_size * np.array([*offset, *offset]) for offset in _OFFSETS}
        label.xyann = min(boxes, key=lambda offset: _covered(boxes[offset], np.array(taken)))
        taken.append(boxes[label.xyann])


def _covered(box: np.ndarray, others: np.ndarray) -> float:
    """The area of `box` (x0, y0, x1, y1) that lies on the others (n_boxes, 4)."""
    shared = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return float(shared.clip(min=0).prod(axis=1).sum())
