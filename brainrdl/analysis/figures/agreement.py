"""Agreement with the brain, per region and condition, between 0 and the noise ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from brainrdl.analysis.agreement import KINDS, check_scores
from brainrdl.analysis.figures.style import TEACHER_COLOUR, Look, Width, check_width, looks, new_figure, print_style
from brainrdl.analysis.inference import over_subjects

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_IN_WORDS = {"all": "all pairs", "within": "within category", "across": "across categories", "partial": "partial"}
# What a score is called on an axis.
MEASURES = {
    "spearman": "Spearman's ρ",
    "rho-a": "Spearman's ρₐ",
    "tau-a": "Kendall's τₐ",
    "corr": "Pearson's r",
    "cosine": "cosine",
    "corr_cov": "whitened r",
    "cosine_cov": "whitened cosine",
}
CEILING_COLOUR = "0.87"
# The teachers' lines, solid first; more than four are told apart by nothing but their place.
_DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")


def plot(
    table: pd.DataFrame,
    networks: Sequence[str] | None = None,
    pairs: str = "held_out",
    kinds: Sequence[str] | None = None,
    teacher: str = "teacher",
    width: Width = "double",
) -> Figure:
    """A column of panels a region, a row of panels a layer and kind of pairs, a line of points a network.

    Small points are subjects, the large one their mean with its 95 % t-interval. The grey band reaches from the lower
    to the upper noise ceiling (means over subjects), black lines are the teacher RDMs' own scores; triangles are above
    the upper ceiling, a subject's above its own.
    table: the subject-level table (`average_seeds`). networks: in order from the top, and all of the experiment's, so
    that each has its colour in every figure; None: those there are. kinds: None: those there are.
    teacher: the network whose rows are the teacher's (`as_model`); it has lines instead of points.
    width: "double" (180 mm), or "single" (85 mm) for one or two regions.
    Raises ValueError for missing columns, a subject that occurs twice, no such rows, or another width.
    """
    check_width(width)
    columns = ("network", "layer", "roi", "subject", "pairs", "kind", "score", "n_pairs", "ceiling_low", "ceiling_high")
    check_scores(table, columns, columns[:6])
    kinds = [kind for kind in KINDS if (table["kind"] == kind).any()] if kinds is None else list(kinds)
    table = table[(table["pairs"] == pairs) & table["kind"].isin(kinds)]
    of_teacher, table = table[table["network"] == teacher], table[table["network"] != teacher]
    if table.empty:
        raise ValueError(
            f"no scores of pairs '{pairs}' and kinds {', '.join(kinds)} but the teacher's; nothing to draw"
        )
    look = looks([*(networks or ()), *table["network"]])
    shown = {name: look[name] for name in look if name != teacher and (table["network"] == name).any()}
    scored = table.dropna(subset=["score"]).groupby(["layer", "kind"])
    rows = [
        (layer, kind) for layer in dict.fromkeys(table["layer"]) for kind in kinds if (layer, kind) in scored.groups
    ]
    if not rows:
        raise ValueError("every score is NaN; nothing to draw")
    rois, teachers = (list(dict.fromkeys(names)) for names in (table["roi"], of_teacher["layer"]))
    with print_style():
        handles = _legend(teachers)
        n_across = 1 if width == "single" else 3 if teachers else 4
        below = 0.6 + 0.15 * (-(-len(handles) // n_across))
        figure = new_figure(height=below + len(rows) * (0.35 + 0.2 * len(shown)), width=width)
        axes: Any = figure.subplots(len(rows), len(rois), sharex=True, sharey=True, squeeze=False)
        for k, (panels, (layer, kind)) in enumerate(zip(axes, rows, strict=True)):
            for ax, roi in zip(panels, rois, strict=True):
                here = (table["roi"] == roi) & (table["kind"] == kind) & (table["layer"] == layer)
                own = of_teacher[(of_teacher["roi"] == roi) & (of_teacher["kind"] == kind)]
                _panel(ax, table[here], own, teachers, shown)
                counts = _counts(table[here])
                # A narrow panel has no room for both on one line.
                counts = counts.replace(", ", "\n") if width == "single" else counts
                ax.set_title(("" if k else f"{roi}\n") + counts, fontsize=7)
            heading: dict[str, Any] = {"ha": "right", "va": "bottom", "fontweight": "bold"}
            panels[0].text(
                -0.02, 1.0, f"{layer or 'output'}\n{_IN_WORDS[kind]}", transform=panels[0].transAxes, **heading
            )
        axes[0, 0].set_ylim(len(shown) - 0.4, -0.6)
        measures = list(table["comparison"].unique()) if "comparison" in table else []
        for ax in axes[-1]:
            ax.set_xlabel(MEASURES[measures[0]] if len(measures) == 1 else "Agreement")
        figure.legend(handles=handles, loc="outside lower center", ncols=n_across)
    return figure


def _panel(
    ax: Axes, table: pd.DataFrame, teacher: pd.DataFrame, teachers: Sequence[str], shown: dict[str, Look]
) -> None:
    means = over_subjects(table).set_index("network") if len(table) else pd.DataFrame()
    if len(means):
        low, high = means["ceiling_low"].mean(), means["ceiling_high"].mean()
        # Nothing is drawn where there is no ceiling.
        if not np.isnan(low):
            ax.axvspan(low, high, color=CEILING_COLOUR, linewidth=0, zorder=0)
    for dashes, name in zip(_DASHES * 8, teachers, strict=False):
        own = teacher.loc[teacher["layer"] == name, "score"]
        ax.axvline(own.mean(), color=TEACHER_COLOUR, linestyle=dashes, linewidth=0.9, zorder=1)
    ax.axvline(0, color="0.6", linewidth=0.6, zorder=1)
    for place, (network, (colour, _)) in enumerate(shown.items()):
        if network not in means.index:
            continue
        subjects = table[table["network"] == network].dropna(subset=["score"])
        above = (subjects["score"] > subjects["ceiling_high"]).to_numpy()
        # Subjects lie below the mean, side by side where they are many, in the order of their names.
        heights = place + 0.22 + 0.1 * (np.arange(len(subjects)) % 3 - 1)
        for marker, rows in (("o", ~above), ("^", above)):
            style: dict[str, Any] = {"markersize": 2.2, "markeredgewidth": 0, "alpha": 0.55, "zorder": 2}
            ax.plot(subjects["score"].to_numpy()[rows], heights[rows], marker, color=colour, **style)
        mean = means.loc[network]
        marker = "^" if mean["above_ceiling"] else "o"
        style = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5, "zorder": 4}
        ax.plot([mean["low"], mean["high"]], [place - 0.12] * 2, color=colour, linewidth=1.4, zorder=3)
        ax.plot(mean["score"], place - 0.12, marker, color=colour, **style)
    ax.set_yticks(range(len(shown)), list(shown))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.05)


def _counts(table: pd.DataFrame) -> str:
    """How many subjects and pairs, as a range where they differ."""
    scored = table.dropna(subset=["score"])
    if scored.empty:
        return "no score"
    subjects, pairs = scored.groupby("network")["subject"].nunique(), scored["n_pairs"].round()
    (n, n_pairs) = (
        f"{values.min():.0f}" + (f"–{values.max():.0f}" if values.max() > values.min() else "")
        for values in (subjects, pairs)
    )
    return f"n = {n}, {n_pairs} pairs"


def _legend(teachers: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    grey: dict[str, Any] = {"color": "0.35", "linestyle": ""}
    return [
        Line2D([], [], marker="o", markersize=2.5, label="one subject", **grey),
        Line2D([], [], color="0.35", marker="o", markersize=5, label="mean, 95 % interval over subjects"),
        Line2D([], [], marker="^", markersize=4.5, label="above the upper ceiling", **grey),
        Patch(color=CEILING_COLOUR, label="noise ceiling, lower to upper"),
        *(
            Line2D([], [], color=TEACHER_COLOUR, linestyle=dashes, linewidth=0.9, label=f"teacher RDM itself ({layer})")
            for dashes, layer in zip(_DASHES * 8, teachers, strict=False)
        ),
    ]
