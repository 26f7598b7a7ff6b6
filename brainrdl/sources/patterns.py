"""Measured response patterns as teacher: distances are computed at the pairs that are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from brainrdl.dissimilarity import (
    DISSIMILARITIES,
    dissimilarities,
    precision_factor,
    transform_patterns,
)
from brainrdl.pairs import Pairs, rows_of_pairs
from brainrdl.stimuli import Stimuli, Targets, without_waiting

CROSSNOBIS = "crossnobis"


class PatternTable(NamedTuple):
    """Responses of one subject in one region of interest, a row a measurement.

    patterns: (n_rows, n_voxels), any real type, in memory or memory-mapped.
    stimulus: id of each row; None where a row belongs to no stimulus (a blank trial, a missing repetition): it
        is not read.
    fold: what makes rows independent of each other, run or session and never trials of one run; None: not known.
    precision: (n_voxels, n_voxels), the inverse of the noise covariance, one for all rows; None: the identity.
    scale: what the stored numbers are divided by (300 for NSD's int16 betas).
    """

    patterns: np.ndarray
    stimulus: Sequence[str | None]
    fold: Sequence[object] | None = None
    precision: np.ndarray | None = None
    scale: float = 1.0

    @classmethod
    def from_repetitions(
        cls,
        responses: np.ndarray,
        stimuli: Sequence[str],
        fold: Sequence[object] | np.ndarray | None = None,
        precision: np.ndarray | None = None,
        scale: float = 1.0,
    ) -> PatternTable:
        """The table of a (n_stimuli, n_repetitions, n_voxels) array; a memory map stays one.

        A repetition whose voxels are all NaN is missing. fold: the run or session of each repetition,
        (n_repetitions,), or of each response, (n_stimuli, n_repetitions).
        """
        if responses.ndim != 3 or len(responses) != len(stimuli):
            raise ValueError(
                f"expected responses of shape (n_stimuli, n_repetitions, n_voxels) for {len(stimuli)} stimuli, "
                f"got {responses.shape}"
            )
        shape = responses.shape[:2]
        folds = None
        if fold is not None:
            given = np.asarray(fold, dtype=object)
            if given.shape not in (shape, shape[1:]):
                raise ValueError(f"expected folds of shape {shape} or {shape[1:]}, got {given.shape}")
            folds = np.broadcast_to(given, shape).ravel().tolist()
        missing = np.zeros(shape, bool)
        if responses.dtype.kind == "f":
            for stimulus, response in enumerate(responses):
                missing[stimulus] = np.isnan(response).all(1)
        ids = np.repeat(np.array(stimuli, dtype=object), shape[1])
        ids[missing.ravel()] = None
        return cls(responses.reshape(-1, responses.shape[2]), ids.tolist(), folds, precision, scale)


class MeasuredPatterns:
    """Dissimilarities between measured response patterns, per name ("sub-01/IT"), as rsatoolbox computes them.

    tables: per name a `PatternTable`. dissimilarity: "crossnobis", or a name of `brainrdl.dissimilarity`, which is
    then taken between the means over each stimulus's rows (rsatoolbox's `calc_rdm`). "mahalanobis" needs each
    table's precision, "crossnobis" takes it where there is one; with other measures it is refused.

    crossnobis: s_ii + s_jj - 2 s_ij, with s_ij the mean of x_aᵀ P x_b / n_voxels over all rows a of i and b of j
    that are of different folds. That is rsatoolbox's `calc_rdm_unbalanced`; where every stimulus has every fold
    equally often it is `calc_rdm_crossnobis` too. It is unbiased and passes as it is, negative values included.
    Only where all stimuli have the same folds does cancel what is common to the rows of a fold: elsewhere it biases
    the estimate (and what is common to all rows adds variance), so centre the data within each fold. A stimulus in a
    single fold is not covered.

    weights: "repetitions" weighs a pair by n_i n_j / (n_i + n_j), n the number of rows of a stimulus, divided by the
    mean over all pairs of covered stimuli; None = all alike.

    Of a memory map only the rows of the asked stimuli are read. Computed in float64 on the CPU, given in float32
    (float64 for float64 images). A precision costs n_voxels² for each row that is read: where that is slow, store
    `patterns @ precision_factor(P)` and leave it out. NaN: a stimulus that is not covered, a pair of a stimulus with
    itself, a pattern that has no such dissimilarity (constant, for correlation). Raises ValueError for malformed
    tables, for NaN or infinite responses (of a memory map when they are read), and for crossnobis without two folds.
    """

    def __init__(
        self, tables: Mapping[str, PatternTable], dissimilarity: str = "euclidean", *, weights: str | None = None
    ) -> None:
        measures = [*DISSIMILARITIES, CROSSNOBIS]
        if dissimilarity not in measures:
            raise ValueError(f"unknown dissimilarity '{dissimilarity}'; expected one of {', '.join(measures)}")
        if weights not in (None, "repetitions"):
            raise ValueError(f"unknown weights '{weights}'; expected 'repetitions' or None")
        if not tables:
            raise ValueError("no patterns: give at least one name its PatternTable")
        self.names = tuple(tables)
        self.dissimilarity = dissimilarity
        self.unbiased = dissimilarity == CROSSNOBIS
        self.weights = weights
        self._responses = {name: _Responses(name, table, dissimilarity) for name, table in tables.items()}
        _share_indices(list(self._responses.values()))
        self.ids = tuple(dict.fromkeys(one for responses in self._responses.values() for one in responses.index))

    def covers(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        """Which stimuli have rows; for crossnobis, rows of two folds."""
        return {
            name: torch.tensor([stimulus in responses.index for stimulus in ids], dtype=torch.bool)
            for name, responses in self._responses.items()
        }

    def targets(self, stimuli: Stimuli, pairs: Pairs) -> Mapping[str, Targets]:
        """Dissimilarities at the pairs; NaN = not measured, with weight 0 where there are weights."""
        pairs = pairs.to("cpu")
        device = stimuli.images.device
        dtype = torch.float64 if stimuli.images.dtype == torch.float64 else torch.float32
        asked: dict[int, _Asked] = {}  # tables with the same index are asked for the same
        result = {}
        for name, responses in self._responses.items():
            index = id(responses.index)
            if index not in asked:
                asked[index] = _ask(responses.index, stimuli.ids, pairs)
            codes, between, known = asked[index]
            values = self._dissimilarities(responses, codes, between).to(dtype)
            weights = None
            if self.weights is not None:
                weights = responses.repetition_weights(codes[between.i], codes[between.j]).to(dtype)
                weights = without_waiting(_at(known, weights.masked_fill(values.isnan(), 0), 0), device)
            result[name] = Targets(without_waiting(_at(known, values, torch.nan), device), weights)
        return result

    def _dissimilarities(self, responses: _Responses, codes: Tensor, pairs: Pairs) -> Tensor:
        """(n_pairs,) float64 between the stimuli `codes`, as numbered in `responses`."""
        if not len(codes):
            return torch.zeros(0, dtype=torch.float64)
        if responses.is_single:  # codes are sorted, and so are their rows
            means = responses.read(responses.rows[codes])
        else:
            rows, stimulus = responses.rows_of(codes)
            patterns = responses.read(rows)
            if self.dissimilarity == CROSSNOBIS:
                if responses.factor is not None:
                    patterns = patterns @ responses.factor
                return crossnobis(patterns, stimulus, responses.fold[rows], pairs)
            means = _sums(patterns, stimulus, len(codes)) / responses.counts[codes, None]
        return dissimilarities(transform_patterns(means, self.dissimilarity, responses.factor), pairs)


class _Asked(NamedTuple):
    """codes: the stimuli that occur, as they are numbered, sorted. pairs: of these. known: (n_asked,) bool, which of
    the asked pairs they are; None = all."""

    codes: Tensor
    pairs: Pairs
    known: Tensor | None


def _ask(index: Mapping[str, int], ids: Sequence[str], pairs: Pairs) -> _Asked:
    """What the pairs come to in a table; what it does not know, or is a stimulus with itself, is left out."""
    code = torch.tensor([index.get(one, -1) for one in ids], dtype=torch.int64)
    i, j = code[pairs.i], code[pairs.j]
    known = (i >= 0) & (j >= 0) & (i != j)
    if known.all():
        return _Asked(*rows_of_pairs(Pairs(i, j)), None)
    return _Asked(*rows_of_pairs(Pairs(i[known], j[known])), known)


def _at(known: Tensor | None, values: Tensor, elsewhere: float) -> Tensor:
    """The values where they are known, `elsewhere` in other places."""
    return values if known is None else values.new_full(known.shape, elsewhere).masked_scatter_(known, values)


def crossnobis(patterns: Tensor, stimulus: Tensor, fold: Tensor, pairs: Pairs) -> Tensor:
    """s_ii + s_jj - 2 s_ij, with s_ij the mean of x_aᵀ x_b / n_voxels over rows a of i, b of j of different folds.

    patterns: (n_rows, n_voxels), whitened. stimulus, fold: (n_rows,) int64, stimuli counted from 0.
    pairs: of stimuli. Returns (n_pairs,), NaN where there are no such rows. As rsatoolbox's `calc_rdm_unbalanced`.
    """
    n_stimuli, n_voxels = int(stimulus.max()) + 1, patterns.shape[1]
    product, number = patterns.new_zeros(2, n_stimuli, n_stimuli)  # of all rows, less those of the same fold
    everything = torch.ones_like(fold, dtype=torch.bool)
    for sign, rows in [(1, everything), *((-1, fold == one) for one in fold.unique())]:
        present, where = torch.unique(stimulus[rows], return_inverse=True)
        sums, counts = _sums(patterns[rows], where, len(present)), where.bincount().to(patterns.dtype)
        product[present[:, None], present] += sign * (sums @ sums.T)
        number[present[:, None], present] += sign * torch.outer(counts, counts)
    similarity = product.masked_fill(number == 0, torch.nan) / number
    itself = similarity.diagonal()
    values: Tensor = (itself[pairs.i] + itself[pairs.j] - 2 * similarity[pairs.i, pairs.j]) / n_voxels
    return values


def _sums(patterns: Tensor, stimulus: Tensor, n_stimuli: int) -> Tensor:
    return patterns.new_zeros(n_stimuli, patterns.shape[1]).index_add_(0, stimulus, patterns)


class _Responses:
    """A table made ready: which rows each stimulus has, stimuli numbered.

    index: covered id -> number. counts: (n_stimuli,) rows of each. rows: those of stimulus 0, then of stimulus 1, and
    so on. is_single: each stimulus has one row. fold: (n_rows,) numbered; empty where not needed.
    """

    def __init__(self, name: str, table: PatternTable, dissimilarity: str) -> None:
        _check_table(name, table)
        self.name, self.patterns, self.scale = name, table.patterns, table.scale
        self.factor = _factor(name, table, dissimilarity)
        code, ids = pd.factorize(np.asarray(table.stimulus, dtype=object))  # None is -1
        for stimulus in ids:
            if not isinstance(stimulus, str):
                raise ValueError(f"{name}: expected stimulus ids as text, got {stimulus!r}; use str(...)")
        used = np.flatnonzero(code >= 0)
        if not len(used):
            raise ValueError(f"{name}: no row has a stimulus; give each row of the patterns its stimulus id")
        self.rows = torch.from_numpy(used[np.argsort(code[used], kind="stable")])
        counts = np.bincount(code[used])
        self.counts = torch.from_numpy(counts)
        self.is_single = bool((counts == 1).all())
        self._starts = torch.from_numpy(np.cumsum(counts) - counts)
        self.fold = torch.zeros(0, dtype=torch.int64)
        covered = np.ones(len(ids), bool)
        if dissimilarity == CROSSNOBIS:
            fold = _folds(name, table, used)
            self.fold = torch.from_numpy(fold)
            n_folds = fold.max() + 1
            covered = np.bincount(np.unique(code[used] * n_folds + fold[used]) // n_folds) >= 2
            if not covered.any():
                raise ValueError(
                    f"{name}: no stimulus was measured in two folds, so crossnobis has nothing to compare; use another "
                    "dissimilarity"
                )
        self.index = {stimulus: number for number, stimulus in enumerate(ids) if covered[number]}
        self._mean_weight = _mean_over_pairs(counts[covered])
        self._is_checked = not isinstance(table.patterns, np.memmap)
        if self._is_checked:
            parts = (used[start : start + 1024] for start in range(0, len(used), 1024))
            self._check_finite(np.array([np.isfinite(table.patterns[part]).all(0) for part in parts]))

    def rows_of(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of some stimuli in the order in which they are stored, and at which place in `codes` each is."""
        counts = self.counts[codes]
        place = torch.repeat_interleave(counts)
        within = torch.arange(len(place)) - (counts.cumsum(0) - counts)[place]
        rows, order = self.rows[self._starts[codes][place] + within].sort()
        return rows, place[order]

    def read(self, rows: Tensor) -> Tensor:
        """(n_rows, n_voxels) in float64. Raises ValueError for NaN and infinite values."""
        patterns = self.patterns[rows.numpy()]
        if not self._is_checked:
            self._check_finite(np.isfinite(patterns))
        read = torch.from_numpy(np.asarray(patterns, np.float64))
        return read if self.scale == 1 else read / self.scale

    def repetition_weights(self, i: Tensor, j: Tensor) -> Tensor:
        """n_i n_j / (n_i + n_j), divided by its mean over all pairs."""
        n_i, n_j = self.counts[i].double(), self.counts[j].double()
        return n_i * n_j / (n_i + n_j) / self._mean_weight

    def _check_finite(self, finite: np.ndarray) -> None:
        if not finite.all():
            bad = np.flatnonzero(~finite.all(0))
            raise ValueError(
                f"{self.name}: {len(bad)} of {finite.shape[1]} voxels hold NaN or infinite values, the first is voxel "
                f"{bad[0]}; drop these voxels, and mark rows that were not measured by the stimulus None"
            )


