"""What an RDM's colours mean: ranked or raw dissimilarities, their limits, and the bar that says so."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from brainrdl.analysis.figures.text import LINE, SMALL, text_width
from brainrdl.rdms import measure_name
from brainrdl.rdms.checks import check_finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from rsatoolbox.rdm import RDMs


SCALES = ("percentile", "raw")
# Below this share of the largest dissimilarity, a negative one is rounding.
_ROUNDING = 1e-6


class Shades(NamedTuple):
    """What RDMs' colours are.

    values: (n_rdms, n_pairs) as drawn, NaN = not measured. limits: per RDM, of its colours. colours: the colour map's
    name. label: what the bar says. own: each RDM has limits of its own, which `ranges` names in words.
    """

    values: np.ndarray
    limits: tuple[tuple[float, float], ...]
    colours: str
    label: str
    own: bool
    ranges: tuple[str, ...]


def shade(rdms: RDMs, scale: str = "percentile", shared: bool = False) -> Shades:
    """Colours of the RDMs: ranked ("percentile") or as they are ("raw"), each by itself or (shared) over all of them.

    Raises ValueError for an unknown scale and for infinite dissimilarities.
    """
    if scale not in SCALES:
        raise ValueError(f"unknown scale '{scale}' of RDMs; expected one of {', '.join(SCALES)}")
    vectors = rdms.dissimilarities
    check_finite(vectors, [str(k) for k in range(rdms.n_cond)], "RDMs to draw")
    measure = measure_name(rdms.dissimilarity_measure)
    label = f"Dissimilarity ({measure})" if measure else "Dissimilarity"
    several = rdms.n_rdm > 1
    if scale == "percentile":
        ends = "(0 = smallest, 100 = largest)"
        if several:
            label += ", ranked over all RDMs together" if shared else ", ranked within each RDM"
            ends = "(0 = smallest of all, 100 = largest)" if shared else "(0 = its smallest, 100 = its largest)"
        else:
            label += ", ranked"
        limits = ((0.0, 100.0),) * rdms.n_rdm
        return Shades(_percentiles(vectors, shared), limits, "viridis", f"{label}\n{ends}", False, ("",) * rdms.n_rdm)
    negative = bool(np.nanmin(vectors, initial=0) < -_ROUNDING * np.nanmax(np.abs(vectors), initial=0))
    parts = [vectors] * rdms.n_rdm if shared else list(vectors)
    limits = tuple(_limits(part, measure == "crossnobis", negative) for part in parts)
    if several:
        label += ", all RDMs on one scale" if shared else ", each RDM on the scale given below it"
    if negative:
        label += "\n(white = 0, blue = below it)"
    ranges = tuple(_range(vector) for vector in vectors)
    return Shades(vectors, limits, "RdBu_r" if negative else "viridis", label, several and not shared, ranges)


def add_bar(figure: Any, axes: Sequence[Axes], shades: Shades) -> Colorbar:
    """The colour bar below `axes`, with what the hatching means where any pair was not measured."""
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    missing = bool(np.isnan(shades.values).any())
    room = figure.bbox.width / figure.dpi
    norm = Normalize(0, 1) if shades.own else Normalize(*shades.limits[0])
    mappable = ScalarMappable(norm, matplotlib.colormaps[shades.colours])
    # On the left where the hatching is explained beside it.
    length, anchor = (0.45, (0.0, 1.0)) if missing else (0.55, (0.5, 1.0))
    length = min(length, 3.2 / room)
    bar: Colorbar = figure.colorbar(
        mappable,
        ax=axes,
        location="bottom",
        shrink=length,
        aspect=length * 10 * room,
        pad=0.02,
        anchor=anchor,
        panchor=False,
    )
    bar.set_label("\n".join(_bar_lines(shades, room)), loc="left" if missing else "center")
    bar.outline.set_linewidth(0.5)
    if shades.own:
        diverging = shades.limits[0][0] == -shades.limits[0][1]
        words = ["−its largest", "0", "its largest"] if diverging else ["its smallest", "its largest"]
        bar.set_ticks(list(np.linspace(0, 1, len(words))), labels=words)
    if missing:
        bar.ax.legend(
            handles=[Patch(label="not measured", **hatched())],
            loc="center left",
            bbox_to_anchor=(1.05, 0.5),
            borderaxespad=0,
            handlelength=1.4,
            handletextpad=0.5,
        )
    return bar


def range_height(shades: Shades, side: float) -> float:
    """Inches that the RDMs' ranges take up below RDMs of `side` inches: a line, or two where one is too long."""
    if not shades.own:
        return 0.0
    return LINE if all(text_width(text, SMALL) < side for text in shades.ranges) else 2 * LINE


def bar_height(shades: Shades, room: float) -> float:
    """Inches that the bar takes up with its words, in a figure of so many inches."""
    return 0.42 + 0.13 * len(_bar_lines(shades, room))


def _percentiles(vectors: np.ndarray, shared: bool) -> np.ndarray:
    """Ranks as 0…100, the smallest 0 and the largest 100, equal dissimilarities alike; NaN stays NaN."""
    from scipy.stats import rankdata

    parts = [vectors] if shared else list(vectors)
    scaled = []
    for part in parts:
        ranks = rankdata(part, axis=None, nan_policy="omit").reshape(part.shape)
        ranks -= np.nanmin(ranks, initial=np.inf)
        largest = np.nanmax(ranks, initial=0)
        scaled.append(100 * ranks / (largest if largest > 0 else 1))
    return scaled[0] if shared else np.stack(scaled)


def _limits(values: np.ndarray, zero_counts: bool, negative: bool) -> tuple[float, float]:
    """Of pairs alone: a diagonal of zeros would take up half the colours where zero is far."""
    measured = values[~np.isnan(values)]
    if not len(measured):
        return 0.0, 1.0
    low, high = float(measured.min()), float(measured.max())
    if negative:
        largest = max(-low, high) or 1.0
        return -largest, largest
    if zero_counts:
        low = min(low, 0.0)
    return low, high if high > low else low + (abs(low) or 1.0)


def _range(vector: np.ndarray) -> str:
    """Smallest and largest with as many decimals as the larger of them needs."""
    measured = vector[~np.isnan(vector)]
    if not len(measured):
        return ""
    largest = np.abs(measured).max()
    decimals = 2 - int(np.floor(np.log10(largest))) if largest > 0 else 0
    form = f".{max(decimals, 0)}f" if -2 <= decimals <= 5 else ".2e"
    return f"{measured.min():{form}} … {measured.max():{form}}".replace("-", "−")


def _bar_lines(shades: Shades, room: float) -> list[str]:
    """The bar's words in lines that fit below RDMs, which take up most of a figure `room` inches wide."""
    lines: list[str] = []
    for line in shades.label.splitlines():
        letters = int(0.7 * room / text_width(line, 7.5) * len(line))
        parts = [line] if len(line) <= letters else line.replace(", ", ",\n", 1).splitlines()
        lines += [piece for part in parts for piece in wrap(part, letters)]
    return lines


def hatched() -> dict[str, Any]:
    # Grey, since white is a colour of maps centred on 0; dense, so that a single pair shows it.
    return {"facecolor": "0.87", "edgecolor": "0.45", "hatch": "/" * 14, "linewidth": 0}
