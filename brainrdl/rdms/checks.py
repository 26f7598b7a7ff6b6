"""What makes an array of numbers RDMs over given stimuli."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, isqrt

import numpy as np

# Relative to the largest dissimilarity: what single precision leaves of equal numbers, with room.
_TOLERANCE = 1e-5
_LARGEST = 1e150  # whose square is a number


def as_vectors(values: np.ndarray, ids: Sequence[str], what: str) -> np.ndarray:
    """(n_rdms, n_pairs) float64, in rsatoolbox's and scipy's order of pairs.

    values: (n, n) or (n_rdms, n, n), symmetric and with 0 or NaN on the diagonal; or condensed, (n_pairs,) or
    (n_rdms, n_pairs). NaN = not measured, on both sides. The two sides are averaged, so that it does not matter in
    which order stimuli stand. ids: the stimuli, in that order. what: what messages begin with (the file).
    Raises ValueError for anything else: its shape, or the RDM and pair where it is not so.
    """
    n_stimuli = len(ids)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{what}: expected real numbers, got values of type {values.dtype}; save them as numbers")
    if n_stimuli < 2:
        raise ValueError(f"{what}: an RDM needs at least 2 stimuli, got {n_stimuli}; give all stimulus ids")
    values = _stacked(values, n_stimuli, what).astype(np.float64)
    if values.ndim == 2:
        check_finite(values, ids, what)
        return values
    for k, matrix in enumerate(values):
        _check_matrix(matrix, ids, what if len(values) == 1 else f"{what}, RDM {k} of {len(values)}")
    i, j = np.triu_indices(n_stimuli, 1)
    vectors: np.ndarray = values[:, i, j] / 2 + values[:, j, i] / 2  # halved first: their sum may be too large
    return vectors


def check_finite(vectors: np.ndarray, ids: Sequence[str], what: str) -> None:
    """Raise ValueError naming the first pair whose dissimilarity, or its square, is infinite.

    vectors: (n_rdms, n_pairs).
    """
    infinite = _too_large(vectors)
    if infinite.any():
        k, pair = np.argwhere(infinite)[0]
        i, j = (index[pair] for index in np.triu_indices(len(ids), 1))
        where = what if len(vectors) == 1 else f"{what}, RDM {k} of {len(vectors)}"
        raise _infinite(where, infinite, vectors[k, pair], ids[i], ids[j])


def n_of_pairs(n_pairs: int) -> int | None:
    """How many stimuli have so many pairs; None where no number has."""
    n_stimuli = (1 + isqrt(1 + 8 * n_pairs)) // 2
    return n_stimuli if comb(n_stimuli, 2) == n_pairs and n_stimuli > 1 else None


def _stacked(values: np.ndarray, n_stimuli: int, what: str) -> np.ndarray:
    """(n_rdms, n, n) or (n_rdms, n_pairs); ValueError where the shape is not one of the stimuli's."""
    n_pairs = comb(n_stimuli, 2)
    shape = values.shape
    if values.ndim in (2, 3) and shape[-2:] == (n_stimuli, n_stimuli) and len(values):
        return values.reshape(-1, n_stimuli, n_stimuli)
    if values.ndim in (1, 2) and shape[-1] == n_pairs and len(values):
        return values.reshape(-1, n_pairs)
    if shape == (n_pairs, 1):
        return values.T
    expected = f"expected ({n_stimuli}, {n_stimuli}) or ({n_pairs},) for {n_stimuli} stimuli, a stack of either"
    remedy = "give the stimuli of this file, one id a row of the RDM"
    if values.ndim in (2, 3) and shape[-1] == shape[-2]:
        raise ValueError(f"{what}: an RDM of {shape[-1]} × {shape[-1]}, {expected}; {remedy}")
    if values.ndim in (1, 2) and (other := n_of_pairs(shape[-1])):
        raise ValueError(f"{what}: {shape[-1]} pairs, which {other} stimuli have, {expected}; {remedy}")
    raise ValueError(f"{what}: not square: an array of shape {shape}, {expected}; save it in such a form")


def _check_matrix(matrix: np.ndarray, ids: Sequence[str], what: str) -> None:
    infinite = _too_large(matrix)
    if infinite.any():
        i, j = np.argwhere(infinite)[0].tolist()
        raise _infinite(what, infinite, matrix[i, j], ids[i], ids[j])
    missing = np.isnan(matrix)
    largest = np.abs(matrix[~missing]).max(initial=0)
    one_sided = missing != missing.T
    if one_sided.any():
        i, j = np.argwhere(one_sided & missing)[0]
        raise ValueError(
            f"{what}: not symmetric: from '{ids[i]}' to '{ids[j]}' is NaN (not measured), back is {matrix[j, i]:g}; "
            "put the value, or NaN, on both sides"
        )
    difference = np.where(missing, 0, np.abs(matrix - matrix.T))
    if difference.max() > _TOLERANCE * largest:
        i, j = divmod(int(difference.argmax()), len(ids))
        raise ValueError(
            f"{what}: not symmetric: '{ids[i]}' to '{ids[j]}' is {matrix[i, j]:g}, back {matrix[j, i]:g} (the largest "
            "difference); average the two sides, or save one as a condensed vector"
        )
    diagonal = np.where(missing.diagonal(), 0, np.abs(matrix.diagonal()))
    if diagonal.max() > _TOLERANCE * largest:
        k = int(diagonal.argmax())
        raise ValueError(
            f"{what}: the diagonal is not zero: '{ids[k]}' to itself is {matrix[k, k]:g}; expected dissimilarities, "
            "0 for a stimulus with itself (of similarities r save 1 - r)"
        )


def _too_large(values: np.ndarray) -> np.ndarray:
    largest = np.float64(_LARGEST)  # of its own type: a float32 beside it would make it infinite
    return np.asarray((values > largest) | (values < -largest))


def _infinite(what: str, infinite: np.ndarray, first: float, i: str, j: str) -> ValueError:
    kind, remedy = "infinite values", "save what was not measured as NaN"
    if np.isfinite(first):
        kind, remedy = f"values beyond {_LARGEST:g}", "their squares are infinite: save them in another unit"
    return ValueError(f"{what}: {int(infinite.sum())} {kind}, the first between '{i}' and '{j}'; {remedy}")
