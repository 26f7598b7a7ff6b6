"""A generated brain whose true RDMs are known, for tests and tutorials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
import yaml

from brainrdl.dissimilarity import pair_dissimilarities
from brainrdl.pairs import all_pairs
from brainrdl.randomness import Draw
from brainrdl.stimuli import Stimuli, check_stimuli, check_unique

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

# Of the written time series, in seconds: one scan every so often, one stimulus every so often and for so long. With
# stimuli much closer together the responses to single ones can hardly be told apart.
_TR, _SPACING, _DURATION = 2.0, 6.0, 2.0


@dataclass(frozen=True)
class GeneratedBrain:
    """Responses of one region of interest in several subjects, with the truth behind them.

    ids: (n_stimuli,) text. subjects: their names. roi: the region's.
    units: (n_stimuli, n_units) the patterns that were mixed into the voxels.
    patterns: (n_subjects, n_stimuli, n_voxels) each subject's true patterns, without noise.
    responses: (n_subjects, n_trials, n_voxels) patterns plus noise, a row a stimulus and run, in the order of `table`.
    table: a row a trial, the same for all subjects: stimulus, run, session ("").
    noise_sd: standard deviation of a single response's noise, alike in all voxels.
    noise_correlation: (n_voxels, n_voxels) of that noise, between voxels.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    roi: str
    units: np.ndarray
    patterns: np.ndarray
    responses: np.ndarray
    table: pd.DataFrame
    noise_sd: float
    noise_correlation: np.ndarray

    @property
    def noise_covariance(self) -> np.ndarray:
        """(n_voxels, n_voxels) of a single response's noise."""
        return self.noise_sd**2 * self.noise_correlation

    def true_rdms(self, dissimilarity: Literal["euclidean", "mahalanobis"] = "euclidean") -> RDMs:
        """One RDM a subject, of the patterns without noise: what crossnobis estimates without bias.

        dissimilarity: "euclidean" is the truth for crossnobis without noise normalisation; "mahalanobis",
        (x_i - x_j)ᵀ P (x_i - x_j) / n_voxels, for crossnobis with the true noise precision P.
        """
        pairs = all_pairs(len(self.ids))
        precision = None if dissimilarity == "euclidean" else torch.from_numpy(self._precision())
        values = [
            pair_dissimilarities(torch.from_numpy(p), pairs, dissimilarity, precision).numpy() for p in self.patterns
        ]
        return self._rdms(np.stack(values), dissimilarity, self.subjects)

    def expected_rdm(self, dissimilarity: Literal["euclidean", "mahalanobis"] = "euclidean") -> RDMs:
        """The mean of `true_rdms` over all subjects there could be, in closed form.

        euclidean: ||u_i - u_j||² / n_units, the distance between the mixed patterns themselves. mahalanobis: that times
        trace(P) / n_voxels. The subject is called "expected".
        """
        pairs = all_pairs(len(self.ids))
        values = pair_dissimilarities(torch.from_numpy(self.units), pairs).numpy()
        if dissimilarity == "mahalanobis":
            values = values * np.trace(self._precision()) / self.patterns.shape[2]
        return self._rdms(values[None], dissimilarity, ("expected",))

    def _precision(self) -> np.ndarray:
        if self.noise_sd == 0:
            raise ValueError("a brain without noise has no noise precision; use dissimilarity='euclidean'")
        return np.linalg.inv(self.noise_covariance)

    def _rdms(self, values: np.ndarray, dissimilarity: str, subjects: Sequence[str]) -> RDMs:
        from rsatoolbox.rdm import RDMs

        return RDMs(
            values,
            dissimilarity_measure=dissimilarity,
            rdm_descriptors={"subject": list(subjects), "roi": [self.roi] * len(subjects)},
            pattern_descriptors={"stimulus": list(self.ids)},
        )


