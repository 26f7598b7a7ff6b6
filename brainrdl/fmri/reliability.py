"""How well patterns and RDMs repeat within a subject."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from brainrdl.fmri.patterns import column_correlations, fold_labels, half_labels, select_trials, split_halves
from brainrdl.fmri.trials import Trials

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


class Reliability(NamedTuple):
    """Agreement of two halves of the data (Pearson's r).

    halves: of the halves as they are. whole: of the whole data with another measurement of its size, `2 r / (1 + r)`
    (Spearman 1910, Brown 1910). NaN: not to be had; of whole also where r is below 0, which is no reliability.

    The formula supposes that twice the data have half the noise variance. That of cross-validated distances falls
    faster, where noise prevails by 4 (M - 1) / (M - 2) with M folds: of crossnobis `whole` is a lower estimate.
    """

    halves: float
    whole: float

    @property
    def ceiling(self) -> float:
        """What the noise-free values would correlate with the whole data, `sqrt(whole)`; NaN where r is not above 0.

        No model can be expected to do better; of crossnobis it is a lower estimate, as `whole`.
        """
        return math.sqrt(self.whole) if self.whole > 0 else math.nan


def spearman_brown(r: float) -> Reliability:
    """The reliability of data whose halves correlate by r; NaN below 0."""
    return Reliability(r, 2 * r / (1 + r) if r >= 0 else math.nan)


def pattern_reliability(trials: Trials, folds: str) -> Reliability:
    """Correlation over voxels of a stimulus's patterns in two halves of its folds, averaged over stimuli.

    Each voxel's mean over stimuli is taken away in each half first: what all stimuli have in common tells none apart.
    A stimulus whose pattern is constant in a half does not count; NaN where that is so of all, as with a single one.
    Raises ValueError as `split_halves`.
    """
    halves = split_halves(trials, folds)
    first, second = (half - half.mean(0) for half in (halves.first, halves.second))
    r = column_correlations(first.T, second.T)
    return spearman_brown(math.nan if np.isnan(r).all() else float(np.nanmean(r)))


def rdm_reliability(trials: Trials, folds: str, make: Callable[[Trials], RDMs], folds_a_half: int) -> Reliability:
    """Correlation over pairs of the RDMs of two halves of the folds.

    make: the RDM of some trials. Noise from repetitions has to be estimated in it, of each half's own: estimated from
    all trials it makes the halves alike. folds_a_half: how many folds of a stimulus it needs, 2 for crossnobis, else 1.
    Over the stimuli that have as many in both halves; NaN where these are fewer than 4. Raises ValueError as
    `half_labels`.
    """
    half = half_labels(trials, folds, folds_a_half)
    stimulus = trials.table["stimulus"].to_numpy()
    n_folds = pd.Series(fold_labels(trials, folds)).groupby(stimulus).transform("nunique").to_numpy()
    enough = n_folds >= 2 * folds_a_half
    if len(set(stimulus[enough])) < 4:
        return Reliability(math.nan, math.nan)
    return _agreement(*(make(select_trials(trials, enough & (half == k))) for k in (0, 1)))


def _agreement(first: RDMs, second: RDMs) -> Reliability:
    """Pearson's r of two RDMs over the same stimuli, over the pairs that both measured."""
    a, b = first.get_vectors()[0], second.get_vectors()[0]
    both = np.isfinite(a) & np.isfinite(b)
    return spearman_brown(float(column_correlations(a[both, None], b[both, None])[0]))
