"""The generated brain is what it says: its truth, its noise, and its scanner files."""

import numpy as np
import pandas as pd
import pytest
import torch

from brainrdl.data.generated_brain import generate_brain, write_bold
from brainrdl.data.stimulus_set import StimulusFiles, read_stimulus_set
from brainrdl.stimuli import Stimuli

IDS = [f"s{k}" for k in range(8)]


@pytest.fixture
def units():
    """(8, 12) patterns with a mean, of which the last two are the same."""
    drawn = 3 + np.random.default_rng(0).standard_normal((8, 12))
    drawn[7] = drawn[6]
    return drawn


def noise_of(brain):
    """(n_subjects, n_trials, n_voxels) what the responses have beside the truth."""
    rows = [brain.ids.index(stimulus) for stimulus in brain.table["stimulus"]]
    return brain.responses - brain.patterns[:, rows]


def rsatoolbox_rdms(brain, method, noise=None):
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import calc_rdm

    sets = [Dataset(patterns, obs_descriptors={"stimulus": list(brain.ids)}) for patterns in brain.patterns]
    return np.concatenate([calc_rdm(s, method, descriptor="stimulus", noise=noise).dissimilarities for s in sets])


def test_true_rdms_are_those_of_rsatoolbox(units):
    brain = generate_brain(units, IDS, n_subjects=3, n_voxels=9, noise=0.7)
    plain, whitened = brain.true_rdms(), brain.true_rdms("mahalanobis")
    precision = np.linalg.inv(brain.noise_covariance)
    np.testing.assert_allclose(plain.dissimilarities, rsatoolbox_rdms(brain, "euclidean"), atol=1e-12)
    np.testing.assert_allclose(whitened.dissimilarities, rsatoolbox_rdms(brain, "mahalanobis", precision), atol=1e-10)
    assert plain.rdm_descriptors["subject"] == ["sub-01", "sub-02", "sub-03"]
    assert plain.rdm_descriptors["roi"] == ["IT"] * 3
    assert plain.pattern_descriptors["stimulus"] == IDS
    assert (plain.dissimilarity_measure, whitened.dissimilarity_measure) == ("euclidean", "mahalanobis")


@pytest.mark.parametrize("dissimilarity", ["euclidean", "mahalanobis"])
def test_true_rdms_are_the_expected_one_on_average(units, dissimilarity):
    brain = generate_brain(units, IDS, n_subjects=1000, n_runs=1, n_voxels=6)
    true = brain.true_rdms(dissimilarity).dissimilarities
    expected = brain.expected_rdm(dissimilarity).dissimilarities[0]
    standard_error = true.std(0, ddof=1) / np.sqrt(len(true))
    assert (np.abs(true.mean(0) - expected) <= 4 * standard_error).all()
    same = -1  # the last pair: stimuli 6 and 7
    assert expected[same] == 0 and not true[:, same].any()
    assert (expected[:same] > 0.1).all()


def test_the_expected_euclidean_rdm_is_that_of_the_mixed_patterns(units):
    brain = generate_brain(units, IDS)
    by_hand = [((units[i] - units[j]) ** 2).mean() for i in range(8) for j in range(i + 1, 8)]
    np.testing.assert_allclose(brain.expected_rdm().dissimilarities[0], by_hand, atol=1e-12)


def test_noise_has_the_covariance_it_says(units):
    brain = generate_brain(units, IDS, n_subjects=50, n_runs=10, n_voxels=5, noise=2.0, noise_correlation=0.6)
    signal_variance = units.var(0).mean()
    np.testing.assert_allclose(brain.noise_covariance[0], 4 * signal_variance * 0.6 ** np.arange(5))
    noise = noise_of(brain).reshape(-1, 5)
    products = noise[:, :, None] * noise[:, None, :]
    standard_error = products.std(0) / np.sqrt(len(noise))
    assert (np.abs(products.mean(0) - brain.noise_covariance) <= 4 * standard_error).all()


def test_signal_has_the_variance_on_which_noise_is_scaled(units):
    brain = generate_brain(units, IDS, n_subjects=500, n_runs=1)
    variance = brain.patterns.var(1).mean(1)  # a value a subject
    assert abs(variance.mean() - units.var(0).mean()) <= 4 * variance.std() / np.sqrt(500)


