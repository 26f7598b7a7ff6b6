"""Real BOLD, from NIfTI to an RDM: the same as a plain script of nilearn and rsatoolbox."""

import numpy as np
import pandas as pd
import pytest

from brainrdl.brain_rdms import make_rdms
from brainrdl.fmri.read import read_trials
from brainrdl.fmri.spec import load_brain_spec

pytestmark = pytest.mark.filterwarnings("ignore:.*Generation of a mask has been requested:RuntimeWarning")
RUNS = range(1, 13)


@pytest.fixture(scope="module")
def plain_script(real_data):
    """(betas (96, n_voxels), conditions, runs, residuals, dof, rdm) without anything of this package."""
    from nilearn.glm.first_level import FirstLevelModel
    from nilearn.masking import apply_mask
    from rsatoolbox.data import Dataset
    from rsatoolbox.data.noise import prec_from_residuals
    from rsatoolbox.rdm import calc_rdm

    folder = real_data("haxby2001") / "haxby2001"
    betas, conditions, runs, residuals, dof = [], [], [], [], 0
    for run in RUNS:
        model = FirstLevelModel(
            t_r=2.5,
            mask_img=folder / "mask.nii.gz",
            hrf_model="glover",
            drift_model="cosine",
            high_pass=0.01,
            noise_model="ar1",
            signal_scaling=0,
            minimize_memory=False,
        )
        events = pd.read_csv(folder / f"runs/run-{run:02d}_events.tsv", sep="\t")
        model.fit(str(folder / f"runs/run-{run:02d}_bold.nii.gz"), events)
        for condition in events["trial_type"].unique():
            image = model.compute_contrast(condition, output_type="effect_size")
            betas.append(apply_mask(image, folder / "mask.nii.gz", dtype=np.float64))
            conditions.append(condition)
            runs.append(run)
        labels, results = model.labels_[0], model.results_[0]
        whitened = np.empty((121, len(labels)))
        for label, result in results.items():
            whitened[:, labels == label] = result.whitened_residuals
        residuals.append(whitened)
        dof += 121 - model.design_matrices_[0].shape[1]
    betas, residuals = np.array(betas), np.concatenate(residuals)
    precision = prec_from_residuals(residuals, dof=dof, method="shrinkage_diag")
    data = Dataset(betas, obs_descriptors={"conds": conditions, "runs": runs})
    rdm = calc_rdm(data, "crossnobis", descriptor="conds", noise=precision, cv_descriptor="runs")
    return betas, conditions, runs, residuals, dof, rdm


def test_trials_are_those_of_the_plain_script(plain_script, real_data):
    betas, conditions, runs, residuals, dof, _ = plain_script
    trials = read_trials(load_brain_spec("haxby2001"), "sub-01", "slice", real_data("haxby2001"))
    assert trials.table["stimulus"].tolist() == conditions
    assert trials.table["run"].astype(int).tolist() == runs
    # nilearn rounds images to single precision on the way, in percent of a mean near 1000.
    np.testing.assert_allclose(trials.responses, betas, rtol=0, atol=1e-5)
    np.testing.assert_allclose(trials.residuals.values, residuals, rtol=0, atol=1e-4)
    assert trials.residuals.dof == dof == 1272 and trials.notes == ()


def test_the_rdm_is_that_of_the_plain_script_and_reliable(plain_script, tmp_path, real_data):
    expected = plain_script[-1]
    made = make_rdms("haxby2001", tmp_path / "haxby.h5", root=real_data("haxby2001"))
    assert list(made.rdms.pattern_descriptors["stimulus"]) == list(expected.pattern_descriptors["conds"])
    np.testing.assert_allclose(made.rdms.dissimilarities, expected.dissimilarities, rtol=0, atol=1e-7)
    row = made.table.iloc[0]
    assert (row["n_voxels"], row["n_folds"], row["dof"], row["noise"]) == (530, 12, 1272, "residuals")
    assert 0.5 < row["rdm_reliability"] < 0.8 and 0.2 < row["pattern_reliability"] < 0.4
    assert np.isnan(row["ceiling_low"])
    matrix = made.rdms.get_matrices()[0]
    house = list(made.rdms.pattern_descriptors["stimulus"]).index("house")
    assert matrix.mean(0).argmax() == house  # places differ most from everything else
    assert made.rdms.dissimilarities.min() > 0
