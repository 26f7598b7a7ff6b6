"""Responses to stimuli out of a run's time series, by nilearn's first-level model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from brainrdl.fmri.spec import Bold

# Of a regressor: its peak, relative to the largest one's, and its part that no other regressor explains.
_LEAST_PEAK, _LEAST_OWN = 1e-3, 1e-6


class RunFit(NamedTuple):
    """A run's responses.

    betas: (n_rows, n_voxels). stimuli: which each row is. residuals: (n_scans, n_voxels), whitened in time where the
    noise is modelled as AR(1); None for lss, which has a model a trial. dof: scans minus the rank of the model.
    """

    betas: np.ndarray
    stimuli: list[str]
    residuals: np.ndarray | None
    dof: int


def fit_run(
    series: np.ndarray,
    events: pd.DataFrame,
    t_r: float,
    settings: Bold,
    confounds: pd.DataFrame | None = None,
    what: str = "run",
) -> RunFit:
    """Fit a run: `series = design · betas + noise`, design = events ∗ HRF, drift, confounds, a constant.

    series: (n_scans, n_voxels), no voxel constant. events: as `read_events` gives them. t_r: seconds. what: names the
    run in errors. A row of betas is a condition (settings.model "condition") or an event ("lsa": all in one model;
    "lss": a model an event, with the other events in one regressor; Mumford et al. 2012,
    doi:10.1016/j.neuroimage.2011.08.076).
    Raises ValueError where the model has as many regressors as there are scans, or a response that the scans do not
    tell: of an event after the last scan, or at the same time as another.
    """
    if settings.scale == "percent":
        series = _percent_of_mean(series, what)
    if settings.model == "lss":
        fits = [
            _fit(series, _one_against_others(events, k), t_r, settings, confounds, what) for k in range(len(events))
        ]
        return RunFit(np.stack([fit.betas[0] for fit in fits]), events["stimulus"].tolist(), None, fits[0].dof)
    if settings.model == "lsa":
        return _fit(series, events, t_r, settings, confounds, what, np.arange(len(events)))
    return _fit(series, events, t_r, settings, confounds, what)


def _fit(
    series: np.ndarray,
    events: pd.DataFrame,
    t_r: float,
    settings: Bold,
    confounds: pd.DataFrame | None,
    what: str,
    groups: np.ndarray | None = None,
) -> RunFit:
    """groups: (n_events,) int, which events share a regressor; left out: those of a stimulus."""
    from nilearn.glm.first_level import make_first_level_design_matrix, run_glm

    stimuli = events["stimulus"].tolist()
    names = list(dict.fromkeys(stimuli)) if groups is None else stimuli
    codes = [names.index(stimulus) for stimulus in stimuli] if groups is None else groups.tolist()
    # Names of stimuli and confounds may be anything, also that of a drift.
    regressors = [f"stimulus_{k:06d}" for k in range(len(names))]
    if confounds is not None:
        confounds = confounds.set_axis([f"confound_{k}" for k in range(confounds.shape[1])], axis=1)
    design = make_first_level_design_matrix(
        t_r * np.arange(len(series)),
        events=events[["onset", "duration"]].assign(trial_type=[regressors[code] for code in codes]),
        hrf_model=settings.hrf,
        drift_model=None if settings.drift == "none" else settings.drift,
        high_pass=settings.high_pass,
        add_regs=confounds,
    )
    dof = len(series) - int(np.linalg.matrix_rank(design.to_numpy()))
    if dof < 1:
        raise ValueError(
            f"{what}: {design.shape[1]} regressors for {len(series)} scans leave nothing to estimate noise from; "
            "use fewer confounds, or model: lss"
        )
    columns = [design.columns.get_loc(regressor) for regressor in regressors]
    _check_told_apart(design.to_numpy(), columns, names, events, codes, what)
    labels, results = run_glm(series, design.to_numpy(), noise_model=settings.noise_model)
    betas = np.empty((len(names), series.shape[1]))
    residuals = np.empty_like(series, dtype=float)
    for label, result in results.items():
        betas[:, labels == label] = result.theta[columns]
        # Not `residuals`: for AR models nilearn subtracts the whitened prediction from data that are not whitened.
        residuals[:, labels == label] = result.whitened_residuals
    return RunFit(betas, names, residuals, dof)


def _check_told_apart(
    design: np.ndarray, columns: list[int], names: list[str], events: pd.DataFrame, codes: list[int], what: str
) -> None:
    """Raise ValueError for a response that the scans do not tell, which least squares would fill with any value.

    columns: of the design, a regressor each of `names`. codes: the regressor of each event.
    """
    peaks = np.abs(design).max(0)
    scaled = design / np.where(peaks > 0, peaks, 1)
    # A diagonal element of pinv(X) X is 1 where the coefficient has one value, less where others can stand in for it.
    own = np.einsum("ij,ji->i", np.linalg.pinv(scaled, rcond=_LEAST_OWN)[columns], scaled[:, columns])
    silent = peaks[columns] <= _LEAST_PEAK * peaks[columns].max()
    for k in np.flatnonzero(silent | (own < 0.99)):
        onset = events["onset"].iloc[codes.index(int(k))]
        why = "no scan was taken while it lasted" if silent[k] else "other events or confounds run together with it"
        raise ValueError(
            f"{what}: the scans do not tell the response to '{names[k]}' (onset {onset:g} s): {why}; correct the "
            "events, or leave it out"
        )


def _one_against_others(events: pd.DataFrame, k: int) -> pd.DataFrame:
    """Event k first, all others as one further condition."""
    others = events.drop(index=k).assign(stimulus=f"all but {events['stimulus'].loc[k]}")
    return pd.concat([events.loc[[k]], others], ignore_index=True)


def _percent_of_mean(series: np.ndarray, what: str) -> np.ndarray:
    mean = series.mean(0)
    if (mean <= 0).any():
        raise ValueError(
            f"{what}: {int((mean <= 0).sum())} of {len(mean)} voxels have a mean of 0 or less, so no percent signal "
            "change; tighten the mask, or set scale: none for data that were centred before"
        )
    return np.asarray(100 * (series / mean - 1))
