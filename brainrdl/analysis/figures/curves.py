"""Error, loss terms, alpha and RDM agreement against epoch, every method (Figs. 2 and 5, McClure & Kriegeskorte)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from brainrdl.analysis.figures.agreement import MEASURES
from brainrdl.analysis.figures.style import Look, Width, check_width, figure_of, looks, new_figure, print_style
from brainrdl.analysis.figures.text import ENTRY, legend_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ERRORS = ("train_error", "validation_error", "test_error")
_AGREEMENT = "agreement/"
# What a history has besides quantities; `n_pairs/...` are counts of pairs behind a loss term.
_KEYS = ("method", "seed", "split", "fold", "stage", "epoch")
_TRAINING = ("seed", "split", "fold")
_NO_QUANTITY = (*_KEYS, "learning_rate")
_MAIN = "main"
# Where not every epoch was looked at, those that were are marked by points, as long as they are few.
_MOST_POINTS = 30
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Of the figure's width, what a legend beside the axes takes at most.
_BESIDE = 0.3
_LONG = 24  # letters of a title on one line


def plot(
    histories: pd.DataFrame,
    methods: Sequence[str] | None = None,
    quantities: Sequence[str] | None = ("train_error", "test_error"),
    agreement: pd.DataFrame | None = None,
    ax: Axes | None = None,
    width: Width = "double",
) -> Figure:
    """A panel a quantity: a line a method, its mean over seeds, in a band from the lowest to the highest seed.

    histories: the rows of history.csv with the columns method and seed (and split and fold, where a seed was trained
    on several); epoch is from 0, drawn as the number of epochs trained; errors are fractions, drawn in percent. An
    epoch is drawn where every seed of the method that has the quantity has it; NaN: not measured.
    methods: all methods of the experiment in order, so that each has its colour in every figure; None: those there are.
    quantities: columns of the histories, or "agreement/LAYER"; None: all that `available` lists. agreement: the table
    of `agreement_history`; epoch -1, before training, is drawn at 0.
    The axis of an error, a loss or alpha is logarithmic where values span more than a decade, linear near 0 where there
    are zeros too. A dotted line stands where a method's main stage begins, if another came first.
    ax: draw one quantity there, its legend inside. width: "single" (85 mm) or "double" (180 mm).
    Raises ValueError for missing columns, no rows, an epoch that occurs twice, quantities that are not there or have no
    value, and several quantities for one `ax`.
    """
    check_width(width)
    table = _merged(histories, agreement)
    quantities = _checked(quantities, table)
    if ax is not None and len(quantities) > 1:
        raise ValueError(f"expected one quantity to draw into `ax`, got {len(quantities)}: {', '.join(quantities)}")
    look = looks([*(methods or ()), *table["method"]])
    with print_style():
        if ax is not None:
            _panel(ax, table, quantities[0], look)
            ax.set_xlabel("Epochs of training")
            ax.legend(handles=_legend(table, quantities, look))
            return figure_of(ax)
        n_across = min(len(quantities), 2 if width == "single" else 4 if len(quantities) > 3 else 3)
        n_down = -(-len(quantities) // n_across)
        beside = width == "double" and n_across < 4
        legend = _legend(table, quantities, look)
        room = check_width(width) * (_BESIDE if beside else 1)
        columns = legend_columns(legend, room, 1 if beside else 2 if width == "single" else 4)
        lines = ENTRY * -(-len(legend) // columns) + 0.45
        height = n_down * (2.6 if beside else 1.55) + 0.3
        figure = new_figure(max(height, lines) if beside else height + lines, width)
        axes: Any = figure.subplots(n_down, n_across, sharex=True, squeeze=False).ravel()
        for panel, quantity in zip(axes, quantities, strict=False):
            _panel(panel, table, quantity, look)
        for panel in axes[len(quantities) :]:
            panel.remove()
        # Axes above a gap have the ticks of the one that is not there.
        for panel in axes[: len(quantities)][-n_across:]:
            panel.tick_params(labelbottom=True)
            panel.set_xlabel("Epochs of training")
        _add_legend(figure, legend, _note(table, quantities, agreement), beside, columns)
    return figure


def available(histories: pd.DataFrame, agreement: pd.DataFrame | None = None) -> tuple[str, ...]:
    """The quantities that have a value, in the figure's order: errors, loss terms, alpha, agreement of each layer."""
    table = _merged(histories, agreement)
    there = [name for name in map(str, table) if name not in _NO_QUANTITY and table[name].notna().any()]
    first = [*ERRORS, "task"]
    terms = [name for name in there if name not in first and not name.startswith(("n_pairs/", "alpha", _AGREEMENT))]
    alphas = [name for name in there if name.startswith("alpha")]
    layers = [name for name in there if name.startswith(_AGREEMENT)]
    return tuple([name for name in first if name in there] + terms + alphas + layers)


