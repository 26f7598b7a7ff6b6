"""From patterns to an RDM: noise precision and rsatoolbox's distances."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from brainrdl.fmri.patterns import fold_labels, select_trials, who
from brainrdl.fmri.trials import Trials

if TYPE_CHECKING:
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import RDMs

NoiseSource = Literal["none", "residuals", "repetitions"]

_NOT_NORMALISED = "no noise normalisation: crossnobis is the cross-validated squared Euclidean distance"


class NoisePrecision(NamedTuple):
    """matrix: (n_voxels, n_voxels), None: the identity. source, shrinkage, dof: what it was made of and how."""

    matrix: np.ndarray | None
    source: NoiseSource
    shrinkage: str
    dof: int


def noise_precision(trials: Trials, source: NoiseSource, shrinkage: str = "shrinkage_diag") -> NoisePrecision:
    """The inverse of the voxels' noise covariance, one for a subject and region (rsatoolbox.data.noise).

    source: "residuals" of the first-level model (degrees of freedom: scans minus regressors); "repetitions": trials
    minus their stimulus's mean (trials minus stimuli); "none". shrinkage: rsatoolbox's `method`.
    A precision made of repetitions is not independent of their noise: crossnobis of the same trials is then too large,
    in units of the noise variance by up to about 2 n_voxels / (dof · repetitions); `crossfitted_rdm` is not.
    Raises ValueError where there are no residuals or repetitions, or the covariance has no inverse.
    """
    from rsatoolbox.data.noise import prec_from_residuals, prec_from_unbalanced

    n_voxels = trials.responses.shape[1]
    if source == "none":
        return NoisePrecision(None, source, "", 0)
    if source == "residuals":
        if trials.residuals is None:
            raise ValueError(f"{who(trials)}: there are no residuals; estimate noise from 'repetitions'")
        dof = trials.residuals.dof
    else:
        if trials.averaged:
            raise ValueError(f"{who(trials)}: the responses are means over repetitions; set noise: none")
        dof = len(trials.table) - trials.table["stimulus"].nunique()
    if dof < 1:
        raise ValueError(f"{who(trials)}: every stimulus was measured once, so repetitions tell no noise")
    if shrinkage == "full" and dof < n_voxels:
        raise ValueError(
            f"{who(trials)}: a full covariance of {n_voxels} voxels has no inverse with {dof} degrees of freedom; "
            "use shrinkage_eye or shrinkage_diag"
        )
    try:
        if source == "residuals":
            assert trials.residuals is not None
            matrix = prec_from_residuals(np.asarray(trials.residuals.values, float), dof=dof, method=shrinkage)
        else:
            matrix = prec_from_unbalanced(as_dataset(trials), "stimulus", dof=dof, method=shrinkage)
    except np.linalg.LinAlgError:
        matrix = np.full((n_voxels, n_voxels), np.nan)
    if not np.isfinite(matrix).all():
        raise ValueError(
            f"{who(trials)}: the noise covariance ({source}, {shrinkage}) has no inverse; "
            "use shrinkage_eye, or fewer voxels"
        )
    return NoisePrecision(matrix, source, shrinkage, dof)


def measured_rdm(
    trials: Trials, measure: str = "crossnobis", folds: str = "run", noise: NoisePrecision | None = None
) -> RDMs:
    """The RDM of a subject's region, by rsatoolbox.

    crossnobis: cross-validated over `folds`, unbiased and therefore negative at times; the balanced estimator where all
    stimuli are in all folds equally often, else the unbalanced one, which what is common to the responses of a fold
    biases unless they are z-scored or centred within it. Stimuli measured in one fold only are left out.
    euclidean, correlation, mahalanobis: of the stimuli's mean patterns; correlation is NaN at a constant pattern.
    Returns one RDM, stimuli sorted by id, NaN = not measured; rdm_descriptors subject, roi, measure, noise, shrinkage,
    dof, folds, n_folds, n_voxels, notes.
    Raises ValueError for crossnobis of a single fold, of means over repetitions, or of stimuli shown once; for fewer
    than 2 voxels or stimuli, and for a noise precision that the measure has no use for.
    """
    from rsatoolbox.rdm import calc_rdm, calc_rdm_unbalanced

    noise = noise or NoisePrecision(None, "none", "", 0)
    check_measure(trials, measure, noise)
    notes = list(trials.notes)
    if measure != "crossnobis":
        rdms = calc_rdm(as_dataset(trials), measure, descriptor="stimulus", noise=noise.matrix)
        return _described(rdms, trials, measure, noise, {"folds": "", "n_folds": 0}, notes)
    fold = fold_labels(trials, folds)
    repeated = _in_several_folds(trials, fold)
    if len(set(fold[repeated])) < 2 or trials.table["stimulus"][repeated].nunique() < 2:
        raise ValueError(
            f"{who(trials)}: crossnobis needs at least 2 stimuli, each measured in at least 2 {folds}s; there "
            f"{'is' if len(set(fold)) == 1 else 'are'} {len(set(fold))} {folds}(s), and "
            f"{trials.table['stimulus'][repeated].nunique()} such stimuli; use mahalanobis or correlation"
        )
    left_out = trials.table["stimulus"].nunique() - trials.table["stimulus"][repeated].nunique()
    if left_out:
        notes.append(f"{left_out} stimuli measured in one {folds} only are left out of crossnobis")
    if noise.matrix is None:
        notes.append(_NOT_NORMALISED)
    counts = pd.crosstab(trials.table["stimulus"][repeated], fold[repeated]).to_numpy()
    if counts.min() == counts.max():
        dataset = as_dataset(trials, fold, repeated)
        rdms = calc_rdm(dataset, "crossnobis", "stimulus", noise=noise.matrix, cv_descriptor="fold")
    else:
        notes.append(
            f"stimuli are not in all {folds}s equally often: rsatoolbox's unbalanced estimator, which what is common "
            f"to a {folds} biases unless responses are z-scored or centred within each {folds}"
        )
        # It goes from trial to trial; with the noise inside, each pair of trials would cost n_voxels².
        dataset = as_dataset(whitened(trials, noise), fold, repeated)
        rdms = calc_rdm_unbalanced(dataset, "crossnobis", "stimulus", cv_descriptor="fold")
    n_folds = len(set(fold[repeated]))
    return _described(rdms, trials, measure, noise, {"folds": folds, "n_folds": n_folds}, notes)


def crossfitted_rdm(trials: Trials, folds: str = "run", shrinkage: str = "shrinkage_diag") -> RDMs:
    """The crossnobis RDM with noise normalised by repetitions, unbiased: by those of other stimuli than are compared.

    Stimuli are dealt into four groups by the order of their ids. The RDM over each two of the groups takes the noise
    precision of the two others' repetitions; pairs within a group, which three of these RDMs have, are averaged.
    Returns one RDM as `measured_rdm` does, its dof the smallest of the six. Raises ValueError as that and
    `noise_precision`, and for fewer than 4 stimuli measured in two folds.
    """
    plain = measured_rdm(trials, "crossnobis", folds)
    ids = list(plain.pattern_descriptors["stimulus"])
    if len(ids) < 4:
        raise ValueError(
            f"{who(trials)}: noise from the repetitions of other stimuli needs at least 4 stimuli measured in two "
            f"{folds}s, got {len(ids)}; set noise: residuals or none"
        )
    trials = select_trials(trials, trials.table["stimulus"].isin(ids).to_numpy())
    group = trials.table["stimulus"].map({stimulus: k % 4 for k, stimulus in enumerate(ids)}).to_numpy()
    total, number, dof = np.zeros((len(ids), len(ids))), np.zeros((len(ids), len(ids))), []
    for compared in combinations(range(4), 2):
        inside = np.isin(group, compared)
        noise = noise_precision(select_trials(trials, ~inside), "repetitions", shrinkage)
        part = measured_rdm(select_trials(trials, inside), "crossnobis", folds, noise)
        rows = np.searchsorted(ids, part.pattern_descriptors["stimulus"])
        total[np.ix_(rows, rows)] += part.get_matrices()[0]
        number[np.ix_(rows, rows)] += 1
        dof.append(noise.dof)
    i, j = np.triu_indices(len(ids), 1)
    plain.dissimilarities = (total[i, j] / number[i, j])[None]
    notes = [note for note in plain.rdm_descriptors["notes"][0].split("; ") if note and note != _NOT_NORMALISED]
    notes.append("noise normalised by the repetitions of other stimuli than those compared")
    told = {"noise": "repetitions", "shrinkage": shrinkage, "dof": min(dof), "notes": "; ".join(notes)}
    plain.rdm_descriptors |= {name: [value] for name, value in told.items()}
    return plain


def as_dataset(trials: Trials, fold: np.ndarray | None = None, rows: np.ndarray | None = None) -> Dataset:
    """rsatoolbox's data set of the trials (or of some `rows`), with obs_descriptors stimulus and, where given, fold."""
    from rsatoolbox.data import Dataset

    rows = np.arange(len(trials.table)) if rows is None else np.flatnonzero(rows)
    descriptors = {"stimulus": trials.table["stimulus"].astype(str).to_numpy(dtype=object)[rows].tolist()}
    if fold is not None:
        descriptors["fold"] = fold[rows].tolist()
    return Dataset(np.asarray(trials.responses, dtype=float)[rows], obs_descriptors=descriptors)


