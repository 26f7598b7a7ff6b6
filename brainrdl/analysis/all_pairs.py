"""Dissimilarities of all pairs of many stimuli, in blocks of rows: memory goes by the blocks, not by the patterns."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from brainrdl.dissimilarity import Transformed, check_dissimilarity, transform_patterns
from brainrdl.rdms.selection import pair_position

# Bytes of float64: of the rows that are held while all others pass by, and of the rows that pass by at a time.
_HELD = 2**29
_BLOCK = 2**26
_HELD_ROWS = 4096  # of which all products are held
_BLOCK_ROWS = 512


class Rows(Protocol):
    """Patterns of which some rows are read at a time: a tensor, or something kept elsewhere."""

    @property
    def shape(self) -> Sequence[int]:
        """(n_stimuli, n_units)."""
        ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """(n_rows, n_units) of a floating-point type, on the CPU."""
        ...


@torch.no_grad()
def all_pair_dissimilarities(patterns: Rows, dissimilarity: str = "euclidean") -> np.ndarray:
    """`pair_dissimilarities` of all pairs in float64, without holding more than blocks of the patterns in float64.

    patterns: (n_stimuli, n_units), read a block of rows at a time, each several times. dissimilarity: a name of
    `brainrdl.dissimilarity` that goes by the patterns alone (all but "mahalanobis").
    Returns (n_pairs,) float64 in the order of `brainrdl.pairs.all_pairs`. NaN where the measure is not defined.
    Beside the result it takes about 1 GiB at most. Raises ValueError for an unknown measure, fewer than two stimuli,
    patterns without units.
    """
    check_dissimilarity(dissimilarity)
    n_stimuli, n_units = patterns.shape
    if n_stimuli < 2 or n_units < 1:
        raise ValueError(f"expected patterns of at least 2 stimuli and 1 unit, got shape ({n_stimuli}, {n_units})")
    block = max(1, min(_BLOCK_ROWS, _BLOCK // (8 * n_units)))
    held = block * max(1, min(_HELD // (8 * n_units), _HELD_ROWS) // block)
    rows = _CentredRows(patterns, dissimilarity, block)
    result = np.empty(comb(n_stimuli, 2))
    for first in range(0, n_stimuli, held):
        last = min(first + held, n_stimuli)
        left = torch.empty((last - first, n_units), dtype=torch.float64)
        for start in range(first, last, block):
            left[start - first : start - first + block] = rows.block(start)
        among = _products(left, left)
        for start in range(first, last, _BLOCK_ROWS):
            i, j = slice(start, min(start + _BLOCK_ROWS, last)), slice(start, last)
            values = rows.dissimilarities(i, j, among[i.start - first : i.stop - first, start - first :])
            _keep(result, n_stimuli, values, i, j)
        for start in range(last, n_stimuli, block):
            i, j = slice(first, last), slice(start, min(start + block, n_stimuli))
            products = _products(left, rows.block(start))
            _keep(result, n_stimuli, rows.dissimilarities(i, j, products), i, j)
    return result


def _products(left: Tensor, right: Tensor) -> Tensor:
    """The products of all rows, by numpy: it knows that a matrix times itself is symmetric, and torch does not."""
    return torch.from_numpy(left.numpy() @ right.numpy().T)


def _keep(result: np.ndarray, n_stimuli: int, values: Tensor, i: slice, j: slice) -> None:
    """Put the values of the rows i with the rows j where they belong, those of j > i."""
    of_rows = values.numpy()
    for k in range(i.start, i.stop):
        first = max(k + 1, j.start)
        if first < j.stop:
            position = pair_position(k, first, n_stimuli)
            result[position : position + j.stop - first] = of_rows[k - i.start, first - j.start :]


class _CentredRows:
    """The patterns made ready for squared distances, their mean over stimuli taken away, a block at a time.

    A large common mean would eat the digits of the Gram matrix's differences.
    """

    def __init__(self, patterns: Rows, dissimilarity: str, block: int) -> None:
        self._patterns, self._dissimilarity, self._size = patterns, dissimilarity, block
        n_stimuli, n_units = patterns.shape
        self._mean = torch.zeros(n_units, dtype=torch.float64)
        self._norms = torch.empty(n_stimuli, dtype=torch.float64)
        self._undefined = torch.zeros(n_stimuli, dtype=torch.bool)
        self._scale = 1.0
        for start in range(0, n_stimuli, block):
            transformed = self._transform(start)
            self._mean += transformed.explicit().sum(0)
            self._scale = transformed.scale
            if transformed.undefined is not None:
                self._undefined[start : start + block] = transformed.undefined
        self._mean /= n_stimuli

    def _transform(self, start: int) -> Transformed:
        # Row by row: what a block's rows become does not hang on the others.
        return transform_patterns(self._patterns[start : start + self._size].double(), self._dissimilarity)

    def block(self, start: int) -> Tensor:
        """(n_rows, n_units) of the rows from `start`, whose norms are then known."""
        centred = self._transform(start).explicit() - self._mean
        numbers = centred.numpy()
        self._norms[start : start + self._size] = torch.from_numpy(np.einsum("ij,ij->i", numbers, numbers))
        return centred

    def dissimilarities(self, i: slice, j: slice, products: Tensor) -> Tensor:
        """Between the rows i and the rows j, of their products; NaN where one has no such dissimilarity.

        All of them have been read before.
        """
        norms = self._norms[i, None] + self._norms[j]
        values = norms.sub_(products, alpha=2).clamp_(min=0).mul_(self._scale)
        return values.masked_fill_(self._undefined[i, None] | self._undefined[j], torch.nan)