def test_without_noise_responses_are_the_patterns(units):
    brain = generate_brain(units, IDS, noise=0.0)
    assert not noise_of(brain).any()
    with pytest.raises(ValueError, match="without noise has no noise precision; use dissimilarity='euclidean'"):
        brain.true_rdms("mahalanobis")


@pytest.mark.parametrize("shared", [0.0, 0.3, 1.0])
def test_shared_noise_is_the_share_that_runs_have_in_common(units, shared):
    brain = generate_brain(units, IDS, n_subjects=100, n_runs=2, n_voxels=20, shared_noise=shared, noise_correlation=0)
    noise, table = noise_of(brain), brain.table
    by_run = [
        noise[:, table.index[table["run"] == run][table["stimulus"][table["run"] == run].argsort()]]
        for run in ("01", "02")
    ]
    n_values = by_run[0].size
    correlation = np.corrcoef(by_run[0].ravel(), by_run[1].ravel())[0, 1]
    assert abs(correlation - shared) <= 4 * (1 - shared**2) / np.sqrt(n_values) + 1e-12
    assert abs(noise.var() / brain.noise_sd**2 - 1) <= 4 * np.sqrt(2 / n_values)


def test_each_run_shows_every_stimulus_once_in_its_own_order(units):
    table = generate_brain(units, IDS, n_runs=3).table
    orders = [tuple(part["stimulus"]) for _, part in table.groupby("run")]
    assert all(sorted(order) == IDS for order in orders)
    assert len(set(orders)) == 3
    assert list(table.columns) == ["stimulus", "run", "session"]


def test_draws_depend_on_seed_region_and_subject_alone(units):
    few, many = generate_brain(units, IDS, n_subjects=2), generate_brain(units, IDS, n_subjects=5)
    other_seed, other_roi = generate_brain(units, IDS, seed=1), generate_brain(units, IDS, roi="V1")
    np.testing.assert_array_equal(few.responses, many.responses[:2])
    assert not np.isin(other_seed.responses, many.responses).any()
    assert not np.isin(other_roi.responses, many.responses).any()
    assert not np.isin(many.responses[0], many.responses[1]).any()
    pd.testing.assert_frame_equal(other_roi.table, many.table)  # regions are measured together


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patterns": np.zeros(8)}, r"patterns of shape \(8,\) for 8 ids; expected \(n_stimuli, n_units\)"),
        ({"patterns": np.zeros((7, 3))}, r"patterns of shape \(7, 3\) for 8 ids"),
        ({"patterns": np.ones((8, 3))}, "patterns are all the same; give at least two different ones"),
        ({"patterns": np.full((8, 3), np.nan)}, "patterns hold NaN or infinite values"),
        ({"ids": ["a"] * 8}, "the generated brain: stimulus id 'a' occurs 8 times"),
        ({"n_runs": 0}, "expected at least one subject, run and voxel, got n_subjects=4, n_runs=0"),
        ({"noise": -1.0}, "expected noise >= 0, .* got noise=-1.0"),
        ({"noise_correlation": 1.0}, "noise_correlation from 0 to below 1 .* got .*noise_correlation=1.0"),
        ({"shared_noise": 1.5}, "shared_noise from 0 to 1, got .*shared_noise=1.5"),
    ],
)
def test_what_does_not_fit_is_refused(units, change, message):
    with pytest.raises(ValueError, match=message):
        generate_brain(**{"patterns": units, "ids": IDS, **change})


@pytest.fixture
def images():
    """Eight grey images whose values have 8 bits, in another order than the brain's."""
    drawn = torch.randint(256, (8, 1, 6, 5), generator=torch.Generator().manual_seed(0)) / 255
    return Stimuli(drawn, tuple(reversed(IDS)), torch.arange(8) % 2)


@pytest.fixture
def brains(units):
    """Two regions of different size."""
    settings = {"ids": IDS, "n_subjects": 2, "n_runs": 2, "seed": 5}
    return [generate_brain(units, n_voxels=7, roi="V1", **settings), generate_brain(-units, n_voxels=4, **settings)]