def check_measure(trials: Trials, measure: str, noise: NoisePrecision) -> None:
    """Raise ValueError where the measure cannot be had of these trials, or has no use for the noise precision."""
    measures = ("euclidean", "correlation", "mahalanobis", "crossnobis")
    n_voxels = trials.responses.shape[1]
    if measure not in measures:
        raise ValueError(f"unknown measure '{measure}'; expected one of {', '.join(measures)}")
    if n_voxels < 2:
        raise ValueError(f"{who(trials)}: {n_voxels} voxels; a pattern needs at least 2")
    if trials.table["stimulus"].nunique() < 2:
        raise ValueError(f"{who(trials)}: {trials.table['stimulus'].nunique()} stimuli; an RDM needs at least 2")
    if measure == "mahalanobis" and noise.matrix is None:
        raise ValueError(f"{who(trials)}: mahalanobis needs a noise precision; set noise: residuals or repetitions")
    if measure in ("euclidean", "correlation") and noise.matrix is not None:
        raise ValueError(f"{who(trials)}: {measure} uses no noise precision; leave it out, or use mahalanobis")
    if noise.matrix is not None and noise.matrix.shape != (n_voxels, n_voxels):
        raise ValueError(
            f"{who(trials)}: a noise precision of shape {noise.matrix.shape} for {n_voxels} voxels; estimate it after "
            "voxels are dropped and chosen"
        )
    if measure == "crossnobis":
        if trials.averaged:
            raise ValueError(
                f"{who(trials)}: the responses are means over repetitions, which cannot be cross-validated; use "
                "correlation or euclidean"
            )
        others = set(trials.table["stimulus"]) - (trials.repeated_only or set(trials.table["stimulus"]))
        if others:
            raise ValueError(
                f"{who(trials)}: crossnobis is asked for {len(others)} stimuli that were shown once, the first is "
                f"'{min(others)}'; keep to those shown repeatedly (data.min_repetitions in the spec)"
            )


