"""What every reader of brain data gives: responses to stimuli, a row a trial, with where each row comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Residuals:
    """What a model of the time series left unexplained, for multivariate noise normalisation.

    values: (n_scans, n_voxels). dof: degrees of freedom left (scans minus regressors, over all runs).
    """

    values: np.ndarray
    dof: int


@dataclass(frozen=True)
class Trials:
    """Responses of one subject in one region of interest.

    responses: (n_trials, n_voxels), floating point or scaled integers read through a memory map; NaN = not measured.
    table: a row a trial, in the order of `responses`: stimulus (id, text), run, session (text; "" where the data
        have none), and whatever else is known of it.
    subject, roi: their names, as they stand in the descriptors of RDMs.
    residuals: of the first-level model, where there was one.
    averaged: the rows are means over repetitions already, so that neither reliability nor cross-validated
        distances can be had.
    repeated_only: what was asked may be estimated on these stimuli alone (THINGS-fMRI's test images); None: on all.
    notes: what was dropped, resampled or assumed, in words; told to the user and kept with the RDMs.
    """

    responses: np.ndarray
    table: pd.DataFrame
    subject: str
    roi: str
    residuals: Residuals | None = None
    averaged: bool = False
    repeated_only: frozenset[str] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.responses.ndim != 2 or len(self.responses) != len(self.table):
            raise ValueError(
                f"{self.subject}, {self.roi}: responses of shape {self.responses.shape} for {len(self.table)} trials; "
                "expected (n_trials, n_voxels)"
            )
        missing = {"stimulus", "run", "session"} - set(self.table)
        if missing:
            raise ValueError(f"{self.subject}, {self.roi}: the trial table lacks the column '{sorted(missing)[0]}'")
