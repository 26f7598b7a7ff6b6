"""The first-level model of a run: equal to nilearn's own, right on series with known responses."""

import nibabel
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import FirstLevelModel, make_first_level_design_matrix

from brainrdl.fmri.glm import fit_run
from brainrdl.fmri.spec import Bold

N_SCANS, T_R = 100, 2.0


def settings(**given):
    return Bold.model_validate({"format": "bold", "images": "a", "events": "a", **given})


@pytest.fixture
def events():
    names = ["cat", "constant", "drift_1", "cat", "constant", "drift_1"]  # names that nilearn's own regressors have
    return pd.DataFrame({"onset": [5.0, 30, 60, 90, 120, 150], "duration": 6.0, "stimulus": names})


@pytest.fixture
def series():
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(N_SCANS, 7))
    for scan in range(1, N_SCANS):
        noise[scan] += 0.4 * noise[scan - 1]
    return 500 + 10 * noise


def first_level_model(series, events, confounds=None, **given):
    """nilearn's own estimator on the same run, and the condition's betas by it."""
    shape = (series.shape[1], 1, 1)
    image = nibabel.Nifti1Image(series.T.reshape(*shape, -1), np.eye(4))
    mask = nibabel.Nifti1Image(np.ones(shape, np.uint8), np.eye(4))
    defaults = {"hrf_model": "glover", "noise_model": "ar1", "signal_scaling": 0, "minimize_memory": False}
    model = FirstLevelModel(t_r=T_R, mask_img=mask, **{**defaults, **given})
    frame = events.rename(columns={"stimulus": "trial_type"}).assign(trial_type=["c" + s for s in events["stimulus"]])
    model.fit(image, frame, confounds)
    names = list(dict.fromkeys(frame["trial_type"]))
    betas = [model.compute_contrast(name, output_type="effect_size").get_fdata().ravel() for name in names]
    return np.array(betas), model


@pytest.mark.parametrize(
    ("ours", "nilearns"),
    [
        ({}, {}),
        ({"noise_model": "ols"}, {"noise_model": "ols"}),
        (
            {"hrf": "spm + derivative", "drift": "polynomial"},
            {"hrf_model": "spm + derivative", "drift_model": "polynomial"},
        ),
        ({"drift": "none", "scale": "none"}, {"drift_model": None, "signal_scaling": False}),
        ({"high_pass": 0.02}, {"high_pass": 0.02}),
    ],
)
def test_betas_are_those_of_nilearns_first_level_model(series, events, ours, nilearns):
    fit = fit_run(series, events, T_R, settings(**ours))
    expected, model = first_level_model(series, events, **nilearns)
    assert fit.stimuli == ["cat", "constant", "drift_1"]
    np.testing.assert_allclose(fit.betas, expected, rtol=1e-9, atol=1e-9)
    assert fit.dof == N_SCANS - model.design_matrices_[0].shape[1]


def test_confounds_are_in_the_model(series, events):
    confounds = pd.DataFrame(np.random.default_rng(1).normal(size=(N_SCANS, 2)), columns=["x", "stimulus_000000"])
    fit = fit_run(series, events, T_R, settings(), confounds)
    expected, _ = first_level_model(series, events, confounds.set_axis(["x", "y"], axis=1))
    np.testing.assert_allclose(fit.betas, expected, rtol=1e-9, atol=1e-9)
    plain = fit_run(series, events, T_R, settings())
    assert fit.dof == plain.dof - 2
    empty = fit_run(series, events, T_R, settings(), confounds.assign(x=0.0)[["x"]])  # motion that was not there
    np.testing.assert_allclose(empty.betas, plain.betas, rtol=1e-9, atol=1e-9)
    assert empty.dof == plain.dof


def test_residuals_are_white_in_time_under_ar1_and_plain_under_ols(events):
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(2000, 40))
    for scan in range(1, len(noise)):
        noise[scan] += 0.5 * noise[scan - 1]

    def lag_1(residuals):
        return np.mean([np.corrcoef(voxel[1:], voxel[:-1])[0, 1] for voxel in residuals.T])

    white, plain = (fit_run(noise, events, T_R, settings(noise_model=m, scale="none")) for m in ("ar1", "ols"))
    assert abs(lag_1(white.residuals)) < 0.03 and lag_1(plain.residuals) > 0.4
    # The variance of the innovations, which is 1, and not that of the series, 1 / (1 - 0.5²).
    np.testing.assert_allclose((white.residuals**2).sum(0).mean() / white.dof, 1, rtol=0.01)