def _merged(histories: pd.DataFrame, agreement: pd.DataFrame | None) -> pd.DataFrame:
    """The histories with a column a layer for its agreement."""
    for name in ("method", "seed", "epoch"):
        if name not in histories:
            raise ValueError(
                f"histories: column '{name}' is missing; expected method, seed, epoch and quantities such as "
                f"{', '.join(ERRORS)}"
            )
    keys = ["method", *_of_training(histories), "epoch"]
    if histories.empty:
        raise ValueError("histories hold no epoch; nothing to draw")
    _check_once(histories, keys, "histories")
    if agreement is None:
        return histories.reset_index(drop=True)
    columns = ["method", "seed", "epoch", "layer", "agreement"]
    for name in columns:
        if name not in agreement:
            raise ValueError(f"agreement: column '{name}' is missing; expected {', '.join(columns)}")
    keys = ["method", *_of_training(agreement), "epoch"]
    _check_once(agreement, [*keys, "layer"], "agreement")
    layers = list(dict.fromkeys(agreement["layer"]))
    wide = agreement.pivot(index=keys, columns="layer", values="agreement")[layers].add_prefix(_AGREEMENT)
    return histories.merge(wide.reset_index(), how="outer", on=keys, sort=False)


def _of_training(table: pd.DataFrame) -> list[str]:
    return [name for name in _TRAINING if name in table]


def _check_once(table: pd.DataFrame, keys: Sequence[str], what: str) -> None:
    repeated = table.duplicated(list(keys))
    if repeated.any():
        row = table[repeated].iloc[0]
        raise ValueError(
            f"{what}: {', '.join(f'{name} {row[name]}' for name in keys)} occurs twice; tell trainings apart by the "
            "columns seed, split and fold"
        )


def _checked(quantities: Sequence[str] | None, table: pd.DataFrame) -> tuple[str, ...]:
    there = available(table)
    if quantities is None:
        return there
    for name in quantities:
        if name in _KEYS or name not in table or not table[name].notna().any():
            lacking = "has no value in any epoch" if name in table and name not in _KEYS else "is not there"
            raise ValueError(f"quantity '{name}' {lacking}; there are: {', '.join(there)}")
    if not quantities:
        raise ValueError(f"expected at least one quantity out of {', '.join(there)}, got none")
    return tuple(dict.fromkeys(quantities))


def _panel(ax: Axes, table: pd.DataFrame, quantity: str, look: Mapping[str, Look]) -> None:
    from matplotlib.ticker import MaxNLocator

    drawn = []
    for method in (name for name in look if (table["method"] == name).any()):
        colour, dashes = look[method]
        rows = table[table["method"] == method]
        values = rows.pivot(index="epoch", columns=_of_training(table), values=quantity)
        values = values.dropna(axis=1, how="all").dropna() * (100 if quantity in ERRORS else 1)
        if values.empty:
            continue
        epochs = values.index.to_numpy() + 1
        label: Any = method
        ax.fill_between(epochs, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.18, linewidth=0)
        gaps = len(epochs) == 1 or np.diff(epochs).max() > 1
        marker = "o" if gaps and len(epochs) <= _MOST_POINTS else None
        ax.plot(epochs, values.mean(axis=1), dashes, color=colour, marker=marker, markersize=2.5, label=label)
        drawn.append(values.to_numpy().ravel())
        if (begin := _main_stage(rows)) is not None:
            ax.axvline(begin, color=colour, linestyle=":", linewidth=0.8, zorder=1)
    if not drawn:
        ax.text(0.5, 0.5, "no epoch that\nall seeds have", transform=ax.transAxes, ha="center", va="center")
        drawn.append(np.array([0.0, 1.0]))
    shown = np.concatenate(drawn)
    highest = 100.0 if quantity in ERRORS else 1.0 if quantity.startswith(_AGREEMENT) else np.inf
    if quantity.startswith(_AGREEMENT) or not _spans_a_decade(shown):
        _linear_axis(ax, shown, highest)
    else:
        _log_axis(ax, shown, highest)
    ax.set_title(_lines(_title(quantity)), fontsize=7)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1, steps=[1, 2, 2.5, 5, 10]))
    ax.grid(axis="y", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)


def _main_stage(rows: pd.DataFrame) -> float | None:
    """How many epochs of other stages came before a method's main stage; None: none, or there is no main stage."""
    if "stage" not in rows or not (rows["stage"] == _MAIN).any():
        return None
    first = rows.loc[rows["stage"] == _MAIN, "epoch"].min()
    return float(first) if first > rows.loc[rows["stage"].notna(), "epoch"].min() else None


