"""Pairs of stimuli: all of them, or a random sample."""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from brainrdl.stimuli import without_waiting


class Pairs(NamedTuple):
    """Pairs of rows of a batch.

    i, j: (n_pairs,) int64 rows, i < j; every pair distinct.
    """

    i: Tensor
    j: Tensor

    def to(self, device: torch.device | str) -> Pairs:
        """The same pairs on `device`."""
        return Pairs(without_waiting(self.i, device), without_waiting(self.j, device))


def all_pairs(n_stimuli: int) -> Pairs:
    """All n(n-1)/2 pairs, in the order of rsatoolbox's and scipy's condensed vectors."""
    i, j = torch.triu_indices(n_stimuli, n_stimuli, offset=1)
    return Pairs(i, j)


def rows_of_pairs(pairs: Pairs) -> tuple[Tensor, Pairs]:
    """The rows that occur in the pairs, sorted, and the pairs as positions in them."""
    rows, positions = torch.unique(torch.cat([pairs.i, pairs.j]), return_inverse=True)
    i, j = positions.chunk(2)
    return rows, Pairs(i, j)


def sample_pairs(n_stimuli: int, n_pairs: int | None, generator: np.random.Generator) -> Pairs:
    """Draw distinct pairs, uniformly and without replacement (the P of Eq. 4, McClure & Kriegeskorte 2016).

    n_pairs: how many unordered pairs; None, or at least all there are, gives all of them.
    Raises ValueError for fewer than two stimuli or fewer than one pair.
    """
    n_all = comb(n_stimuli, 2)
    if n_stimuli < 2:
        raise ValueError(f"expected at least 2 stimuli to form a pair, got {n_stimuli}")
    if n_pairs is not None and n_pairs < 1:
        raise ValueError(f"expected at least 1 pair, got {n_pairs}")
    if n_pairs is None or n_pairs >= n_all:
        return all_pairs(n_stimuli)
    position = np.sort(generator.choice(n_all, size=n_pairs, replace=False, shuffle=False))
    start = _row_starts(n_stimuli)
    i = np.searchsorted(start, position, side="right") - 1
    # The last row is empty and starts where its predecessor ends; no position reaches it.
    j = position - start[i] + i + 1
    return Pairs(torch.from_numpy(i), torch.from_numpy(j))


@lru_cache(maxsize=8)
def _row_starts(n_stimuli: int) -> np.ndarray:
    """Row i of the upper triangle starts at position i(2n-i-1)/2; searching in those starts inverts it exactly."""
    row = np.arange(n_stimuli, dtype=np.int64)
    start: np.ndarray = row * (2 * n_stimuli - row - 1) // 2
    start.flags.writeable = False
    return start


def sample_images(n_stimuli: int, n_images: int, generator: np.random.Generator) -> Pairs:
    """All pairs among `n_images` stimuli drawn without replacement: a teacher then needs to see only those.

    Raises ValueError for fewer than two stimuli or images.
    """
    if n_stimuli < 2 or n_images < 2:
        raise ValueError(f"expected at least 2 images out of 2 stimuli, got {n_images} out of {n_stimuli}")
    if n_images >= n_stimuli:
        return all_pairs(n_stimuli)
    rows = torch.from_numpy(np.sort(generator.choice(n_stimuli, size=n_images, replace=False, shuffle=False)))
    i, j = all_pairs(n_images)
    return Pairs(rows[i], rows[j])