def known_series(events, betas):
    """Scans without noise in which every event has its own response."""
    named = events[["onset", "duration"]].assign(trial_type=[f"t{k:02d}" for k in range(len(events))])
    design = make_first_level_design_matrix(T_R * np.arange(N_SCANS), named, hrf_model="glover", drift_model=None)
    return 100 + design[sorted(named["trial_type"])].to_numpy() @ betas


def test_lsa_finds_every_trials_response(events):
    betas = np.random.default_rng(0).normal(size=(6, 5))
    fit = fit_run(known_series(events, betas), events, T_R, settings(model="lsa", scale="none", noise_model="ols"))
    assert fit.stimuli == events["stimulus"].tolist() and fit.residuals.shape == (N_SCANS, 5)
    np.testing.assert_allclose(fit.betas, betas, atol=1e-8)


def test_lss_is_a_model_a_trial_with_the_others_in_one_regressor(series, events):
    fit = fit_run(series, events, T_R, settings(model="lss", scale="none", noise_model="ols"))
    assert fit.stimuli == events["stimulus"].tolist() and fit.residuals is None
    for k in range(6):
        named = events[["onset", "duration"]].assign(trial_type=["this" if j == k else "others" for j in range(6)])
        design = make_first_level_design_matrix(T_R * np.arange(N_SCANS), named, hrf_model="glover")
        expected = np.linalg.lstsq(design.to_numpy(), series, rcond=None)[0][list(design).index("this")]
        np.testing.assert_allclose(fit.betas[k], expected, rtol=1e-8, atol=1e-8)


def test_lss_of_responses_that_are_alike_is_exact():
    events = pd.DataFrame({"onset": np.arange(6) * 8.0, "duration": 2.0, "stimulus": list("abcdef")})
    betas = np.tile(np.random.default_rng(0).normal(size=5), (6, 1))
    fit = fit_run(known_series(events, betas), events, T_R, settings(model="lss", scale="none", noise_model="ols"))
    np.testing.assert_allclose(fit.betas, betas, atol=1e-8)


def test_percent_is_of_the_voxels_mean(series, events):
    percent = fit_run(series, events, T_R, settings(noise_model="ols"))
    plain = fit_run(series, events, T_R, settings(noise_model="ols", scale="none"))
    np.testing.assert_allclose(percent.betas, 100 * plain.betas / series.mean(0), rtol=1e-9)


def test_what_cannot_be_fitted_is_told(series, events):
    with pytest.raises(ValueError, match=r"run-1: 7 of 7 voxels have a mean of 0 or less, .*; .* set scale: none"):
        fit_run(series - 1000, events, T_R, settings(), what="run-1")
    confounds = pd.DataFrame(np.random.default_rng(0).normal(size=(N_SCANS, 97)))
    confounds.columns = [f"c{k}" for k in range(97)]
    late = events.assign(onset=[*events["onset"][:-1], 199.5])  # the last scan is at 198 s
    for model in ("lsa", "lss"):
        with pytest.raises(
            ValueError, match=r"run-1: the scans do not tell the response to 'drift_1' \(onset 199.5 s\): no scan was"
        ):
            fit_run(series, late, T_R, settings(model=model), what="run-1")
    assert len(fit_run(series, late, T_R, settings()).betas) == 3  # its other event tells the response
    twice = events.assign(onset=[5.0, 5.0, *events["onset"][2:]])
    with pytest.raises(
        ValueError, match=r"run-1: .* response to 'cat' \(onset 5 s\): other events or confounds run together with it"
    ):
        fit_run(series, twice, T_R, settings(model="lsa"), what="run-1")
    with pytest.raises(ValueError, match="run-1: 105 regressors for 100 scans leave nothing to estimate noise from"):
        fit_run(series, events, T_R, settings(), confounds, "run-1")
