"""How alike are the RDMs of different networks and layers? Distances between RDMs, drawn in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from brainrdl.analysis.comparison import MIN_PAIRS, has_shape, similarity
from brainrdl.analysis.scaling import multidimensional_scaling
from brainrdl.rdms.selection import group_rdms, pair_position

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# rsatoolbox's that need a kernel matrix, thus every pair: a bootstrap sample has missing ones.
_COMPLETE = ("bures", "bures_metric")
# Our two names, then rsatoolbox's.
COMPARISONS = (
    "correlation",
    "normalized_euclidean",
    "cosine",
    "spearman",
    "rho-a",
    "tau-a",
    "kendall",
    "corr_cov",
    "cosine_cov",
    *_COMPLETE,
)
# Of distances between 0 and 2: RDMs that are the same but for it would be points as far apart as the picture is wide.
_ROUNDING = 1e-12
# Those that are defined for an RDM all of whose dissimilarities are alike.
_OF_CONSTANT = ("normalized_euclidean", "cosine", "cosine_cov", *_COMPLETE)


@dataclass(frozen=True)
class SecondOrder:
    """RDMs as points whose distances are the distances between RDMs.

    coordinates: (n_rdms, 2). distances: (n_rdms, n_rdms), mean over the bootstrap samples.
    stress: Kruskal's stress-1, what of the distances two dimensions cannot show; 0 = nothing, 0.2 = poor.
    descriptors: a row an RDM (network, layer, …). comparison: what the distances are.
    samples: (n_bootstrap, n_rdms, 2), the same for each sample's distances alone, laid onto `coordinates`.
    n_stimuli: stimuli drawn in each sample. metric: whether distances are shown, or their order alone.
    """

    coordinates: np.ndarray
    distances: np.ndarray
    stress: float
    descriptors: pd.DataFrame
    comparison: str
    samples: np.ndarray
    n_stimuli: int
    metric: bool = True


def second_order_mds(
    rdms: RDMs,
    comparison: str = "correlation",
    n_bootstrap: int = 20,
    n_stimuli: int | None = None,
    seed: int = 0,
    metric: bool = True,
) -> SecondOrder:
    """Multidimensional scaling of distances between RDMs (Figs. 4 and 6, McClure & Kriegeskorte 2016).

    The distances are `second_order_distances`, averaged over its samples. Each sample's distances are also scaled by
    themselves, from the mean's coordinates on, then turned, reflected and moved (not scaled) onto those: how far a
    point lies elsewhere with other stimuli. The same RDMs and seed give the same picture: centred, the longest extent
    horizontal, the first RDM on the left.
    rdms: over the same stimuli. comparison, n_bootstrap, n_stimuli, seed: as of `second_order_distances`.
    metric: whether points are to be as far apart as the distances say, or (False) only in their order.
    Raises ValueError as `second_order_distances`.
    """
    by_sample = second_order_distances(rdms, comparison, n_bootstrap, n_stimuli, seed)
    distances = by_sample.mean(0)
    coordinates, stress = multidimensional_scaling(distances, metric)
    samples = np.empty((n_bootstrap, rdms.n_rdm, 2))
    for k in range(n_bootstrap):
        samples[k] = multidimensional_scaling(by_sample[k], metric, start=coordinates).coordinates
    return SecondOrder(
        coordinates,
        distances,
        stress,
        pd.DataFrame(
            {name: list(values) for name, values in rdms.rdm_descriptors.items() if name != "index"},
            index=range(rdms.n_rdm),
        ),
        comparison,
        samples,
        rdms.n_cond if n_stimuli is None else n_stimuli,
        metric,
    )


def second_order_distances(
    rdms: RDMs,
    comparison: str = "correlation",
    n_bootstrap: int = 20,
    n_stimuli: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The distance between every two RDMs in each of `n_bootstrap` samples of stimuli: (n_bootstrap, n_rdms, n_rdms).

    Stimuli are drawn with replacement, `n_stimuli` each time (None: as many as the RDMs have). A stimulus drawn twice
    is no pair with itself; a pair that is NaN in any RDM takes no part in any comparison. Which stimuli are drawn
    depends on `seed` and the number of stimuli alone.
    n_bootstrap: 0 takes every stimulus once, and gives (1, n_rdms, n_rdms).
    comparison: "correlation" (1 - Pearson's r, Fig. 4), "normalized_euclidean" (between RDM vectors each divided by its
    norm, Fig. 6), 1 - similarity by rsatoolbox's cosine, spearman, rho-a, tau-a, kendall, corr_cov, cosine_cov
    (whitened; of fewer than 100 stimuli, or without bootstrap) or bures, or the root of its bures_metric (both without
    bootstrap). rsatoolbox's neg_riem_dist is not offered: it fails on RDMs of fewer units than stimuli.
    Raises ValueError, with the RDM's name, where an RDM has no distance to others (`undefined_rdms`).
    """
    if comparison not in COMPARISONS:
        raise ValueError(f"unknown comparison '{comparison}' of RDMs; expected one of {', '.join(COMPARISONS)}")
    if rdms.n_rdm < 2:
        raise ValueError(f"expected at least 2 RDMs to compare, got {rdms.n_rdm}")
    drawn = _draws(rdms.n_cond, n_bootstrap, n_stimuli, seed)
    for k, reason in undefined_rdms(rdms, comparison).items():
        raise ValueError(f"{rdm_name(rdms, k)} {reason}, so it cannot be compared by '{comparison}'; leave it out")
    if comparison in _COMPLETE and (n_bootstrap or np.isnan(rdms.dissimilarities).any()):
        raise ValueError(
            f"comparison '{comparison}' needs RDMs in which every pair is measured, and a bootstrap sample has none of "
            "a stimulus with itself; take n_bootstrap=0 and stimuli without missing pairs, or another comparison"
        )
    return np.stack([_distances(rdms, rows, comparison) for rows in drawn])


