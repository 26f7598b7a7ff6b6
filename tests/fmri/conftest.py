"""Small data sets in files, made by hand: a run a NIfTI image, events, a mask; trials in memory."""

import nibabel
import numpy as np
import pandas as pd
import pytest

from brainrdl.fmri.spec import BrainSpec
from brainrdl.fmri.trials import Trials

SHAPE, AFFINE = (4, 3, 2), np.diag([3.0, 3.0, 3.0, 1.0])


@pytest.fixture
def save_volume():
    """A function: write an array as NIfTI, TR 2 s, and return its path."""

    def save(path, values, affine=AFFINE, t_r=2.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(np.asarray(values), affine)
        if np.ndim(values) == 4:
            image.header.set_zooms((*image.header.get_zooms()[:3], t_r))
        nibabel.save(image, path)
        return path

    return save


@pytest.fixture
def bold_set(tmp_path, save_volume):
    """A function: a data set of n_runs runs of noise around 1000 with 4 conditions; returns its spec and folder."""

    def make(n_runs=3, n_scans=80, change=lambda series, run: None, mask=None, **data):
        generator = np.random.default_rng(0)
        for run in range(1, n_runs + 1):
            series = 1000 + 20 * generator.normal(size=(*SHAPE, n_scans)).astype(np.float32)
            change(series, run)
            save_volume(tmp_path / f"run-{run}_bold.nii.gz", series)
            order = generator.permutation(["a", "b", "c", "d"] * 2)
            events = pd.DataFrame({"onset": np.arange(8) * 16.0 + 4, "duration": 8.0, "trial_type": order})
            events.to_csv(tmp_path / f"run-{run}_events.tsv", sep="\t", index=False)
        save_volume(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8) if mask is None else mask)
        raw = {
            "kind": "brain",
            "name": "small",
            "folder": str(tmp_path),
            "data": {
                "format": "bold",
                "images": "run-{run}_bold.nii.gz",
                "events": "run-{run}_events.tsv",
                **data,
            },
            "subjects": ["sub-01"],
            "rois": {"all": {"mask": "mask.nii.gz"}},
            "noise": "none" if data.get("model") == "lss" else "residuals",
        }
        return BrainSpec.model_validate(raw), tmp_path

    return make


@pytest.fixture
def make_trials():
    """A function: trials with a true pattern a stimulus plus noise, every stimulus once a run."""

    def make(n_stimuli=6, n_runs=4, n_voxels=20, noise=1.0, seed=0, sessions=1):
        generator = np.random.default_rng(seed)
        patterns = generator.normal(size=(n_stimuli, n_voxels))
        table = pd.DataFrame(
            [
                {"stimulus": f"s{k}", "run": str(run), "session": f"ses-{1 + run % sessions}"}
                for run in range(n_runs)
                for k in range(n_stimuli)
            ]
        )
        responses = np.tile(patterns, (n_runs, 1)) + noise * generator.normal(size=(len(table), n_voxels))
        return Trials(responses, table, "sub-01", "IT")

    return make
