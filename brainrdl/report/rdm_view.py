"""RDMs for the page that one can look into: chosen to fit, packed, and mapped by second-order MDS."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from brainrdl.analysis.figures.style import TEACHER_COLOUR, looks
from brainrdl.analysis.second_order import second_order_mds, undefined_rdms
from brainrdl.rdms import stimulus_ids, subset_stimuli
from brainrdl.report.drawing import undefined_lines

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# More stimuli than this are more than a screen shows.
MOST_STIMULI = 300
# Points of the map: more take long, and are not told apart.
_MOST_POINTS = 300
_FEWEST_COMPARED = 3
# What a value is packed into; the largest stands for NaN.
_MISSING = 65535
_STEPS = 65534
_REFERENCE_COLOUR = "#555555"


@dataclass(frozen=True)
class RDMView:
    """RDMs over the same stimuli, to be looked at together.

    rdms: with rdm_descriptors network and layer; of networks in `trained` also seed and epoch (from 0; -1 before
    training). methods: the networks that have colours; others are references. trained: those with seeds and epochs.
    thumbnails: stimulus id -> (height, width, 3) uint8, as far as there are. notes: what is not shown, and why.
    measure: of the methods' RDMs, where references have others.
    """

    name: str
    rdms: RDMs
    methods: tuple[str, ...]
    trained: tuple[str, ...] = ()
    thumbnails: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measure: str | None = None


def shown_stimuli(rdms: RDMs, most: int = MOST_STIMULI) -> list[str]:
    """The ids of at most so many stimuli, sorted by class and evenly out of the classes."""
    ids = stimulus_ids(rdms)
    descriptors = rdms.pattern_descriptors
    of_class = descriptors.get("label", descriptors.get("category"))
    order = list(range(len(ids)))
    if of_class is not None:
        # As numbers where labels are numbers, so that class 10 comes after class 9.
        order.sort(key=lambda k: (str(type(of_class[k])), of_class[k]))
    if len(order) > most:
        order = [order[k] for k in np.linspace(0, len(order) - 1, most).round().astype(int)]
    return [ids[k] for k in order]


def fit_view(view: RDMView, most_bytes: int) -> RDMView:
    """The view with its stimuli sorted by class, and what is too much for the page left out, which its notes say.

    First the middle epochs of all seeds but the first are left out, then those seeds, then epochs of the first, then
    stimuli.
    """
    ids = shown_stimuli(view.rdms)
    n_stimuli = view.rdms.n_cond
    while True:
        told = "" if len(ids) == n_stimuli else f"Shown are {len(ids)} of {n_stimuli:,} stimuli, evenly out of classes."
        for rows, what in _choices(view):
            if len(rows) * _packed_size(len(ids)) <= most_bytes and _n_first(view, rows) <= _MOST_POINTS:
                rdms = subset_stimuli(view.rdms[rows], ids)
                return replace(view, rdms=rdms, notes=(*view.notes, *filter(None, (told, what))))
        if len(ids) <= _FEWEST_COMPARED:
            return replace(view, rdms=subset_stimuli(view.rdms, ids), notes=(*view.notes, told))
        ids = shown_stimuli(view.rdms, len(ids) // 2)


def _choices(view: RDMView) -> Iterator[tuple[list[int], str]]:
    """Rows to show, from all to few, each with what is said of it."""
    table = _table(view)
    yield list(table.index), ""
    trained = table[table["epoch"].notna()]
    if trained.empty:
        return
    first, *others = dict.fromkeys(int(seed) for seed in trained["seed"])
    last = trained["epoch"] == trained.groupby(["network", "seed"])["epoch"].transform("max")
    fixed, of_first = table["epoch"].isna(), table["seed"] == first
    if others:
        words = f"seed{'s' * (len(others) > 1)} {', '.join(map(str, others))}"
        is_last = last.reindex(table.index, fill_value=False)
        what = f"Of {words} the last epoch alone is in this page; the others are in the run's rdms.h5 files."
        yield list(table.index[fixed | of_first | is_last]), what
        what = f"RDMs of {words} are not in this page; they are in the run's rdms.h5 files."
        yield list(table.index[fixed | of_first]), what
    epochs = sorted(set(trained.loc[of_first.reindex(trained.index), "epoch"]))
    for step in (2, 4, 8, len(epochs)):
        kept = table["epoch"].isin(epochs[::step]) | last.reindex(table.index, fill_value=False)
        what = (
            f"In this page are {len(epochs[::step])} of the {len(epochs)} logged epochs of seed {first}, and the last"
        )
        what += " of each network." if not others else f" of each network; of {words} nothing."
        yield list(table.index[fixed | (of_first & kept)]), what


def _table(view: RDMView) -> pd.DataFrame:
    """A row an RDM: network, layer, seed and epoch; the latter NaN for networks that were not trained here."""
    descriptors = view.rdms.rdm_descriptors
    table = pd.DataFrame({name: list(map(str, descriptors[name])) for name in ("network", "layer")})
    for name in ("seed", "epoch"):
        values = descriptors.get(name, [0] * len(table))
        table[name] = pd.Series([float(value) for value in values]).where(table["network"].isin(view.trained))
    return table


def _n_first(view: RDMView, rows: Sequence[int]) -> int:
    return int(_is_first(_table(view).loc[list(rows)]).sum())


def _is_first(table: pd.DataFrame) -> pd.Series[bool]:
    """Whether an RDM is of the first seed, or of no seed."""
    seeds = table["seed"].dropna()
    first: pd.Series[bool] = table["seed"].isna() | (table["seed"] == (seeds.iloc[0] if len(seeds) else None))
    return first


def _packed_size(n_stimuli: int) -> int:
    """Letters that a packed RDM takes: two bytes a pair, in base64."""
    return 4 * -(-n_stimuli * (n_stimuli - 1) // 3)


def view_data(view: RDMView) -> dict[str, Any]:
    """What the page's script reads: names, stimuli with their pictures, packed RDMs, and the map of them."""
    table = _table(view)
    networks, layers = list(dict.fromkeys(table["network"])), list(dict.fromkeys(table["layer"]))
    mapped, told = _map(view, table)
    descriptors = view.rdms.pattern_descriptors
    measure = view.measure or view.rdms.dissimilarity_measure
    return {
        "name": view.name,
        "measure": "dissimilarity" if measure is None else str(measure),
        "networks": networks,
        "layers": layers,
        "colours": _colours(view.methods, networks),
        "open": _open(view.methods, networks),
        "methods": list(view.methods),
        "stimuli": list(stimulus_ids(view.rdms)),
        "categories": [str(value) for value in descriptors["category"]] if "category" in descriptors else None,
        "pictures": [_picture(view.thumbnails.get(stimulus)) for stimulus in stimulus_ids(view.rdms)],
        "rdms": [
            {
                "network": networks.index(row["network"]),
                "layer": layers.index(row["layer"]),
                "seed": None if np.isnan(row["seed"]) else int(row["seed"]),
                "epoch": None if np.isnan(row["epoch"]) else int(row["epoch"]),
                **pack(vector),
            }
            for row, vector in zip(table.to_dict("records"), view.rdms.get_vectors(), strict=True)
        ],
        "map": mapped,
        "notes": [*view.notes, *told],
    }


