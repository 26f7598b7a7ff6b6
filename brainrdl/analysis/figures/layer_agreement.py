"""Agreement of fixed networks' layers with the brain: a panel a region, layers along depth, tests beneath."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from brainrdl.analysis.figures.agreement import CEILING_COLOUR, MEASURES
from brainrdl.analysis.figures.style import MILLIMETRE, PAGE, Look, Width, check_width, looks, new_figure, print_style
from brainrdl.analysis.figures.text import ENTRY, clipped, legend_columns, text_width
from brainrdl.analysis.fixed_networks import LayerAgreement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEVEL = 0.05
# q below these, and how large its sign is, in points.
_SIZES = {0.001: 4.4, 0.01: 3.2, _LEVEL: 2.1}
_STARS = {0.001: "***", 0.01: "**", _LEVEL: "*"}
_HIGHER, _LOWER = "#0072B2", "#D55E00"

_MOST_BRACKETS = 4  # RDMs in a panel; more of them have rows of signs
_LONG = 14  # letters of two networks' names on one line
# Inches: a row of signs, the least a layer takes of the width, a panel of scores, a letter of a name.
_ROW, _COLUMN, _SCORES, _LETTER = 0.11, 0.105, 1.6, 0.055
_LEAST_SCORES = 0.8  # where many panels stand one above the other
# Legend: how many entries stand side by side, at most.
_ACROSS = {"single": 2, "double": 4}
_ENTRY = 6.5  # points

_TESTS = {
    "fixed": "intervals and t-tests over subjects, on these stimuli",
    "bootstrap_rdm": "intervals and t-tests by bootstrap over subjects, on these stimuli",
    "bootstrap_pattern": "intervals and t-tests by bootstrap over stimuli, in these subjects",
    "dual_bootstrap": "intervals and t-tests by dual bootstrap, over subjects and stimuli",
}

_Key = tuple[str, str]  # network, layer


class _Columns(NamedTuple):
    """Where RDMs stand along x. overlaid: networks of the same layers share a column a layer.

    names: of the columns; colours: of their names; room: what the subjects of an RDM may take to each side.
    """

    x: dict[_Key, float]
    names: list[str]
    colours: list[str]
    room: float
    overlaid: bool


class _Row(NamedTuple):
    """Tests in a row of signs: at x, does `one` agree better than `other`?"""

    name: str
    colour: str
    cells: list[tuple[float, _Key, _Key]]


class _Layout(NamedTuple):
    """rows, of signs, and their height; scores: their panels'; note: in lines; handles, n_columns: of the legend.

    turned: the columns' names. Sizes in inches.
    """

    rows: list[_Row]
    signs: float
    scores: float
    note: list[str]
    handles: list[Any]
    n_columns: int
    n_across: int
    n_down: int
    turned: bool
    height: float


def plot(data: LayerAgreement, networks: Sequence[str] | None = None, width: Width = "double") -> Figure:
    """A panel a region: layers along x, a line a network, below the noise ceiling; pairwise tests above or beneath.

    Small points are subjects, large ones their mean with its 95 % interval: open where it is not shown to be above 0, a
    diamond where it is not shown to lie below the lower noise ceiling. The grey band reaches from the lower to the
    upper ceiling. One subject has no ceiling and no interval over subjects, and the panel says so.
    Up to 4 RDMs have brackets with stars where two differ. Of more, a triangle of signs beneath says whether the row's
    layer agrees better (up) or worse (down) than the column's, larger for smaller q; networks with the same layers are
    compared layer by layer. What would not fit on a page is left to the table, and the figure says so.
    data: of `layer_agreement`. networks: all of the experiment's in order, so that each has its colour in every figure;
    None: those there are. width: "single" (85 mm) or "double" (180 mm).
    Raises ValueError for another width, and for more regions than fit on a page.
    """
    check_width(width)
    look = looks([*(networks or ()), *data.means["network"]])
    columns = _columns(data.means, look)
    rois = list(dict.fromkeys(data.means["roi"]))
    tested = bool(data.pairwise["p"].notna().any())
    brackets = tested and not columns.overlaid and len(columns.x) <= _MOST_BRACKETS
    rows = [] if brackets or not tested else _rows(columns, look, list(dict.fromkeys(data.means["network"])))
    layout = _layout(data, columns, look, rows, len(rois), brackets, width)
    if layout.height > PAGE:
        layout = _layout(data, columns, look, [], len(rois), brackets, width)
    if layout.height > PAGE + 0.01:
        raise ValueError(
            f"{len(rois)} regions, {layout.n_across} side by side, do not fit on a page {PAGE / MILLIMETRE:.0f} mm "
            "high; choose some of them (brainrdl.rdms.select_rdms), fewer layers, or a larger figure (width='double')"
        )
    with print_style():
        figure = new_figure(layout.height, width)
        panels = _panels(figure, layout, len(rois))
        for k, (roi, panel) in enumerate(zip(rois, panels, strict=True)):
            first = k % layout.n_across == 0
            _scores(panel[0], data, roi, columns, look, check_width(width) / layout.n_across - 0.35)
            panel[0].set_ylabel(MEASURES[data.comparison] if first else "")
            if layout.rows:
                _signs(panel[1], data, roi, layout.rows, first)
            _name_columns(panel, columns, layout.turned)
        scores = [panel[0] for panel in panels]
        _share_y(scores, layout.n_across)
        if brackets:
            _brackets(scores, rois, data, columns)
        legend = figure.legend(
            handles=layout.handles,
            loc="outside lower left",
            ncols=layout.n_columns,
            title="\n".join(layout.note),
            alignment="left",
            columnspacing=1.2,
            handletextpad=0.5,
            fontsize=_ENTRY,
        )
        legend.get_title().set_fontsize(6)
    return figure


def _layout(
    data: LayerAgreement,
    columns: _Columns,
    look: Mapping[str, Look],
    rows: list[_Row],
    n_rois: int,
    brackets: bool,
    width: Width,
) -> _Layout:
    page = check_width(width)
    note = _note(data, bool(rows), columns.overlaid, brackets, page)
    beside = max((len(line) for row in rows for line in row.name.split("\n")), default=0)
    room = page - max(0.5, _LETTER * beside + 0.1)
    most = max(1, int(room / max(0.9, 0.1 + _COLUMN * len(columns.names))))
    n_across = -(-n_rois // -(-n_rois // most))  # lines of equal length
    n_down = -(-n_rois // n_across)
    longest = _LETTER * max(map(len, columns.names))
    turned = longest > 0.9 * room / n_across / len(columns.names)
    signs = _ROW * len(rows) * (2.2 if any("\n" in row.name for row in rows) else 1)
    handles = _legend(data, look, bool(rows), columns.overlaid)
    n_columns = legend_columns(handles, page, _ACROSS[width], _ENTRY)
    legend = ENTRY * -(-len(handles) // n_columns) + 0.1 * len(note) + 0.2
    around = 0.45 + signs + (longest if turned else 0.1)
    scores = max(min(_SCORES, (PAGE - legend) / n_down - around), _LEAST_SCORES)
    height = n_down * (scores + around) + legend
    return _Layout(rows, signs, scores, note, handles, n_columns, n_across, n_down, turned, height)


def _panels(figure: Figure, layout: _Layout, n_rois: int) -> list[list[Axes]]:
    """For each region the axes of its scores and, where there are rows of signs, theirs."""
    ratios = [layout.scores, layout.signs] if layout.rows else [layout.scores]
    grid: Any = figure.subplots(
        len(ratios) * layout.n_down, layout.n_across, sharex=True, squeeze=False, height_ratios=ratios * layout.n_down
    )
    panels = [list(line[:, k]) for line in np.split(grid, layout.n_down) for k in range(layout.n_across)]
    for ax in (ax for panel in panels[n_rois:] for ax in panel):
        ax.remove()
    return panels[:n_rois]


def _columns(means: pd.DataFrame, look: Mapping[str, Look]) -> _Columns:
    keys: list[_Key] = list(dict.fromkeys(zip(means["network"], means["layer"], strict=True)))
    layers: dict[str, list[str]] = {}
    for network, layer in keys:
        layers.setdefault(network, []).append(layer)
    several, first = len(layers) > 1, next(iter(layers.values()))
    if several and len(first) > 1 and all(names == first for names in layers.values()):
        step = 0.7 / len(layers)
        offset = {network: (k - (len(layers) - 1) / 2) * step for k, network in enumerate(layers)}
        x = {(network, layer): first.index(layer) + offset[network] for network, layer in keys}
        return _Columns(x, first, ["black"] * len(first), 0.3 * step, True)
    # Where each network has one RDM, the network names it.
    single = several and all(len(names) == 1 for names in layers.values())
    names = [(network if single else layer) or "output" for network, layer in keys]
    colours = [look[network].colour if several else "black" for network, _ in keys]
    return _Columns({key: float(k) for k, key in enumerate(keys)}, names, colours, 0.22, False)


def _rows(columns: _Columns, look: Mapping[str, Look], networks: list[str]) -> list[_Row]:
    if columns.overlaid:
        pairs = [(one, other) for k, other in enumerate(networks) for one in networks[k + 1 :]]
        return [
            _Row(
                f"{one} −\n{other}" if len(one + other) > _LONG else f"{one} − {other}",
                "black",
                [(float(k), (one, layer), (other, layer)) for k, layer in enumerate(columns.names)],
            )
            for one, other in pairs
        ]
    keys = list(columns.x)
    return [
        _Row(columns.names[k], columns.colours[k], [(columns.x[other], one, other) for other in keys[:k]])
        for k, one in enumerate(keys)
        if k
    ]


def _scores(ax: Axes, data: LayerAgreement, roi: str, columns: _Columns, look: Mapping[str, Look], room: float) -> None:
    """room: inches for the title."""
    means, scores = (table[table["roi"] == roi] for table in (data.means, data.scores))
    n_subjects, n_pairs = (int(means[name].iloc[0]) for name in ("n_subjects", "n_pairs"))
    title = f"n = {n_subjects}" if n_subjects > 1 else "one subject: no ceiling"
    whole = data.n_stimuli * (data.n_stimuli - 1) // 2
    if n_pairs < whole:
        title += f", {n_pairs} of {whole} pairs"
    if text_width(title, 7) > room:
        title = title.replace(": ", ":\n").replace(", ", ",\n")
    ax.set_title(f"{clipped(roi, room, 7)}\n{title}" if roi else title, fontsize=7)
    if not np.isnan(means["ceiling_low"].iloc[0]):
        ceiling = means.iloc[0][["ceiling_low", "ceiling_high"]]
        ax.axhspan(*ceiling.astype(float), color=CEILING_COLOUR, linewidth=0, zorder=0)
    ax.axhline(0, color="0.6", linewidth=0.6, zorder=1)
    for network, rows in means.groupby("network", sort=False):
        colour, dashes = look[str(network)]
        x = [columns.x[str(network), layer] for layer in rows["layer"]]
        ax.plot(x, rows["score"], dashes, color=colour, linewidth=0.9, zorder=3)
        for at, (_, row) in zip(x, rows.iterrows(), strict=True):
            own = scores[(scores["network"] == network) & (scores["layer"] == row["layer"])]
            if n_subjects > 1:
                spread = at + columns.room * np.linspace(-1, 1, n_subjects)
                ax.plot(spread, own["score"], "o", color=colour, markersize=1.8, markeredgewidth=0, alpha=0.5, zorder=2)
            ax.plot([at, at], [row["low"], row["high"]], color=colour, linewidth=1.3, zorder=4)
            below = row["q_ceiling"] < _LEVEL and row["score"] < row["ceiling_low"]
            style: dict[str, Any] = {"markersize": 4.2, "markeredgewidth": 0.8, "markeredgecolor": colour, "zorder": 5}
            ax.plot(
                at,
                row["score"],
                "o" if below or np.isnan(row["q_ceiling"]) else "D",
                color="white" if row["q_zero"] >= _LEVEL else colour,
                **style,
            )
    ax.set_xlim(-0.6, len(columns.names) - 0.4)


def _signs(ax: Axes, data: LayerAgreement, roi: str, rows: list[_Row], named: bool) -> None:
    tests = _tests(data, roi)
    for y, row in enumerate(rows):
        for x, one, other in row.cells:
            q, higher = tests[one, other]
            size = _level(q, _SIZES)
            if size is None:
                ax.plot(x, y, "o", color="0.75", markersize=1, markeredgewidth=0)
            else:
                marker, colour = ("^", _HIGHER) if higher else ("v", _LOWER)
                ax.plot(x, y, marker, color=colour, markersize=size, markeredgewidth=0)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=6)
    for label, row in zip(ax.get_yticklabels(), rows, strict=True):
        label.set_color(row.colour)
    ax.tick_params(axis="y", length=0, labelleft=named)
    ax.spines["left"].set_visible(False)


def _brackets(axes: Sequence[Axes], rois: Sequence[str], data: LayerAgreement, columns: _Columns) -> None:
    low, high = axes[0].get_ylim()
    step = 0.1 * (high - low)
    most = 0
    for ax, roi in zip(axes, rois, strict=True):
        tests = _tests(data, roi)
        keys = list(columns.x)
        found = [
            (columns.x[one], columns.x[other], _level(tests[one, other][0], _STARS))
            for k, one in enumerate(keys)
            for other in keys[k + 1 :]
        ]
        found = sorted((f for f in found if f[2]), key=lambda f: f[1] - f[0])
        for k, (left, right, stars) in enumerate(found):
            y = high + step * (k + 0.2)
            ax.plot([left + 0.05, right - 0.05], [y, y], color="0.2", linewidth=0.8)
            ax.text((left + right) / 2, y - 0.05 * step, str(stars), ha="center", va="bottom", fontsize=7)
        most = max(most, len(found))
    for ax in axes:
        ax.set_ylim(low, high + step * (most + 0.3) if most else high)


def _name_columns(panel: Sequence[Axes], columns: _Columns, turned: bool) -> None:
    turn: dict[str, Any] = {"rotation": 90, "va": "top"} if turned else {}
    for ax in panel:
        ax.set_xticks(range(len(columns.names)), columns.names, fontsize=6, **turn)
        ax.tick_params(axis="x", labelbottom=ax is panel[-1])
    for label, colour in zip(panel[-1].get_xticklabels(), columns.colours, strict=True):
        label.set_color(colour)


def _share_y(axes: Sequence[Axes], n_across: int) -> None:
    limits = np.array([ax.get_ylim() for ax in axes])
    for k, ax in enumerate(axes):
        ax.set_ylim(limits.min(), limits.max())
        ax.tick_params(axis="y", labelleft=k % n_across == 0)


def _tests(data: LayerAgreement, roi: str) -> dict[tuple[_Key, _Key], tuple[float, bool]]:
    """For every two RDMs, either way round: q, and whether the first agrees better."""
    tests = {}
    for row in data.pairwise[data.pairwise["roi"] == roi].to_dict("records"):
        one, other = (row["network_a"], row["layer_a"]), (row["network_b"], row["layer_b"])
        tests[one, other] = row["q"], row["difference"] > 0
        tests[other, one] = row["q"], row["difference"] < 0
    return tests


def _level(q: float, table: Mapping[float, Any]) -> Any:
    """What the table has for the smallest level that q is below; None: q is below none, or NaN."""
    return next((value for level, value in table.items() if q < level), None)


def _legend(data: LayerAgreement, look: Mapping[str, Look], rows: bool, overlaid: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    grey: dict[str, Any] = {"color": "0.35", "linestyle": ""}
    networks = list(dict.fromkeys(data.means["network"]))
    handles: list[Any] = []
    if len(networks) > 1:
        handles = [
            Line2D([], [], color=look[name].colour, linestyle=look[name].dashes, marker="o", markersize=4, label=name)
            for name in networks
        ]
    means = data.means
    if (means["n_subjects"] > 1).any():
        handles.append(Line2D([], [], marker="o", markersize=2.2, label="one subject", **grey))
    interval = "mean, 95 % interval" if means["low"].notna().any() else "score"
    handles.append(Line2D([], [], color="0.35", marker="o", markersize=4.2, label=interval))
    if (means["q_zero"] >= _LEVEL).any():
        open_: dict[str, Any] = {"markerfacecolor": "white", "markeredgewidth": 0.8, **grey}
        handles.append(Line2D([], [], marker="o", markersize=4.2, label="not shown above 0", **open_))
    if means["ceiling_low"].notna().any():
        reached = (means["q_ceiling"] >= _LEVEL) | (means["score"] >= means["ceiling_low"])
        if (reached & means["q_ceiling"].notna()).any():
            handles.append(Line2D([], [], marker="D", markersize=4.2, label="not shown below ceiling", **grey))
        handles.append(Patch(color=CEILING_COLOUR, label="noise ceiling"))
    if rows:
        than = "first network" if overlaid else "than column's layer"
        for marker, colour, word in (("^", _HIGHER, "better"), ("v", _LOWER, "worse")):
            label = f"{than} {word}" if overlaid else f"{word} {than}"
            handles.append(Line2D([], [], marker=marker, markersize=4.2, linestyle="", color=colour, label=label))
    return handles


def _note(data: LayerAgreement, rows: bool, overlaid: bool, brackets: bool, page: float) -> list[str]:
    """What the figure rests on, in lines of the page's width."""
    words = [f"{data.n_stimuli} stimuli"]
    if data.means["p_zero"].notna().any():
        words.append(_TESTS[data.inference])
        words.append("p adjusted for the false discovery rate over all regions and layers (q)")
    else:
        words.append("one subject: no interval, no tests")
    if rows:
        if overlaid:
            words.append("tests between layers: see the table")
        words.append("signs, from small to large: q\N{NO-BREAK SPACE}< 0.05, 0.01, 0.001; dot: not significant")
    elif brackets:
        words += [f"{stars} q < {level}".replace(" ", "\N{NO-BREAK SPACE}") for level, stars in _STARS.items()]
    elif len(data.pairwise) and data.pairwise["p"].notna().any():
        words.append("pairwise tests: see the table")
    return textwrap.wrap("; ".join(words) + ".", int(page * 72 / 3.4))
