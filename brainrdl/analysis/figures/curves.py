"""Train and test error against epoch, every method (Figs. 2 and 5, McClure & Kriegeskorte 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from brainrdl.analysis.figures.style import Look, looks, new_figure, print_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = {"train_error": "Training images", "test_error": "Test images"}


def plot(histories: pd.DataFrame, methods: Sequence[str] | None = None) -> Figure:
    """Two panels, train and test: a line a method, its mean over seeds, in a band from the best to the worst seed.

    histories: columns method, seed, epoch (from 0), train_error, test_error (fractions). An epoch is drawn where
    every seed of the method has it. The error axis is logarithmic down to the smallest error, linear from there to 0.
    methods: all methods of the experiment in order, so that each has its colour in every figure; None: those there are.
    Raises ValueError for missing columns or no rows.
    """
    missing = [name for name in ("method", "seed", "epoch", *_PANELS) if name not in histories]
    if missing:
        raise ValueError(
            f"histories: column '{missing[0]}' is missing; expected method, seed, epoch, {', '.join(_PANELS)}"
        )
    if histories.empty:
        raise ValueError("histories hold no epoch; nothing to draw")
    look = looks([*(methods or ()), *histories["method"]])
    with print_style():
        figure = new_figure(height=3.0)
        axes = figure.subplots(1, 2, sharex=True)
        for ax, (column, title) in zip(axes, _PANELS.items(), strict=True):
            _panel(ax, histories, column, look)
            ax.set_title(title)
            ax.set_xlabel("Epochs of training")
        axes[0].set_ylabel("Error (%)")
        handles, labels = axes[1].get_legend_handles_labels()
        n_seeds = histories.groupby("method")["seed"].nunique().max()
        note = "line: mean over seeds\nband: best to worst seed" if n_seeds > 1 else None
        legend = figure.legend(handles, labels, loc="outside right center", title=note, alignment="left")
        legend.get_title().set_fontsize(6.5)
    return figure


def _panel(ax: Axes, histories: pd.DataFrame, column: str, look: Mapping[str, Look]) -> None:
    from matplotlib.ticker import MaxNLocator

    drawn = []
    for method in (name for name in look if (histories["method"] == name).any()):
        colour, dashes = look[method]
        rows = histories[histories["method"] == method]
        percent = 100 * rows.pivot(index="epoch", columns="seed", values=column).dropna()
        epochs = percent.index.to_numpy() + 1
        label: Any = method
        ax.fill_between(epochs, percent.min(axis=1), percent.max(axis=1), color=colour, alpha=0.18, linewidth=0)
        # One epoch alone makes no line.
        marker = "o" if len(epochs) == 1 else None
        ax.plot(epochs, percent.mean(axis=1), dashes, color=colour, marker=marker, markersize=3, label=label)
        drawn.append(percent.to_numpy().ravel())
    _error_axis(ax, np.concatenate(drawn))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.grid(axis="y", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)


def _error_axis(ax: Axes, percent: np.ndarray) -> None:
    """Ticks at 1, 2 and 5 of a decade (of many: at 1), as plain numbers; room for an error of exactly 0."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    positive = percent[percent > 0]
    smallest, largest = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    ax.set_yscale("symlog", linthresh=smallest, linscale=0.3)
    has_zero = bool((percent == 0).any())
    low, high = smallest / 1.15, min(largest * 1.15, 100)
    decades = 10.0 ** np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 1)
    ticks = np.outer(decades, [1, 2, 5] if high / low < 1e4 else [1]).ravel()
    ticks = ticks[ticks <= 100]
    if ((ticks >= low) & (ticks <= high)).sum() < 2:
        low, high = ticks[ticks <= low].max(), ticks[ticks >= high].min()
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    # A little below 0, so that a line at 0 is not hidden by the axis.
    ax.set_ylim(-0.15 * smallest if has_zero else low, high)
    ax.yaxis.set_major_locator(FixedLocator([0.0, *ticks] if has_zero else list(ticks)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
