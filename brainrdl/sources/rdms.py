"""Measured RDMs as teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from brainrdl.notes import warn_result
from brainrdl.pairs import Pairs
from brainrdl.rdms import (
    average_rdms,
    explain_missing,
    load_rdms,
    measure_name,
    select_rdms,
    stimulus_ids,
    subset_stimuli,
)
from brainrdl.rdms.selection import Rescale, pair_position, rdm_descriptor
from brainrdl.stimuli import Stimuli, Targets, without_waiting

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

CROSSNOBIS = "crossnobis"
UNKNOWN = "unknown"


class MeasuredRDMs:
    """Dissimilarities that stand in RDMs, one RDM a name.

    rdms: rsatoolbox's RDMs; NaN = not measured. They are taken as they are, negative values (crossnobis) included.
    stimulus: the pattern descriptor that holds the stimulus ids.
    name: the rdm_descriptor after which an RDM is called ("roi"), or several (["subject", "roi"]: "sub-01/IT"). None:
        `roi` where there is one, else `name`, else "rdm-0", "rdm-1", ...
    weights: the reliability of each pair, >= 0: RDMs over the same stimuli and with the same names; 0 leaves a pair
        out. None: all alike.

    `dissimilarity` is the RDMs' measure, "unknown" where they have none; `unbiased` says whether zero means no
    difference, which is so for crossnobis alone. Pairs are looked up by id, whatever the order of the RDMs' rows; a
    pair with an id they do not have, or of a stimulus with itself, is NaN. Raises ValueError for what is no RDMs
    object, ids that are doubled, names that are not unique, RDMs without a pair, with infinite values or with all pairs
    alike, and weights that do not fit. Warns (`ResultWarning`) of values that the measure cannot have.
    """

    def __init__(
        self,
        rdms: RDMs,
        stimulus: str = "stimulus",
        name: str | Sequence[str] | None = None,
        weights: RDMs | None = None,
    ) -> None:
        _check_rdms(rdms)
        ids = stimulus_ids(rdms, stimulus)
        self.names = tuple(_names(rdms, name))
        self.dissimilarity = measure_name(rdms.dissimilarity_measure) or UNKNOWN
        self.unbiased = self.dissimilarity == CROSSNOBIS
        self.ids = ids
        self._row = {one: row for row, one in enumerate(ids)}
        values = np.asarray(rdms.dissimilarities, dtype=np.float64)
        for one, vector in zip(self.names, values, strict=True):
            _check_varies(one, vector)
            _check_measure(one, vector, self.dissimilarity)
        self._values = _Table(values, torch.nan)
        self._covered = _covered(values, len(ids))
        self._weights: _Table | None = None
        if weights is not None:
            self._weights = _Table(self._matched(weights, stimulus, name, np.isnan(values)), 0.0)

    @classmethod
    def load(
        cls,
        path: str | Path,
        stimulus: str = "stimulus",
        name: str | Sequence[str] | None = None,
        select: Mapping[str, object] | None = None,
        average: str | Sequence[str] | None = None,
        rescale: Rescale | None = None,
        **reading: Any,
    ) -> MeasuredRDMs:
        """From a file: `load_rdms(path, **reading)`, of these the selected ones, averaged where it says so.

        select: rdm_descriptor -> value or values (`select_rdms`). average: over which descriptors, rescale: how they
        are brought to one scale before (`average_rdms`). Raises ValueError, naming the file, as those and the class.
        """
        if rescale is not None and average is None:
            raise ValueError(f"{path}: rescale is a part of averaging; say by `average` over what")
        rdms = load_rdms(path, **reading)
        try:
            if select:
                rdms = select_rdms(rdms, **select)
            if average is not None:
                rdms = average_rdms(rdms, average, rescale)
            return cls(rdms, stimulus, name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def covers(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        """Per name: (n_stimuli,) bool, which stimuli have at least one measured pair."""
        rows = self._rows(ids)
        return {name: covered[rows] for name, covered in zip(self.names, self._covered, strict=True)}

    def targets(self, stimuli: Stimuli, pairs: Pairs) -> Mapping[str, Targets]:
        """The measured dissimilarities at the pairs, NaN where there is none, with the weights if there are any."""
        n_stimuli = len(self._row)
        rows = self._rows(stimuli.ids).to(pairs.i.device)
        i, j = rows[pairs.i], rows[pairs.j]
        low, high = torch.minimum(i, j), torch.maximum(i, j)
        known = (low != high) & (high < n_stimuli)
        position = torch.where(known, pair_position(low, high, n_stimuli), -1)
        values = self._values.at(position, stimuli.images)
        if self._weights is None:
            return {name: Targets(v) for name, v in zip(self.names, values, strict=True)}
        weights = self._weights.at(position, stimuli.images)
        return {name: Targets(v, w) for name, v, w in zip(self.names, values, weights, strict=True)}

    def _rows(self, ids: Sequence[str]) -> Tensor:
        """(n_stimuli,) rows in the RDMs; one past the last where an id is not there."""
        unknown = len(self._row)
        return torch.tensor([self._row.get(one, unknown) for one in ids], dtype=torch.int64)

    def _matched(
        self, weights: RDMs, stimulus: str, name: str | Sequence[str] | None, missing: np.ndarray
    ) -> np.ndarray:
        """The weights (n_rdms, n_pairs), in the order of the names and stimuli; 0 where nothing was measured."""
        ids, names = stimulus_ids(weights, stimulus), _names(weights, name)
        for what, own, given in (("stimuli", tuple(self._row), ids), ("names", self.names, names)):
            if set(own) != set(given):
                differing = sorted(set(own) ^ set(given))
                hint = explain_missing(given, own) or "make them of the same RDMs"
                raise ValueError(
                    f"weights: their {what} are not those of the RDMs: {len(differing)} differ, the first is "
                    f"'{differing[0]}'; {hint}"
                )
        matched = subset_stimuli(weights, list(self._row), stimulus).dissimilarities
        matched = matched[[names.index(one) for one in self.names]]
        wrong = ~missing & ~((matched >= 0) & np.isfinite(matched))
        if wrong.any():
            k, pair = np.argwhere(wrong)[0]
            raise ValueError(
                f"weights of '{self.names[k]}': expected numbers >= 0 wherever a pair was measured, got "
                f"{matched[k, pair]:g} ({int(wrong.sum())} like that); give 0 to leave a pair out"
            )
        return np.where(missing, 0, matched)


class _Table:
    """(n_rdms, n_pairs) numbers, kept once a device and floating-point type that asks for them."""

    def __init__(self, numbers: np.ndarray, elsewhere: float) -> None:
        """elsewhere: what stands at position -1."""
        last = np.full((len(numbers), 1), elsewhere)
        self._numbers = torch.from_numpy(np.concatenate([numbers, last], axis=1))
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def at(self, position: Tensor, like: Tensor) -> tuple[Tensor, ...]:
        """Per RDM: (n_pairs,), on the device of `like`, float64 where it is, else float32."""
        kind = like.device, torch.float64 if like.dtype == torch.float64 else torch.float32
        if kind not in self._copies:
            self._copies[kind] = self._numbers.to(*kind)
        table = self._copies[kind]
        return table[:, without_waiting(position, table.device)].unbind(0)


def _names(rdms: RDMs, name: str | Sequence[str] | None) -> list[str]:
    if name is None:
        name = next((known for known in ("roi", "name") if known in rdms.rdm_descriptors), [])
    descriptors = [name] if isinstance(name, str) else list(name)
    if not descriptors:
        return [f"rdm-{k}" for k in range(rdms.n_rdm)]
    values = [rdm_descriptor(rdms, descriptor) for descriptor in descriptors]
    names = ["/".join(parts) for parts in zip(*values, strict=True)]
    if len(set(names)) < len(names):
        twice = next(one for one in names if names.count(one) > 1)
        others = [other for other in rdms.rdm_descriptors if other not in (*descriptors, "index")]
        raise ValueError(
            f"{names.count(twice)} RDMs are called '{twice}': select one, average them, or name them by more "
            f"descriptors than {', '.join(descriptors)}; there are also: {', '.join(others) or '(no others)'}"
        )
    return names


def _check_rdms(rdms: object) -> None:
    from rsatoolbox.rdm import RDMs

    if isinstance(rdms, str | PathLike):
        raise ValueError(f"expected RDMs, got the path '{rdms}'; use MeasuredRDMs.load(path)")
    if not isinstance(rdms, RDMs):
        raise ValueError(
            f"expected RDMs, got {type(rdms).__name__}; make RDMs of it first: rsatoolbox.rdm.RDMs(values, "
            "pattern_descriptors={'stimulus': ids})"
        )


def _check_varies(name: str, vector: np.ndarray) -> None:
    measured = vector[~np.isnan(vector)]
    if np.isinf(measured).any():
        raise ValueError(f"RDM '{name}' holds {int(np.isinf(measured).sum())} infinite values; put NaN: not measured")
    if not len(measured):
        raise ValueError(f"RDM '{name}' has no measured pair, all are NaN; leave it out by `select_rdms`")
    if (measured == measured[0]).all():
        raise ValueError(
            f"RDM '{name}' is {measured[0]:g} for all {len(measured)} measured pairs, so there is nothing to learn "
            "from it; leave it out by `select_rdms`"
        )


# What a measure lies between; its values are rounded, those of others (crossnobis, rescaled ones) may be anything.
_BOUNDS = {
    "correlation": (0.0, 2.0),
    "cosine": (0.0, 2.0),
    "euclidean": (0.0, np.inf),
    "sqeuclidean": (0.0, np.inf),
    "mahalanobis": (0.0, np.inf),
}
_ROUNDING = 1e-3


def _check_measure(name: str, vector: np.ndarray, measure: str) -> None:
    low, high = _BOUNDS.get(measure, (-np.inf, np.inf))
    measured = vector[~np.isnan(vector)]
    wrong = measured[(measured < low - _ROUNDING) | (measured > high + _ROUNDING)]
    if len(wrong):
        between = "0 or more" if high == np.inf else f"{low:g} to {high:g}"
        warn_result(
            f"RDM '{name}': {len(wrong)} of {len(measured)} values are none of '{measure}' ({between}), such as "
            f"{wrong[0]:g}; similarities, standardised values, or another measure? correct the values or their "
            "dissimilarity_measure",
            stacklevel=3,
        )


def _covered(values: np.ndarray, n_stimuli: int) -> Tensor:
    """(n_rdms, n_stimuli + 1) bool: the stimuli with a measured pair; the last is no stimulus."""
    i, j = np.triu_indices(n_stimuli, 1)
    covered = np.zeros((len(values), n_stimuli + 1), dtype=bool)
    for row, vector in zip(covered, values, strict=True):
        measured = ~np.isnan(vector)
        row[i[measured]] = row[j[measured]] = True
    return torch.from_numpy(covered)