def whitened(trials: Trials, noise: NoisePrecision) -> Trials:
    """Responses whose products are those of the given ones with the noise precision P between: X L, L Lᵀ = P."""
    if noise.matrix is None:
        return trials
    return replace(trials, responses=np.asarray(trials.responses, dtype=float) @ np.linalg.cholesky(noise.matrix))


def _in_several_folds(trials: Trials, fold: np.ndarray) -> np.ndarray:
    """(n_trials,) bool: the trial's stimulus was measured in more than one fold."""
    folds = pd.Series(fold).groupby(trials.table["stimulus"].to_numpy())
    return np.asarray(folds.transform("nunique") > 1)


def _described(
    rdms: RDMs,
    trials: Trials,
    measure: str,
    noise: NoisePrecision,
    folds: dict[str, object],
    notes: list[str],
) -> RDMs:
    """The same RDM, stimuli sorted by id, with our descriptors and no matrices among them."""
    from rsatoolbox.rdm import RDMs

    ids = np.array([str(stimulus) for stimulus in rdms.pattern_descriptors["stimulus"]])
    order = np.argsort(ids, kind="stable")
    i, j = np.triu_indices(len(order), 1)
    descriptors = {
        "subject": trials.subject,
        "roi": trials.roi,
        "measure": measure,
        "noise": noise.source,
        "shrinkage": noise.shrinkage,
        "dof": noise.dof,
        **folds,
        "n_voxels": trials.responses.shape[1],
        "notes": "; ".join(notes),
    }
    return RDMs(
        rdms.get_matrices()[:, order[i], order[j]],
        dissimilarity_measure=measure,
        rdm_descriptors={name: [value] for name, value in descriptors.items()},
        pattern_descriptors={"stimulus": ids[order].tolist()},
    )
