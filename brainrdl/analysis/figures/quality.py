"""One page on measured RDMs: how they look, how reliable they are, what noise leaves possible, on how many voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from brainrdl.analysis.figures.rdm import draw_rdm
from brainrdl.analysis.figures.rdm_colours import shade
from brainrdl.analysis.figures.rdm_sides import arrange, draw_sides
from brainrdl.analysis.figures.style import MILLIMETRE, PAGE, WIDTH, looks, new_figure, print_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs

_LARGEST = 55 * MILLIMETRE  # of an RDM
_BELOW, _AROUND = 2.2, 0.8  # inches: under all RDMs, and beside each
_ROIS_A_ROW = 4
_RELIABILITIES = {"rdm_reliability": "RDM", "pattern_reliability": "patterns"}


def plot(rdms: RDMs, table: pd.DataFrame, title: str = "") -> Figure:
    """Each region's RDM, the mean over subjects and sessions; below, a dot a subject: reliability, ceilings, voxels.

    NaN in an RDM (not measured) is hatched. Of more regions than fit on a page the first ones are shown, and the title
    says so: `n_shown`.

    rdms: pattern_descriptor category, where there is one, sorts and names. table: a row an RDM, in their order, with
    the columns subject and roi, ceiling_low, ceiling_high, n_voxels (or n_stimuli) and, where they are known,
    rdm_reliability, pattern_reliability, ceiling_within. title: above the figure.
    Raises ValueError for other numbers of rows than RDMs.
    """
    if len(table) != rdms.n_rdm:
        raise ValueError(f"the quality figure needs a row an RDM, got {len(table)} rows for {rdms.n_rdm} RDMs")
    n_rois = table["roi"].nunique()
    rois = list(dict.fromkeys(table["roi"]))[: n_shown(n_rois)]
    if len(rois) < n_rois:
        title = f"{title}: the first {len(rois)} of {n_rois} regions".removeprefix(": ")
        shown = np.flatnonzero(table["roi"].isin(rois))
        rdms, table = rdms[shown], table.iloc[shown]
    n_columns = min(max(len(rois), 2), _ROIS_A_ROW)
    n_rows = -(-len(rois) // n_columns)
    with print_style():
        cell = _side(n_columns)
        height = n_rows * (cell + _AROUND) + 0.2
        figure = new_figure(width=WIDTH, height=height + _BELOW, padding=0.06)
        above, below = figure.subfigures(2, 1, height_ratios=[height, _BELOW], squeeze=False).flat
        means = _mean_rdms(rdms, [np.flatnonzero(table["roi"] == roi) for roi in rois])
        shades, sides = shade(means, "raw")._replace(own=False), arrange(means)
        hatched = " (hatched: not measured)" if np.isnan(shades.values).any() else ""
        above.suptitle(f"{title}{hatched}".strip(), fontsize=8.5)
        for k, roi in enumerate(rois):
            ax = above.add_subplot(n_rows, n_columns, k + 1)
            n_subjects = table.loc[table["roi"] == roi, "subject"].nunique()
            draw_rdm(ax, shades, k, sides, cell, f"{roi}\n{n_subjects} subject{'s' * (n_subjects > 1)}")
            draw_sides(ax, sides, cell, left=k % n_columns == 0)
            measure = rdms.dissimilarity_measure or "dissimilarity"
            bar = above.colorbar(ax.images[0], ax=ax, shrink=0.8, label=measure)
            bar.outline.set_linewidth(0.5)
        reliability, ceilings, voxels = below.subplots(1, 3)
        _reliabilities(reliability, table, rois)
        _ceilings(ceilings, table, rois)
        _counts(voxels, table, rois)
        for ax in (reliability, ceilings, voxels):
            ax.set_xticks(range(len(rois)), rois, rotation=90 if max(map(len, rois)) * len(rois) > 24 else 0)
            ax.set_xlim(-0.6, len(rois) - 0.4)
    return figure


def n_shown(n_rois: int) -> int:
    """How many regions, of so many, `plot` shows."""
    n_rows = int((PAGE - _BELOW - 0.2) / (_side(_ROIS_A_ROW) + _AROUND))
    return min(n_rois, n_rows * _ROIS_A_ROW)


def _side(n_columns: int) -> float:
    """Of an RDM, in inches."""
    return min((WIDTH - 0.5) / n_columns - 0.7, _LARGEST)


def _reliabilities(ax: Axes, table: pd.DataFrame, rois: list[str]) -> None:
    ax.set_title("Reliability (split half, Spearman-Brown)")
    ax.set_ylabel("Pearson's r")
    ax.axhline(0, color="0.6", linewidth=0.6)
    there = [column for column in _RELIABILITIES if column in table and table[column].notna().any()]
    for k, (column, look) in enumerate(looks(there).items()):
        _dots(ax, table, rois, column, (k - (len(there) - 1) / 2) * 0.3, look.colour, _RELIABILITIES[column])
    ax.set_ylim(min(0, ax.get_ylim()[0]), 1)
    _legend_or_reason(ax, bool(there), "not known: no repeated\nmeasurements to compare")


def _ceilings(ax: Axes, table: pd.DataFrame, rois: list[str]) -> None:
    ax.set_title("Noise ceiling of the RDM")
    ax.set_ylabel("Pearson's r")
    between = table.groupby("roi")[["ceiling_low", "ceiling_high"]].mean().reindex(rois)
    known = between["ceiling_low"].notna().to_numpy()
    where = np.flatnonzero(known)
    height = (between["ceiling_high"] - between["ceiling_low"])[known]
    label = "between subjects, mean"
    if known.any():
        ax.bar(where, height, 0.7, bottom=between["ceiling_low"][known], color="0.8", label=label)
    within = "ceiling_within" in table and bool(table["ceiling_within"].notna().any())
    if within:
        _dots(ax, table, rois, "ceiling_within", 0, looks(["within"])["within"].colour, "within a subject")
    ax.set_ylim(min(0, ax.get_ylim()[0]), 1)
    _legend_or_reason(ax, within or bool(known.any()), "no ceiling: one subject,\nno repeated measurements")


def _counts(ax: Axes, table: pd.DataFrame, rois: list[str]) -> None:
    column, name = ("n_voxels", "Voxels") if "n_voxels" in table else ("n_stimuli", "Stimuli")
    ax.set_title(f"{name} of a subject")
    ax.set_ylabel("Number")
    _dots(ax, table, rois, column, 0, "0.3", "")
    ax.set_ylim(0, 1.1 * table[column].max())


def _dots(ax: Axes, table: pd.DataFrame, rois: list[str], column: str, shift: float, colour: str, label: str) -> None:
    """A dot a subject, side by side so that equal values can be told apart."""
    for k, roi in enumerate(rois):
        values = table[table["roi"] == roi].groupby("subject")[column].mean().to_numpy(dtype=float)
        x = k + shift + np.linspace(-0.1, 0.1, len(values)) * (len(values) > 1)
        ax.plot(x, values, "o", markersize=3.5, color=colour, alpha=0.7, label=label if k == 0 else None)


def _legend_or_reason(ax: Axes, shown: bool, reason: str) -> None:
    if shown:
        # Framed, so that its dots are not taken for points.
        ax.legend(loc="best", frameon=True, fancybox=False, edgecolor="0.7")
    else:
        ax.set_yticks([])
        ax.text(0.5, 0.5, reason, ha="center", va="center", transform=ax.transAxes)


def _mean_rdms(rdms: RDMs, rows: list[np.ndarray]) -> RDMs:
    """An RDM for each group of rows: the mean over what was measured, NaN where nothing was."""
    from rsatoolbox.rdm import RDMs

    means = []
    for k in rows:
        vectors = rdms.dissimilarities[k]
        measured = ~np.isnan(vectors)
        total = np.where(measured, vectors, 0).sum(0)
        means.append(np.divide(total, measured.sum(0), out=np.full(total.shape, np.nan), where=measured.any(0)))
    patterns = {name: list(values) for name, values in rdms.pattern_descriptors.items() if name != "index"}
    return RDMs(np.stack(means), rdms.dissimilarity_measure, pattern_descriptors=patterns)