def undefined_rdms(rdms: RDMs, comparison: str = "correlation") -> dict[int, str]:
    """RDMs that have no distance to others, by their position, and why: NaN throughout, infinite, or constant."""
    return _undefined(rdms.get_vectors(), comparison)


def rdm_name(rdms: RDMs, k: int) -> str:
    """RDM `k` as a message names it: by network and layer where it has them, else by what tells it apart."""
    keys = [key for key in ("network", "layer") if key in rdms.rdm_descriptors] or group_rdms(rdms, ())[0]
    names = [f"{key} '{rdms.rdm_descriptors[key][k]}'" for key in keys]
    return f"RDM {k}" + (f" ({', '.join(names)})" if names else "")


def _draws(n_known: int, n_bootstrap: int, n_stimuli: int | None, seed: int) -> list[np.ndarray]:
    """The rows of the stimuli in each sample."""
    if n_bootstrap == 0 and n_stimuli is None:
        return [np.arange(n_known)]
    n_drawn = n_known if n_stimuli is None else n_stimuli
    if n_drawn < 3 or n_bootstrap < 1:
        raise ValueError(
            f"expected at least 3 stimuli and 1 bootstrap sample, got {n_drawn} stimuli and {n_bootstrap} samples; to "
            "take every stimulus once, give n_bootstrap=0 and no n_stimuli"
        )
    generator = np.random.default_rng(seed)
    return [np.sort(generator.integers(n_known, size=n_drawn)) for _ in range(n_bootstrap)]


def _undefined(vectors: np.ndarray, comparison: str) -> dict[int, str]:
    undefined: dict[int, str] = {}
    for k, vector in enumerate(vectors):
        measured = vector[~np.isnan(vector)]
        if not len(measured):
            undefined[k] = "is NaN throughout"
        elif np.isinf(measured).any():
            undefined[k] = "holds infinite values"
        # An angle between vectors is defined for a constant, a correlation is not.
        elif not has_shape(measured[None], "cosine" if comparison in _OF_CONSTANT else "corr")[0]:
            undefined[k] = f"is constant (all dissimilarities are {measured[0]:.4g})"
    return undefined


def _sample(vectors: np.ndarray, n_known: int, rows: np.ndarray) -> np.ndarray:
    """(n_rdms, n_pairs) RDMs of the stimuli at sorted `rows`; NaN in all where in any, and between equal stimuli."""
    i, j = np.triu_indices(len(rows), 1)
    with_itself = rows[i] == rows[j]
    sample = vectors[:, np.where(with_itself, 0, pair_position(rows[i], rows[j], n_known))]
    sample[:, with_itself | np.isnan(sample).any(0)] = np.nan
    return sample


def _distances(rdms: RDMs, rows: np.ndarray, comparison: str) -> np.ndarray:
    from rsatoolbox.rdm import compare
    from scipy.spatial.distance import pdist, squareform

    sample = _sample(rdms.dissimilarities, rdms.n_cond, rows).astype(np.float64)
    measured = ~np.isnan(sample[0])
    if measured.sum() < MIN_PAIRS:
        fewest = int(np.isnan(rdms.dissimilarities).sum(1).argmax())
        raise ValueError(
            f"{int(measured.sum())} pairs of a sample of {len(rows)} stimuli are measured in all RDMs, expected at "
            f"least {MIN_PAIRS}; most are missing in {rdm_name(rdms, fewest)}: leave it out, or use more stimuli"
        )
    vectors = sample[:, measured]
    for k, reason in _undefined(vectors, comparison).items():
        raise ValueError(
            f"{rdm_name(rdms, k)} {reason} in a bootstrap sample of {len(rows)} stimuli, so it cannot be "
            f"compared by '{comparison}'; leave it out, or use more stimuli"
        )
    if comparison == "normalized_euclidean":
        distances = squareform(pdist(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
        return np.where(distances < _ROUNDING, 0, distances)
    if comparison == "correlation":
        # rsatoolbox's "corr", by a matrix product: an order of magnitude faster.
        values = np.corrcoef(vectors)
    elif comparison in _COMPLETE:
        values = compare(sample, sample, method=comparison)
    else:
        values = similarity(sample, sample, comparison)
    values = (values + values.T) / 2
    if comparison == "bures_metric":  # in the RDMs' unit
        distances = np.sqrt(values.clip(min=0))
    else:
        distances = np.where(1 - values < _ROUNDING, 0, 1 - values)
    np.fill_diagonal(distances, 0)  # tau-a and rho-a of an RDM with ties are below 1 even with itself
    return np.asarray(distances)
