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
# Larger blocks would compute more of the lower triangle, which nobody asks for.
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
    held = block * max(1, _HELD // (8 * n_units * block))
    rows = _CentredRows(patterns, dissimilarity, block)
    result = np.empty(comb(n_stimuli, 2))
    for first in range(0, n_stimuli, held):
        last = min(first + held, n_stimuli)
        left = torch.empty((last - first, n_units), dtype=torch.float64)
        for start in range(first, last, block):
            left[start - first : start - first + block] = rows.block(start)
        for start in range(first, n_stimuli, block):
            stop = min(start + block, n_stimuli)
            right = left[start - first : stop - first] if stop <= last else rows.block(start)
            end = min(stop, last)  # of the rows i that have a j > i in this block
            values = rows.dissimilarities(slice(first, end), left[: end - first], slice(start, stop), right).numpy()
            for i in range(first, end):
                j = max(i + 1, start)
                if j < stop:
                    position = pair_position(i, j, n_stimuli)
                    result[position : position + stop - j] = values[i - first, j - start :]
    return result


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
            self._mean += transformed.patterns.sum(0)
            self._scale = transformed.scale
            if transformed.undefined is not None:
                self._undefined[start : start + block] = transformed.undefined
        self._mean /= n_stimuli
        for start in range(0, n_stimuli, block):
            self._norms[start : start + block] = self.block(start).square_().sum(1)

    def _transform(self, start: int) -> Transformed:
        # Row by row: what a block's rows become does not hang on the others.
        return transform_patterns(self._patterns[start : start + self._size].double(), self._dissimilarity)

    def block(self, start: int) -> Tensor:
        """(n_rows, n_units) of the rows from `start`."""
        return self._transform(start).patterns - self._mean

    def dissimilarities(self, i: slice, left: Tensor, j: slice, right: Tensor) -> Tensor:
        """Between the rows i, which are `left`, and the rows j, `right`; NaN where one has no such dissimilarity."""
        norms = self._norms[i, None] + self._norms[j]
        values = norms.addmm_(left, right.T, alpha=-2).clamp_(min=0).mul_(self._scale)
        return values.masked_fill_(self._undefined[i, None] | self._undefined[j], torch.nan)
