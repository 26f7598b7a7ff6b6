"""How much each pair of stimuli counts, from the spread over subjects or a given precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from brainrdl.rdms.selection import group_rdms, rdm_descriptor

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# Degrees of freedom with which the mean variance enters each pair's: with n RDMs no weight can be more than
# (_PRIOR + n - 1) / _PRIOR times that of a pair of mean variance.
_PRIOR = 4


def reliability_weights(rdms: RDMs, over: str | Sequence[str] = "subject") -> RDMs:
    """Inverse variance of each pair's mean over subjects (sessions, repetitions), of mean 1 over the measured pairs.

    weight = n / v with v = (4 s̄² + (n - 1) s²) / (4 + n - 1); n: RDMs that measured the pair; s²: their variance; s̄²:
    its mean over pairs. A variance of few RDMs is itself uncertain: drawn towards the mean so, no weight explodes.

    rdms: dissimilarities in one unit; RDMs of different size would make their scale look like noise. over: the RDM
    descriptor, or several, that tells repetitions apart; there is one RDM of weights for each combination of the
    others. A pair that was not measured has weight 0. Use: `MeasuredRDMs(rdms, weights=...)`.
    Raises ValueError for unknown descriptors and where no pair was measured twice.
    """
    over = [over] if isinstance(over, str) else list(over)
    for descriptor in over:
        rdm_descriptor(rdms, descriptor)
    kept, groups = group_rdms(rdms, over)
    weights = [_inverse_variance(rdms.dissimilarities[rows], kept, key) for key, rows in groups.items()]
    return _as_rdms(np.stack(weights), rdms, {name: [key[k] for key in groups] for k, name in enumerate(kept)})


def precision_weights(rdms: RDMs) -> RDMs:
    """Weights of mean 1 over the measured pairs, from RDMs that hold a precision (1 / variance) a pair.

    NaN becomes 0: not measured. Raises ValueError for negative or infinite values, and where none is above 0.
    """
    weights = np.nan_to_num(rdms.dissimilarities, nan=0.0, posinf=np.inf)
    wrong = (weights < 0) | np.isinf(weights)
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} precisions are negative or infinite, the first is {weights[wrong][0]:g}; expected "
            "1 / variance, or NaN for a pair that was not measured"
        )
    if not weights.any(axis=1).all():
        raise ValueError("an RDM of precisions has no value above 0; leave it out")
    return _as_rdms(np.stack([_of_mean_one(row) for row in weights]), rdms, rdms.rdm_descriptors)


def _inverse_variance(values: np.ndarray, kept: Sequence[str], key: tuple[str, ...]) -> np.ndarray:
    """(n_pairs,) from (n_rdms, n_pairs)."""
    n = (~np.isnan(values)).sum(0)
    dof = np.maximum(n - 1, 0)
    if not dof.any():
        where = ", ".join(f"{name} {value}" for name, value in zip(kept, key, strict=True)) or "these RDMs"
        raise ValueError(
            f"{where}: no pair was measured twice, so there is no variance; use MeasuredRDMs without weights"
        )
    mean = np.nansum(values, axis=0) / np.maximum(n, 1)
    squares = np.nansum((values - mean) ** 2, axis=0)  # (n - 1) s²
    pooled = squares.sum() / dof.sum()
    variance = (_PRIOR * pooled + squares) / (_PRIOR + dof) if pooled > 0 else 1.0
    return _of_mean_one(n / variance)


def _of_mean_one(weights: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = weights / weights[weights > 0].mean()
    return scaled


def _as_rdms(weights: np.ndarray, like: RDMs, rdm_descriptors: Mapping[str, object]) -> RDMs:
    from rsatoolbox.rdm import RDMs

    return RDMs(
        weights,
        dissimilarity_measure="weight",
        rdm_descriptors={
            name: values for name, values in rdm_descriptors.items() if name not in ("index", "n_averaged")
        },
        pattern_descriptors=dict(like.pattern_descriptors),
    )
