"""What agreement with the brain costs the task: accuracy against agreement over alpha, the auxiliary error's weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from brainrdl.analysis.figures.labels import label_points
from brainrdl.analysis.figures.style import looks, new_figure, print_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        rois = means.index.get_level_values("roi")
        figure: Any = ax.figure.canvas.figure
        figure.draw_without_rendering()
        label_points(
            ax,
            points,
            [f"{alpha:g}" for alpha in means.index.get_level_values("alpha")],
            [look[roi].colour for roi in rois],
            lines=[points[rois == roi] for roi in look],
        )
    return ax
