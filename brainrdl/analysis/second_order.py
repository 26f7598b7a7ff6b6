"""How alike are the RDMs of different networks and layers? Distances between RDMs, drawn in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# Our names beside rsatoolbox's. Its measures that need complete RDMs are missing: a bootstrap sample has missing pairs.
COMPARISONS = ("correlation", "normalized_euclidean", "cosine", "spearman", "rho-a", "tau-a", "kendall")


@dataclass(frozen=True)
class SecondOrder:
    """RDMs as points whose distances are the distances between RDMs.

    coordinates: (n_rdms, 2). distances: (n_rdms, n_rdms), mean over the bootstrap samples.
    stress: Kruskal's stress-1, what of the distances two dimensions cannot show; 0 = nothing, 0.2 = poor.
    descriptors: a row an RDM (network, layer, …). comparison: what the distances are.
    """

    coordinates: np.ndarray
    distances: np.ndarray
    stress: float
    descriptors: pd.DataFrame
    comparison: str


def second_order_mds(
    rdms: RDMs,
    comparison: str = "correlation",
    n_bootstrap: int = 20,
    n_stimuli: int | None = None,
    seed: int = 0,
) -> SecondOrder:
    """Multidimensional scaling of distances between RDMs (Figs. 4 and 6, McClure & Kriegeskorte 2016).

    Stimuli are drawn with replacement `n_bootstrap` times, `n_stimuli` each time (None: as many as the RDMs have);
    in each sample the distance between every two RDMs is taken, and the distances are averaged. A stimulus drawn
    twice is no pair with itself; a pair that is NaN in any RDM takes no part in any comparison.
    comparison: "correlation" (1 - Pearson's r, Fig. 4), "normalized_euclidean" (between RDM vectors each divided by its
    norm, Fig. 6), or 1 - similarity by rsatoolbox's cosine, spearman, rho-a, tau-a or kendall.
    The same RDMs and seed give the same picture: centred, the longest extent horizontal, the first RDM on the left.
    Raises ValueError, with the RDM's name, where an RDM is constant or nowhere defined: it has no correlation.
    """
    if comparison not in COMPARISONS:
        raise ValueError(f"unknown comparison '{comparison}' of RDMs; expected one of {', '.join(COMPARISONS)}")
    if rdms.n_rdm < 2:
        raise ValueError(f"expected at least 2 RDMs to compare, got {rdms.n_rdm}")
    n_stimuli = rdms.n_cond if n_stimuli is None else n_stimuli
    if n_stimuli < 3 or n_bootstrap < 1:
        raise ValueError(
            f"expected at least 3 stimuli and 1 bootstrap sample, got {n_stimuli} stimuli and {n_bootstrap} samples"
        )
    for k, reason in undefined_rdms(rdms, comparison).items():
        raise ValueError(f"{rdm_name(rdms, k)} {reason}, so it cannot be compared by '{comparison}'; leave it out")
    generator = np.random.default_rng(seed)
    total = np.zeros((rdms.n_rdm, rdms.n_rdm))
    for _ in range(n_bootstrap):
        total += _distances(_sample(rdms, generator.integers(rdms.n_cond, size=n_stimuli)), comparison)
    distances = total / n_bootstrap
    coordinates, stress = _mds(distances, seed)
    descriptors = pd.DataFrame({name: list(values) for name, values in rdms.rdm_descriptors.items() if name != "index"})
    return SecondOrder(coordinates, distances, stress, descriptors, comparison)


def undefined_rdms(rdms: RDMs, comparison: str = "correlation") -> dict[int, str]:
    """RDMs that have no distance to others, by their position, and why: undefined throughout, or constant."""
    undefined: dict[int, str] = {}
    for k, vector in enumerate(rdms.get_vectors()):
        measured = vector[~np.isnan(vector)]
        if not len(measured):
            undefined[k] = "is NaN throughout"
        elif np.abs(measured).max() == 0:
            undefined[k] = "is constant (all dissimilarities are 0)"
        # An angle between vectors is defined for a constant, a correlation is not.
        elif comparison not in ("normalized_euclidean", "cosine") and _is_constant(measured):
            undefined[k] = f"is constant (all dissimilarities are {measured[0]:.4g})"
    return undefined


def rdm_name(rdms: RDMs, k: int) -> str:
    """RDM `k` as a message names it, by network and layer where it has them."""
    names = [f"{key} '{rdms.rdm_descriptors[key][k]}'" for key in ("network", "layer") if key in rdms.rdm_descriptors]
    return f"RDM {k}" + (f" ({', '.join(names)})" if names else "")


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _sample(rdms: RDMs, drawn: np.ndarray) -> RDMs:
    from rsatoolbox.rdm import RDMs

    # rsatoolbox draws by a descriptor; positions are unique whatever descriptors the RDMs came with.
    # It writes NaN where a stimulus meets itself.
    plain = RDMs(rdms.get_vectors(), rdm_descriptors=dict(rdms.rdm_descriptors))
    sample = plain.subsample_pattern("index", drawn)
    vectors = sample.get_vectors().copy()
    vectors[:, np.isnan(vectors).any(0)] = np.nan
    return RDMs(vectors, rdm_descriptors=sample.rdm_descriptors)


def _distances(sample: RDMs, comparison: str) -> np.ndarray:
    from rsatoolbox.rdm import compare
    from scipy.spatial.distance import pdist, squareform

    for k, reason in undefined_rdms(sample, comparison).items():
        raise ValueError(
            f"{rdm_name(sample, k)} {reason} in a bootstrap sample of {sample.n_cond} stimuli, so it cannot be "
            f"compared by '{comparison}'; leave it out, or use more stimuli"
        )
    if comparison == "normalized_euclidean":
        vectors = sample.get_vectors()
        vectors = vectors[:, ~np.isnan(vectors[0])]
        return np.asarray(squareform(pdist(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))))
    similarity = compare(sample, sample, method="corr" if comparison == "correlation" else comparison)
    distances = 1 - (similarity + similarity.T) / 2
    np.fill_diagonal(distances, 0)  # tau-a and rho-a of an RDM with ties are below 1 even with itself
    return np.asarray(distances.clip(min=0))


def _mds(distances: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Metric MDS in two dimensions, the best of several starts, in a position that does not depend on the start."""
    from sklearn.manifold import smacof

    scale = distances.max()
    if scale == 0:
        return np.zeros((len(distances), 2)), 0.0
    # Every argument is given: their defaults changed between versions of scikit-learn.
    arguments: dict[str, Any] = {
        "metric": True,
        "n_components": 2,
        "n_init": 8,
        "n_jobs": 1,
        "max_iter": 500,
        "eps": 1e-7,
        "random_state": seed,
        "normalized_stress": False,
    }
    coordinates, _ = smacof(distances / scale, **arguments)
    coordinates = _canonical(coordinates * scale)
    drawn = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=-1)
    return coordinates, float(np.sqrt(((drawn - distances) ** 2).sum() / (drawn**2).sum()))


def _canonical(coordinates: np.ndarray) -> np.ndarray:
    """Centred, principal axes horizontal and vertical, the first point left, the vertically outermost point up."""
    centred = coordinates - coordinates.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes.T
    if turned[0, 0] > 0:
        turned[:, 0] *= -1
    if turned[np.abs(turned[:, 1]).argmax(), 1] < 0:
        turned[:, 1] *= -1
    return np.asarray(turned)