def first_level(folder, subject, run, roi):
    """A run as nilearn models it: design (n_scans, n_regressors), a region's series (n_scans, n_voxels)."""
    from nilearn.glm.first_level import make_first_level_design_matrix

    stem = f"{folder}/{subject}/func/{subject}_task-viewing_run-{run}"
    images, mask = image_of(f"{stem}_bold.nii.gz"), image_of(f"{folder}/masks/{roi}.nii.gz")
    series = images.get_fdata()[mask.get_fdata() > 0].T
    times = images.header.get_zooms()[3] * np.arange(len(series))
    events = pd.read_csv(f"{stem}_events.tsv", sep="\t")
    return make_first_level_design_matrix(times, events, hrf_model="glover"), series


def image_of(path):
    import nibabel

    return nibabel.load(path)


def test_a_first_level_model_finds_the_responses_again(brains, images, tmp_path):
    write_bold(brains, images, tmp_path, scan_noise=0)
    for brain in brains:
        design, series = first_level(tmp_path, "sub-02", "01", brain.roi)
        found = pd.DataFrame(np.linalg.pinv(design) @ series, index=design.columns).loc[IDS]
        trials = brain.table[brain.table["run"] == "01"]
        rows = [trials.index[trials["stimulus"] == stimulus][0] for stimulus in IDS]
        np.testing.assert_allclose(found, brain.responses[1, rows], atol=1e-3 * brain.responses.std())  # float32


def test_scans_have_noise_of_the_size_and_correlation_of_the_brains(units, images, tmp_path):
    brain = generate_brain(units, IDS, n_subjects=10, n_runs=2, n_voxels=3, noise_correlation=0.6)
    write_bold([brain], images, tmp_path, scan_noise=2.0)
    runs = [first_level(tmp_path, subject, run, "IT") for subject in brain.subjects for run in ("01", "02")]
    residuals = np.concatenate([series - design @ (np.linalg.pinv(design) @ series) for design, series in runs])
    dof = sum(len(design) - len(design.columns) for design, _ in runs)
    covariance = residuals.T @ residuals / dof
    expected = 4 * units.var(0).mean() * brain.noise_correlation
    # Of a product of two normal values: variance c_aa c_bb + c_ab².
    standard_error = np.sqrt((np.outer(expected.diagonal(), expected.diagonal()) + expected**2) / dof)
    assert (np.abs(covariance - expected) <= 4 * standard_error).all()


def test_images_and_table_are_read_as_they_were(brains, images, tmp_path):
    spec = write_bold(brains, images, tmp_path, class_names=["face", "house"])
    assert spec == tmp_path / "spec.yaml"
    files = StimulusFiles(table="stimuli.tsv", file="stimuli/{stimulus}.png", size=(6, 5), channels=1)
    found = read_stimulus_set(files, tmp_path, "generated")
    assert found.images.ids == images.ids
    torch.testing.assert_close(found.images.read().images, images.images)
    assert found.table["category"].tolist() == ["face", "house"] * 4


def test_its_spec_is_one(brains, images, tmp_path):
    from brainrdl.fmri.spec import load_brain_spec

    spec = load_brain_spec(write_bold(brains, images, tmp_path))
    assert spec.subjects == ("sub-01", "sub-02")
    assert list(spec.rois) == ["V1", "IT"]
    assert (spec.measure, spec.noise, spec.folder) == ("crossnobis", "residuals", str(tmp_path))


def test_the_same_files_come_again(brains, images, tmp_path):
    for name in ("a", "b"):
        write_bold(brains, images, tmp_path / name)
    for file in (tmp_path / "a").rglob("*_bold.nii.gz"):
        again = tmp_path / "b" / file.relative_to(tmp_path / "a")
        np.testing.assert_array_equal(image_of(file).get_fdata(), image_of(again).get_fdata())


def test_regions_and_images_that_do_not_belong_together_are_refused(units, brains, images, tmp_path):
    with pytest.raises(ValueError, match="regions V1 and IT differ in subjects or trials; generate them with the same"):
        write_bold([brains[0], generate_brain(units, IDS, n_subjects=2, n_runs=3)], images, tmp_path)
    with pytest.raises(ValueError, match="two regions have one name: IT, IT; name them with roi="):
        write_bold([brains[1], brains[1]], images, tmp_path)
    with pytest.raises(ValueError, match=r"not those of the generated brain: 2 ids stand in one of them only, .* 's0'"):
        write_bold(brains, images._replace(ids=(*images.ids[:7], "x")), tmp_path)
    with pytest.raises(ValueError, match="expected at least one region"):
        write_bold([], images, tmp_path)
    assert not list(tmp_path.iterdir())
