"""How training moves a network's RDMs towards a target: their agreement at each logged epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from brainrdl.analysis.comparison import check_comparison, similarity
from brainrdl.rdms.selection import match_rdms, rdm_descriptor, stimulus_ids, subset_stimuli

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

_DESCRIPTORS = {"network": "method", "seed": "seed", "epoch": "epoch", "layer": "layer"}


def agreement_history(
    rdms_by_epoch: RDMs, target: RDMs, comparison: str = "corr", layers: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Similarity of networks' RDMs with a target RDM, epoch by epoch.

    rdms_by_epoch: with the rdm_descriptors network, seed, epoch (from 0; -1 = before training) and layer, as runs log
    them. target: one RDM for every layer, or one a layer (rdm_descriptor `layer`: a teacher's). Stimuli are matched by
    id. comparison: one of `brainrdl.analysis.comparison.COMPARISONS`.
    layers: the networks' layer -> the target's; None: layers of the same name, all of them. Others are left out.
    Returns a row an RDM: method (the network), seed, epoch, layer, comparison, agreement; n_pairs, those that both
    have. NaN: not defined, for want of 3 pairs or of differences between them (rho-a and tau-a are 0 then).
    Raises ValueError for descriptors that are not there, an RDM that occurs twice, layers without a target, and fewer
    than 3 stimuli in common.
    """
    check_comparison(comparison)
    for name in _DESCRIPTORS:
        if name not in rdms_by_epoch.rdm_descriptors:
            known = ", ".join(rdms_by_epoch.rdm_descriptors)
            raise ValueError(f"RDMs of a training need the rdm_descriptor '{name}'; these have: {known}")
    table = pd.DataFrame({ours: list(rdms_by_epoch.rdm_descriptors[name]) for name, ours in _DESCRIPTORS.items()})
    table["method"], table["layer"] = table["method"].astype(str), table["layer"].astype(str)
    if table.duplicated().any():
        row = table[table.duplicated()].iloc[0]
        named = ", ".join(f"{name} {value}" for name, value in row.items())
        raise ValueError(f"several RDMs are of {named}; choose one of them (`select_rdms`), or average them")
    row_of = _target_rows(list(dict.fromkeys(table["layer"])), target, layers)
    ids = stimulus_ids(match_rdms([rdms_by_epoch, target], ["the networks' RDMs", "the target"]).rdms)
    one, other = (np.asarray(subset_stimuli(rdms, ids).get_vectors(), float) for rdms in (rdms_by_epoch, target))
    compared = [(k, row_of[layer]) for k, layer in enumerate(table["layer"]) if layer in row_of]
    return (
        table.iloc[[k for k, _ in compared]]
        .assign(
            comparison=comparison,
            agreement=[_agreement(one[k], other[row], comparison) for k, row in compared],
            n_pairs=[int((~np.isnan(one[k] + other[row])).sum()) for k, row in compared],
        )
        .reset_index(drop=True)
    )


def _target_rows(known: list[str], target: RDMs, layers: Mapping[str, str] | None) -> dict[str, int]:
    """Which RDM of the target each layer is compared with."""
    if target.n_rdm == 1 and layers is None:
        return dict.fromkeys(known, 0)
    names = rdm_descriptor(target, "layer")
    if len(set(names)) < len(names):
        raise ValueError(
            f"the target has several RDMs of one layer ({', '.join(names)}); give one RDM, or one a layer: choose a "
            "network and epoch (`select_rdms`), or average"
        )
    layers = {name: name for name in known} if layers is None else layers
    for mine, theirs in layers.items():
        if mine not in known:
            raise ValueError(f"the networks' RDMs have no layer '{mine}'; they have: {', '.join(known)}")
        if theirs not in names:
            raise ValueError(
                f"layer '{mine}' has no target: the target has no layer '{theirs}', it has: {', '.join(names)}; say by "
                "`layers` which belong together"
            )
    return {mine: names.index(theirs) for mine, theirs in layers.items()}


def _agreement(one: np.ndarray, other: np.ndarray, comparison: str) -> float:
    missing = np.isnan(one) | np.isnan(other)
    a, b = (np.where(missing, np.nan, vector)[None] for vector in (one, other))
    return float(similarity(a, b, comparison).item())