def _colours(methods: Sequence[str], networks: Sequence[str]) -> list[str]:
    """A method has one colour in all runs: of "run: method" the run's name does not count."""
    look = looks(_own_name(name) for name in methods)
    fixed = {
        name: TEACHER_COLOUR if _own_name(name) in ("teacher", "brain") else _REFERENCE_COLOUR for name in networks
    }
    return [look[_own_name(name)].colour if name in methods else fixed[name] for name in networks]


def _open(methods: Sequence[str], networks: Sequence[str]) -> list[bool]:
    """Whether a network's points are hollow: where there are more methods than colours."""
    look = looks(_own_name(name) for name in methods)
    return [name in methods and look[_own_name(name)].dashes != "-" for name in networks]


def _own_name(network: str) -> str:
    return network.rpartition(": ")[2]


def pack(vector: np.ndarray) -> dict[str, Any]:
    """A condensed RDM in two bytes a pair: v = low + code · (high - low) / 65534; 65535 is NaN.

    vector: (n_pairs,). Returns low and high, None where all is NaN, and the codes (little-endian) in base64.
    """
    measured = vector[~np.isnan(vector)]
    low, high = (float(measured.min()), float(measured.max())) if len(measured) else (None, None)
    codes = np.full(len(vector), _MISSING, dtype="<u2")
    if low is not None and high is not None:
        span = high - low or 1.0
        codes[~np.isnan(vector)] = np.round((measured - low) / span * _STEPS).astype("<u2")
    return {"low": low, "high": high, "codes": base64.b64encode(codes.tobytes()).decode()}


def _map(view: RDMView, table: pd.DataFrame) -> tuple[dict[str, Any] | None, list[str]]:
    """The RDMs of the first seed as points of one space, by their row, and what is not in it."""
    undefined = undefined_rdms(view.rdms)
    rows = [k for k in table.index[_is_first(table)] if k not in undefined]
    left_out = {k: undefined[k] for k in table.index[_is_first(table)] if k in undefined}
    told = [f"Not in the map: {line}." for line in undefined_lines(view.rdms, left_out)]
    if len(rows) < _FEWEST_COMPARED:
        return None, [
            *told,
            f"There is no map: it needs {_FEWEST_COMPARED} RDMs to compare, and there are {len(rows)}.",
        ]
    try:
        mds = second_order_mds(view.rdms[rows], n_bootstrap=0)
    except ValueError as error:  # no pair that all have measured, say; the RDMs can be looked at all the same
        return None, [*told, f"There is no map: {error}."]
    points = {str(row): [float(x), float(y)] for row, (x, y) in zip(rows, mds.coordinates, strict=True)}
    return {"points": points, "stress": mds.stress, "comparison": mds.comparison}, told


def _picture(pixels: np.ndarray | None) -> str | None:
    """A thumbnail as a data URI."""
    if pixels is None:
        return None
    from PIL.Image import fromarray

    content = io.BytesIO()
    fromarray(pixels).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