def generate_brain(
    patterns: np.ndarray,
    ids: Sequence[str],
    n_subjects: int = 4,
    n_runs: int = 4,
    n_voxels: int = 60,
    noise: float = 1.0,
    noise_correlation: float = 0.5,
    shared_noise: float = 0.0,
    roi: str = "IT",
    seed: int = 0,
) -> GeneratedBrain:
    """Mix known patterns into voxels and add noise: response = u W / √n_units + noise.

    W is (n_units, n_voxels) standard normal, another one for each subject, so that the mean squared difference over
    voxels is in expectation that over units. The noise is normal, its covariance between voxels a and b
    σ² noise_correlation^|a - b|, drawn anew for every stimulus, run and subject.

    patterns: (n_stimuli, n_units), such as a network layer's; at least two different ones. ids: the stimuli's.
    noise: σ, in units of the signal's standard deviation over stimuli (the root of its mean over units).
    shared_noise: share of the noise variance, 0 to 1, that is the same in all runs. Runs are then no longer
        independent, and crossnobis is too large by 2 shared_noise σ² (without noise normalisation).
    roi: the region's name; each has draws of its own, and so has each subject, however many there are.

    Trials stand run by run, in another random order in each, the same for all regions of a seed. Raises ValueError
    for patterns, ids and numbers that do not fit.
    """
    units = np.asarray(patterns, dtype=np.float64)
    names = tuple(str(stimulus) for stimulus in ids)
    check_unique(names, "the generated brain")
    _check_patterns(units, len(names))
    _check_numbers(n_subjects, n_runs, n_voxels, noise, noise_correlation, shared_noise)

    sd = noise * _signal_sd(units)
    distance = np.abs(np.subtract.outer(np.arange(n_voxels), np.arange(n_voxels)))
    correlation = np.power(noise_correlation, distance)
    factor = sd * np.linalg.cholesky(correlation)  # (n_voxels, n_voxels)
    order = Draw(seed).generator("generated brain, order of trials")
    rows = np.concatenate([order.permutation(len(names)) for _ in range(n_runs)])  # (n_trials,)

    subjects = tuple(f"sub-{k + 1:02d}" for k in range(n_subjects))
    true = np.empty((n_subjects, len(names), n_voxels))
    responses = np.empty((n_subjects, len(rows), n_voxels))
    for k, subject in enumerate(subjects):
        generator = Draw(seed).generator(f"generated brain, {roi} of {subject}")
        true[k] = units @ generator.standard_normal((units.shape[1], n_voxels)) / np.sqrt(units.shape[1])
        own = generator.standard_normal((len(rows), n_voxels)) @ factor.T
        common = generator.standard_normal((len(names), n_voxels)) @ factor.T
        responses[k] = true[k][rows] + np.sqrt(1 - shared_noise) * own + np.sqrt(shared_noise) * common[rows]

    table = pd.DataFrame(
        {
            "stimulus": [names[row] for row in rows],
            "run": np.repeat([f"{run + 1:02d}" for run in range(n_runs)], len(names)),
            "session": "",
        }
    )
    return GeneratedBrain(names, subjects, roi, units, true, responses, table, sd, correlation)


def _signal_sd(units: np.ndarray) -> float:
    """Standard deviation over stimuli, the root of its mean square over units: that of a voxel, in expectation."""
    return float(np.sqrt(units.var(axis=0).mean()))


def _check_patterns(units: np.ndarray, n_ids: int) -> None:
    if units.ndim != 2 or len(units) != n_ids:
        raise ValueError(f"patterns of shape {units.shape} for {n_ids} ids; expected (n_stimuli, n_units)")
    if not np.isfinite(units).all():
        raise ValueError("patterns hold NaN or infinite values; a brain can be generated from finite ones only")
    if len(units) < 2 or not np.ptp(units, axis=0).any():
        raise ValueError("patterns are all the same; give at least two different ones: their variance sets the noise")


def _check_numbers(
    n_subjects: int, n_runs: int, n_voxels: int, noise: float, noise_correlation: float, shared_noise: float
) -> None:
    if min(n_subjects, n_runs, n_voxels) < 1:
        raise ValueError(
            f"expected at least one subject, run and voxel, got n_subjects={n_subjects}, n_runs={n_runs}, "
            f"n_voxels={n_voxels}"
        )
    if not (0 <= noise < np.inf and 0 <= noise_correlation < 1 and 0 <= shared_noise <= 1):
        raise ValueError(
            "expected noise >= 0, noise_correlation from 0 to below 1 and shared_noise from 0 to 1, got "
            f"noise={noise}, noise_correlation={noise_correlation}, shared_noise={shared_noise}"
        )


def write_bold(
    brains: Sequence[GeneratedBrain],
    stimuli: Stimuli,
    folder: Path,
    scan_noise: float = 0.5,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
) -> Path:
    """Write generated regions as a small data set as it comes from a scanner; returns the path of its brain data spec.

    A voxel's series is a baseline, plus each stimulus's response times nilearn's canonical HRF (Glover) convolved with
    the time the stimulus was on, plus noise that is white in time. A first-level model therefore finds the brains'
    `responses`, in their units, plus noise of its own; its residuals have the noise correlation between voxels.

    brains: a region each, of the same ids, subjects and seed. stimuli: the images 0…1 of these ids, in any order;
    labels, where they have some, become the column `category`, named by class_names.
    scan_noise: standard deviation of a scan's noise, in units of the signal's (which is 1 % of the baseline).

    Below `folder`: spec.yaml; stimuli.tsv and stimuli/ID.png; by subject and run sub-01/func/…_bold.nii.gz and
    …_events.tsv, with the id as trial_type (BIDS names); masks/ROI.nii.gz. Each region is a slice of the image.
    Raises ValueError for regions and stimuli that do not belong together.
    """
    _check_together(brains, stimuli)
    side = math.isqrt(max(brain.patterns.shape[2] for brain in brains) - 1) + 1
    masks = np.zeros((len(brains), side, side, len(brains)), bool)
    for k, brain in enumerate(brains):
        masks[k, :, :, k].flat[: brain.patterns.shape[2]] = True
        _save_image(masks[k].astype(np.uint8), folder / "masks" / f"{brain.roi}.nii.gz")
    for run, trials in brains[0].table.groupby("run"):
        events, design = _design(trials["stimulus"])
        for k, subject in enumerate(brains[0].subjects):
            generator = Draw(seed).generator(f"generated brain, scans of {subject}, run {run}")
            series = np.zeros((*masks.shape[1:], len(design)), np.float32)  # 0: outside of the head
            for mask, brain in zip(masks, brains, strict=True):
                series[mask] = _time_series(brain, design, brain.responses[k, trials.index], scan_noise, generator).T
            name = f"{subject}_task-viewing_run-{run}"
            _save_image(series, folder / subject / "func" / f"{name}_bold.nii.gz", _TR)
            events.to_csv(folder / subject / "func" / f"{name}_events.tsv", sep="\t", index=False)
    _write_stimuli(stimuli, folder, class_names)
    spec = folder / "spec.yaml"
    spec.write_text(_spec(brains, stimuli), encoding="utf-8")
    return spec