def _share_indices(responses: Sequence[_Responses]) -> None:
    """Where tables number the same stimuli in the same way, one index is enough."""
    known: dict[tuple[str, ...], dict[str, int]] = {}
    for one in responses:
        other = known.setdefault(tuple(one.index), one.index)
        if other == one.index:
            one.index = other


def _check_table(name: str, table: PatternTable) -> None:
    patterns, scale = table.patterns, table.scale
    if patterns.ndim != 2 or not patterns.shape[1] or patterns.dtype.kind not in "fiu":
        raise ValueError(
            f"{name}: expected patterns of real numbers, (n_rows, n_voxels), got {patterns.dtype} of shape "
            f"{patterns.shape}"
        )
    for field, values in (("stimulus", table.stimulus), ("fold", table.fold)):
        if values is not None and len(values) != len(patterns):
            raise ValueError(f"{name}: expected one {field} a row, got {len(values)} for {len(patterns)} rows")
    if not np.isfinite(scale) or scale == 0:
        raise ValueError(f"{name}: expected a scale that numbers can be divided by, got {scale}")


def _factor(name: str, table: PatternTable, dissimilarity: str) -> Tensor | None:
    if table.precision is None:
        if dissimilarity == "mahalanobis":
            raise ValueError(f"{name}: dissimilarity 'mahalanobis' needs the table's precision matrix")
        return None
    if dissimilarity not in ("mahalanobis", CROSSNOBIS):
        raise ValueError(f"{name}: a precision matrix goes with 'mahalanobis' and 'crossnobis', not '{dissimilarity}'")
    n_voxels = table.patterns.shape[1]
    if table.precision.shape != (n_voxels, n_voxels):
        raise ValueError(f"{name}: precision has shape {table.precision.shape}, expected ({n_voxels}, {n_voxels})")
    try:
        return precision_factor(torch.from_numpy(np.asarray(table.precision, np.float64)))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _folds(name: str, table: PatternTable, used: np.ndarray) -> np.ndarray:
    """(n_rows,) folds, numbered."""
    if table.fold is None:
        raise ValueError(f"{name}: crossnobis needs the fold of each row: its run or session")
    fold, folds = pd.factorize(np.asarray(table.fold, dtype=object))  # None and NaN are -1
    if (fold[used] < 0).any():
        raise ValueError(f"{name}: {(fold[used] < 0).sum()} rows have no fold; give each row its run or session")
    if len(np.unique(fold[used])) < 2:
        raise ValueError(
            f"{name}: crossnobis needs at least 2 folds, got only '{folds[fold[used][0]]}'; folds are independent runs "
            "or sessions. With one run, use 'mahalanobis' or 'correlation'"
        )
    return np.asarray(fold, np.int64)


def _mean_over_pairs(counts: np.ndarray) -> float:
    """The mean of n_i n_j / (n_i + n_j) over all pairs of stimuli with `counts` rows."""
    n, number = np.unique(counts, return_counts=True)
    harmonic = np.outer(n, n) / np.add.outer(n, n)
    n_pairs = len(counts) * (len(counts) - 1)
    return float((number @ harmonic @ number - number @ harmonic.diagonal()) / n_pairs) if n_pairs else 1.0