def _title(quantity: str) -> str:
    if quantity in ERRORS:
        return f"{quantity.removesuffix('_error').capitalize()} error (%)"
    if quantity.startswith(_AGREEMENT):
        return f"RDM agreement: {quantity.removeprefix(_AGREEMENT) or 'output'}"
    if quantity.startswith("alpha"):
        return quantity.replace("alpha", "α", 1)
    return "Learning rate" if quantity == "learning_rate" else f"Loss: {quantity}"


def _lines(title: str) -> str:
    """A title in lines that a narrow panel has room for, broken where a name of a layer can be."""
    lines = [""]
    for piece in re.split(r"(?<=[/. ])", title):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > _LONG:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _spans_a_decade(values: np.ndarray) -> bool:
    """Whether positive values differ by more than a factor of 10, and none is negative."""
    positive = values[values > 0]
    return bool(len(positive) and (values >= 0).all() and positive.max() > 10 * positive.min())


def _linear_axis(ax: Axes, values: np.ndarray, highest: float) -> None:
    """highest: what the quantity can reach; beyond it there is no room to be drawn."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    low, high = values.min(), values.max()
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    ax.set_ylim(low - room, min(high + room, max(highest + 0.01 * (high - low), high)))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=3, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def _log_axis(ax: Axes, values: np.ndarray, highest: float) -> None:
    """Logarithmic down to the smallest positive value and, where there are zeros, linear from there to 0."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    positive = values[values > 0]
    smallest, zero = positive.min(), bool((values == 0).any())
    low, high = smallest / 1.15, min(positive.max() * 1.15, max(highest, positive.max()))
    if zero:
        # A little below 0, so that a line at 0 is not hidden by the axis.
        ax.set_yscale("symlog", linthresh=smallest, linscale=0.3)
        ax.set_ylim(-0.15 * smallest, high)
    else:
        ax.set_yscale("log")
        ax.set_ylim(low, high)
    ticks = _log_ticks(low, high)
    ax.yaxis.set_major_locator(FixedLocator([0.0, *ticks] if zero else ticks))
    ax.yaxis.set_minor_locator(NullLocator())
    plain = low >= 1e-4 and high < 1e5
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if plain or not value else _power(value)))


def _log_ticks(low: float, high: float) -> list[float]:
    """3 to 8 numbers from low to high, which are more than a decade apart: at 1, 2 and 5, at 1, or at some decades."""
    exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    decades = high / low
    factors = [1, 2, 5] if decades < 300 else [1, 3] if decades < 3e3 else [1]
    step = 1 if decades < 1e7 else -(-len(exponents) // 6)
    ticks = np.outer(10.0 ** exponents[::step], factors).ravel()
    return [float(tick) for tick in ticks if low <= tick <= high]


def _power(value: float) -> str:
    exponent = int(np.floor(np.log10(value) + 1e-9))
    factor = round(value / 10.0**exponent)
    power = "10" + str(exponent).translate(_SUPERSCRIPTS)
    return power if factor == 1 else f"{factor}·{power}"


def _legend(table: pd.DataFrame, quantities: Sequence[str], look: Mapping[str, Look]) -> list[Any]:
    """A line a method that is drawn, and what the dotted line means."""
    from matplotlib.lines import Line2D

    drawn = table[table[list(quantities)].notna().any(axis=1)]
    shown = [name for name in look if (drawn["method"] == name).any()]
    handles = [Line2D([], [], color=look[name].colour, linestyle=look[name].dashes, label=name) for name in shown]
    if any(_main_stage(table[table["method"] == name]) is not None for name in shown):
        handles.append(Line2D([], [], color="0.35", linestyle=":", linewidth=0.8, label="main stage begins"))
    return handles


def _note(table: pd.DataFrame, quantities: Sequence[str], agreement: pd.DataFrame | None) -> list[str]:
    note = []
    trainings = _of_training(table)
    if table.groupby("method")[trainings].apply(lambda rows: len(rows.drop_duplicates())).max() > 1:
        note = [f"line: mean over {', '.join(f'{name}s' for name in trainings)}", "band: lowest to highest"]
    if agreement is not None and any(name.startswith(_AGREEMENT) for name in quantities):
        measures = list(agreement["comparison"].unique()) if "comparison" in agreement else []
        if len(measures) == 1:
            note.append(f"RDM agreement: {MEASURES[measures[0]]}")
    return note


def _add_legend(figure: Figure, handles: list[Any], note: Sequence[str], beside: bool, columns: int) -> None:
    where: dict[str, Any] = {"loc": "outside right center"}
    if not beside:
        where = {"loc": "outside lower left", "ncols": columns}
    title = ("; " if not beside and figure.get_figwidth() == check_width("double") else "\n").join(note)
    legend = figure.legend(handles=handles, title=title or None, alignment="left", **where)
    legend.get_title().set_fontsize(6.5)
