"""How alike two RDMs are, over the pairs both have: rsatoolbox's comparisons, and partial correlation."""

from __future__ import annotations

import warnings

import numpy as np

# The similarities of rsatoolbox's `compare` that a score and its ceiling are made of.
COMPARISONS = ("spearman", "rho-a", "tau-a", "corr", "cosine", "corr_cov", "cosine_cov")

# How `pool_rdm` averages the RDMs of several subjects for the ceiling of each comparison.
POOLING = {
    "spearman": "mean of ranks",
    "rho-a": "mean of ranks",
    "tau-a": "mean of ranks",
    "corr": "mean of z-scores",
    "cosine": "mean of RDMs of equal norm",
    "corr_cov": "mean of z-scores",
    "cosine_cov": "mean of RDMs of equal norm",
}

# Two values are perfectly correlated whatever they are.
MIN_PAIRS = 3

_RANKS = ("spearman", "rho-a")
# Expected values over random orders of ties: of an RDM all of whose dissimilarities are alike they are 0.
_OVER_TIES = ("rho-a", "tau-a")
# Those of which there is a partial correlation.
PARTIAL = (*_RANKS, "corr")

_WHITENED = ("corr_cov", "cosine_cov")
# From this size on rsatoolbox's whitening uses sparse matrices, and fails on missing pairs (0.3.2).
_SPARSE_WHITENING = 100


def check_comparison(name: str) -> None:
    """Raise ValueError for a comparison that is none of `COMPARISONS`."""
    if name not in COMPARISONS:
        raise ValueError(f"unknown comparison '{name}' of RDMs; expected one of {', '.join(COMPARISONS)}")


def similarity(one: np.ndarray, other: np.ndarray, comparison: str) -> np.ndarray:
    """rsatoolbox's `compare` between every RDM of `one` and of `other`.

    one, other: (n_rdms, n_pairs) and (m_rdms, n_pairs) condensed RDMs of the same stimuli; NaN = not compared, alike in
    all. Returns (n_rdms, m_rdms). NaN: not defined, for want of 3 pairs or of any differences between them (`rho-a`
    and `tau-a` are 0 then; rsatoolbox has 0 for all).
    Raises ValueError where rsatoolbox cannot whiten: missing pairs among 100 or more stimuli.
    """
    from rsatoolbox.rdm import compare

    used = ~np.isnan(one[0])
    if used.sum() < MIN_PAIRS:
        return np.full((len(one), len(other)), np.nan)
    check_whitening(used, comparison)
    if comparison not in _WHITENED:
        one, other = one[:, used], other[:, used]
    # Beside an RDM of zeros rsatoolbox (0.3.2) gives the others wrong values: those without shape stay outside.
    rows, columns = (has_shape(vectors, comparison) | (comparison in _OVER_TIES) for vectors in (one, other))
    values = np.full((len(one), len(other)), np.nan)
    if rows.any() and columns.any():
        values[np.ix_(rows, columns)] = compare(one[rows], other[columns], method=comparison)
    return values


def check_whitening(used: np.ndarray, comparison: str) -> None:
    """Raise ValueError where rsatoolbox cannot whiten: missing pairs among 100 or more stimuli.

    used: (n_pairs,) bool, the pairs that are compared.
    """
    n_stimuli = round((1 + np.sqrt(1 + 8 * len(used))) / 2)
    if comparison in _WHITENED and not used.all() and n_stimuli >= _SPARSE_WHITENING:
        raise ValueError(
            f"comparison '{comparison}' needs every pair of {n_stimuli} stimuli, and {int((~used).sum())} are left out "
            "or not measured (rsatoolbox whitens incomplete RDMs of fewer than 100 stimuli only); use 'corr', 'cosine' "
            "or 'rho-a'"
        )


def has_shape(vectors: np.ndarray, comparison: str) -> np.ndarray:
    """(n_rdms,) whether the comparison sees differences in an RDM: from its mean or, for the cosines, from zero.

    vectors: (n_rdms, n_pairs), NaN = not compared; some are.
    """
    size = np.nanmax(np.abs(vectors), axis=1)
    if comparison.startswith("cosine"):
        return np.asarray(size > 0)
    return np.asarray(np.nanmax(vectors, axis=1) - np.nanmin(vectors, axis=1) > 1e-12 * size)


def pooled(vectors: np.ndarray, comparison: str) -> np.ndarray:
    """(1, n_pairs) the RDM most like all of `vectors` (n_rdms, n_pairs), by rsatoolbox's `pool_rdm`; see `POOLING`."""
    from rsatoolbox.rdm import RDMs
    from rsatoolbox.util.inference_util import pool_rdm

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Noise ceiling for tau based on averaged ranks")
        return np.asarray(pool_rdm(RDMs(vectors), method=comparison).get_vectors())


def residuals(vectors: np.ndarray, controls: np.ndarray, comparison: str) -> np.ndarray:
    """What least squares on the controls leaves of each RDM; two residuals' "corr" is the RDMs' partial correlation.

    `r - C (CᵀC)⁻¹ Cᵀ r` with C the controls and a constant; for "spearman" and "rho-a" of ranks, for "corr" of values.
    vectors, controls: (n_rdms, n_pairs), (n_controls, n_pairs); NaN = not compared, alike in all. An RDM that the
    controls explain wholly has residual 0. Returns (n_rdms, n_pairs).
    """
    from scipy.stats import rankdata

    used = ~np.isnan(vectors[0])
    values, known = vectors[:, used], controls[:, used]
    if comparison in _RANKS:
        values, known = rankdata(values, axis=1), rankdata(known, axis=1)
    centred, known = (rows - rows.mean(1, keepdims=True) for rows in (values, known))
    coefficients = np.linalg.lstsq(known.T, centred.T, rcond=None)[0]
    left = centred - (known.T @ coefficients).T
    # A residual that is rounding has no direction.
    explained = np.linalg.norm(left, axis=1) <= 1e-10 * np.linalg.norm(values, axis=1)
    left[explained] = 0
    full = np.full(vectors.shape, np.nan)
    full[:, used] = left
    return full