def _check_together(brains: Sequence[GeneratedBrain], stimuli: Stimuli) -> None:
    check_stimuli(stimuli, "images of the generated brain")
    if not brains:
        raise ValueError("no brains: expected at least one region")
    first = brains[0]
    for brain in brains[1:]:
        if brain.subjects != first.subjects or not brain.table.equals(first.table):
            raise ValueError(
                f"regions {first.roi} and {brain.roi} differ in subjects or trials; generate them with the same "
                "ids, n_subjects, n_runs and seed"
            )
    if len({brain.roi for brain in brains}) < len(brains):
        raise ValueError(f"two regions have one name: {', '.join(brain.roi for brain in brains)}; name them with roi=")
    if differing := sorted(set(stimuli.ids) ^ set(first.ids)):
        raise ValueError(
            f"the images are not those of the generated brain: {len(differing)} ids stand in one of them only, "
            f"the first is '{differing[0]}'; give the images of the same ids"
        )


def _design(shown: Iterable[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Events in BIDS form, and the responses to them over time: (n_scans, n_trials), columns in the order shown."""
    from nilearn.glm.first_level import make_first_level_design_matrix

    names = list(shown)
    onsets = _SPACING * (1 + np.arange(len(names)))
    events = pd.DataFrame({"onset": onsets, "duration": _DURATION, "trial_type": names})
    times = np.arange(0, onsets[-1] + 16, _TR)  # until the last response is over
    design = make_first_level_design_matrix(times, events, hrf_model="glover", drift_model=None)
    return events, design[names]


def _time_series(
    brain: GeneratedBrain,
    design: pd.DataFrame,
    responses: np.ndarray,
    scan_noise: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """(n_scans, n_voxels); the signal's standard deviation is 1 % of the baseline."""
    sd = _signal_sd(brain.units)
    white = generator.standard_normal((len(design), responses.shape[1]))
    noise = scan_noise * sd * white @ np.linalg.cholesky(brain.noise_correlation).T
    series: np.ndarray = 100 * sd + design.to_numpy() @ responses + noise
    return series


def _save_image(values: np.ndarray, path: Path, t_r: float | None = None) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nifti: Any = nibabel.Nifti1Image  # its methods have no types
    image = nifti(values, np.diag([3.0, 3.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    if t_r is not None:
        image.header.set_zooms((3.0, 3.0, 3.0, t_r))
    nibabel.save(image, path)


def _write_stimuli(stimuli: Stimuli, folder: Path, class_names: Sequence[str] | None) -> None:
    from torchvision.utils import save_image

    for image, name in zip(stimuli.images, stimuli.ids, strict=True):
        file = folder / "stimuli" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_image(image, file)
    table = pd.DataFrame({"stimulus": stimuli.ids})
    if stimuli.labels is not None:
        labels = stimuli.labels.tolist()
        table["category"] = [str(label) if class_names is None else class_names[label] for label in labels]
    table.to_csv(folder / "stimuli.tsv", sep="\t", index=False)


def _spec(brains: Sequence[GeneratedBrain], stimuli: Stimuli) -> str:
    """The brain data spec, as text."""
    _, channels, height, width = stimuli.images.shape
    spec = {
        "kind": "brain",
        "name": "generated_brain",
        "title": "Generated responses with known RDMs",
        "stimuli": {
            "table": "stimuli.tsv",
            "file": "stimuli/{stimulus}.png",
            "size": [height, width],
            "channels": channels,
        },
        "data": {
            "format": "bold",
            "images": "{subject}/func/{subject}_task-viewing_run-{run}_bold.nii.gz",
            "events": "{subject}/func/{subject}_task-viewing_run-{run}_events.tsv",
            "noise_model": "ols",
            "scale": "none",
        },
        "subjects": list(brains[0].subjects),
        "rois": {brain.roi: {"mask": f"masks/{brain.roi}.nii.gz"} for brain in brains},
        "measure": "crossnobis",
        "noise": "residuals",
    }
    return yaml.safe_dump(spec, sort_keys=False)
