"""RDMs of measured patterns: equal to rsatoolbox's and to the formula; what is refused."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from rsatoolbox.data import Dataset
from rsatoolbox.data.noise import prec_from_measurements, prec_from_residuals
from rsatoolbox.rdm import calc_rdm, calc_rdm_unbalanced

from brainrdl.fmri import dissimilarities
from brainrdl.fmri.dissimilarities import NoisePrecision, crossfitted_rdm, measured_rdm, noise_precision
from brainrdl.fmri.patterns import select_trials
from brainrdl.fmri.trials import Residuals

NAMES = ["subject", "roi", "measure", "noise", "shrinkage", "dof", "folds", "n_folds", "n_voxels", "notes"]


def dataset(trials):
    run = (trials.table["session"] + trials.table["run"]).tolist()
    return Dataset(trials.responses, obs_descriptors={"stimulus": trials.table["stimulus"].tolist(), "run": run})


@pytest.mark.parametrize("measure", ["euclidean", "correlation", "mahalanobis", "crossnobis"])
def test_rdms_are_rsatoolboxs(make_trials, measure):
    trials = make_trials()
    source = "repetitions" if measure in ("mahalanobis", "crossnobis") else "none"
    noise = noise_precision(trials, source, "shrinkage_eye")
    rdms = measured_rdm(trials, measure, "run", noise)
    cv = {"cv_descriptor": "run"} if measure == "crossnobis" else {}
    expected = calc_rdm(dataset(trials), measure, "stimulus", noise=noise.matrix, **cv)
    np.testing.assert_allclose(rdms.dissimilarities, expected.dissimilarities, rtol=1e-10)
    assert rdms.dissimilarity_measure == measure
    assert list(rdms.pattern_descriptors["stimulus"]) == [f"s{k}" for k in range(6)]
    told = {name: rdms.rdm_descriptors[name][0] for name in NAMES}
    assert (told["subject"], told["roi"], told["measure"], told["n_voxels"]) == ("sub-01", "IT", measure, 20)
    assert (told["folds"], told["n_folds"]) == (("run", 4) if measure == "crossnobis" else ("", 0))
    assert (told["noise"], told["dof"]) == (("none", 0) if source == "none" else ("repetitions", 24 - 6))


def crossnobis_by_loop(trials, precision):
    """The mean over all pairs of trials of different runs, one pair of stimuli after the other."""
    names = sorted(set(trials.table["stimulus"]))
    runs = trials.table["run"].to_numpy()
    of = {name: np.flatnonzero(trials.table["stimulus"] == name) for name in names}

    def product(a, b):
        values = [
            trials.responses[i] @ precision @ trials.responses[j] for i in of[a] for j in of[b] if runs[i] != runs[j]
        ]
        return np.mean(values) / trials.responses.shape[1]

    return np.array([product(a, a) + product(b, b) - 2 * product(a, b) for a, b in combinations(names, 2)])


def test_unequal_repetitions_take_the_unbalanced_estimator(make_trials):
    keep = np.ones(24, bool)
    keep[[0, 7, 8]] = False
    trials = select_trials(make_trials(), keep)
    noise = noise_precision(trials, "repetitions", "shrinkage_eye")
    rdms = measured_rdm(trials, "crossnobis", "run", noise)
    expected = calc_rdm_unbalanced(dataset(trials), "crossnobis", "stimulus", noise=noise.matrix, cv_descriptor="run")
    order = np.argsort(expected.pattern_descriptors["stimulus"])
    i, j = np.triu_indices(6, 1)
    np.testing.assert_allclose(rdms.dissimilarities[0], expected.get_matrices()[0][order[i], order[j]], rtol=1e-10)
    np.testing.assert_allclose(rdms.dissimilarities[0], crossnobis_by_loop(trials, noise.matrix), rtol=1e-8)
    assert (
        "rsatoolbox's unbalanced estimator, which what is common to a run biases unless responses are z-scored or "
        "centred within each run"
    ) in rdms.rdm_descriptors["notes"][0]


def test_both_estimators_agree_where_both_apply(make_trials):
    trials = make_trials()
    rdms = measured_rdm(trials, "crossnobis", "run")
    np.testing.assert_allclose(rdms.dissimilarities[0], crossnobis_by_loop(trials, np.eye(20)), rtol=1e-10)
    assert "no noise normalisation" in rdms.rdm_descriptors["notes"][0]


def test_an_rdm_does_not_depend_on_the_order_of_trials(make_trials):
    trials = make_trials()
    order = np.random.default_rng(1).permutation(24)
    shuffled = replace(trials, responses=trials.responses[order], table=trials.table.iloc[order].reset_index(drop=True))
    one, other = (measured_rdm(t, "crossnobis", "run") for t in (trials, shuffled))
    np.testing.assert_allclose(one.dissimilarities, other.dissimilarities, rtol=1e-12)
    assert list(one.pattern_descriptors["stimulus"]) == list(other.pattern_descriptors["stimulus"])


def test_crossnobis_keeps_negative_values(make_trials):
    trials = make_trials()
    noise = replace(trials, responses=np.random.default_rng(9).normal(size=trials.responses.shape))
    assert measured_rdm(noise).dissimilarities.min() < 0 < measured_rdm(trials).dissimilarities.min()


def test_stimuli_of_one_fold_are_left_out_and_said(make_trials):
    trials = make_trials()
    keep = np.ones(24, bool)
    keep[[6, 12, 18]] = False  # s0 stays in run 0 alone
    rdms = measured_rdm(select_trials(trials, keep), "crossnobis", "run")
    assert list(rdms.pattern_descriptors["stimulus"]) == ["s1", "s2", "s3", "s4", "s5"]
    assert "1 stimuli measured in one run only are left out of crossnobis" in rdms.rdm_descriptors["notes"][0]
    others = measured_rdm(select_trials(trials, trials.table["stimulus"].to_numpy() != "s0"), "crossnobis", "run")
    np.testing.assert_allclose(rdms.dissimilarities, others.dissimilarities)


@pytest.mark.parametrize("shrinkage", ["shrinkage_eye", "shrinkage_diag", "diag", "full"])
def test_the_noise_precision_is_rsatoolboxs(make_trials, shrinkage):
    trials = make_trials(n_runs=8)
    values = np.random.default_rng(3).normal(size=(200, 20)) @ np.random.default_rng(4).normal(size=(20, 20))
    noise = noise_precision(replace(trials, residuals=Residuals(values, 150)), "residuals", shrinkage)
    np.testing.assert_allclose(noise.matrix, prec_from_residuals(values, dof=150, method=shrinkage), rtol=1e-8)
    assert (noise.source, noise.shrinkage, noise.dof) == ("residuals", shrinkage, 150)
    noise = noise_precision(trials, "repetitions", shrinkage)
    expected = prec_from_measurements(dataset(trials), "stimulus", dof=48 - 6, method=shrinkage)
    np.testing.assert_allclose(noise.matrix, expected, rtol=1e-8)
    assert noise.dof == 42


def test_the_noise_precision_finds_the_noise(make_trials):
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(5, 5))
    trials = make_trials(n_stimuli=4, n_runs=4000, n_voxels=5, noise=0)
    trials = replace(trials, responses=trials.responses + generator.normal(size=trials.responses.shape) @ mixing)
    noise = noise_precision(trials, "repetitions", "full")
    np.testing.assert_allclose(np.linalg.inv(noise.matrix), mixing.T @ mixing, rtol=0.1, atol=0.1)


def test_noise_that_cannot_be_estimated_is_told(make_trials):
    trials = make_trials()
    for given, source, shrinkage, message in (
        (trials, "residuals", "diag", "there are no residuals; estimate noise from 'repetitions'"),
        (
            replace(trials, averaged=True),
            "repetitions",
            "diag",
            "the responses are means over repetitions; set noise: none",
        ),
        (select_trials(trials, np.arange(24) < 6), "repetitions", "diag", "every stimulus was measured once"),
        (trials, "repetitions", "full", "a full covariance of 20 voxels has no inverse with 18 degrees of freedom"),
        (
            replace(trials, residuals=Residuals(np.zeros((30, 20)), 20)),
            "residuals",
            "full",
            r"\(residuals, full\) has no inverse",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            noise_precision(given, source, shrinkage)


def test_what_has_no_rdm_is_told(make_trials):
    trials = make_trials()
    one_run = select_trials(trials, np.arange(24) < 6)
    precision = NoisePrecision(np.eye(19), "residuals", "diag", 9)
    for given, message in (
        (
            (one_run, "crossnobis"),
            r"crossnobis needs at least 2 stimuli, each measured in at least 2 runs; there is 1 run",
        ),
        ((trials, "crossnobis", "session"), r"at least 2 sessions; there is 1 session"),
        ((replace(trials, averaged=True), "crossnobis"), "means over repetitions, which cannot be cross-validated"),
        (
            (replace(trials, repeated_only=frozenset(["s1", "s2"])), "crossnobis"),
            "4 stimuli that were shown once, .* 's0'",
        ),
        ((replace(trials, responses=trials.responses[:, :1]), "euclidean"), "1 voxels; a pattern needs at least 2"),
        ((select_trials(trials, trials.table["stimulus"].to_numpy() == "s1"), "euclidean"), "1 stimuli; an RDM needs"),
        ((trials, "manhattan"), "unknown measure 'manhattan'; expected one of euclidean, correlation"),
        ((trials, "mahalanobis"), "mahalanobis needs a noise precision"),
        ((trials, "correlation", "run", precision), "correlation uses no noise precision"),
        ((trials, "crossnobis", "run", precision), r"a noise precision of shape \(19, 19\) for 20 voxels"),
    ):
        with pytest.raises(ValueError, match=message):
            measured_rdm(*given)


def test_repeated_stimuli_alone_may_be_cross_validated(make_trials):
    trials = make_trials()
    allowed = frozenset(f"s{k}" for k in range(6))
    rdms = measured_rdm(replace(trials, repeated_only=allowed), "crossnobis")
    np.testing.assert_array_equal(rdms.dissimilarities, measured_rdm(trials, "crossnobis").dissimilarities)


def noise_alone(make_trials, seed, n_voxels=40):
    """No stimulus differs from another; a few patterns make up most of the noise."""
    trials = make_trials(n_stimuli=8, n_runs=6, n_voxels=n_voxels)
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(5, n_voxels))
    noise = generator.normal(size=trials.responses.shape) + generator.normal(size=(48, 5)) @ mixing
    return replace(trials, responses=noise)


def test_noise_of_other_stimuli_leaves_crossnobis_unbiased_that_of_the_same_does_not(make_trials):
    """True distances are 0. A precision made of the same trials takes their differences for noise."""
    other, same = [], []
    for seed in range(60):
        trials = noise_alone(make_trials, seed)
        other.append(crossfitted_rdm(trials).dissimilarities.mean())
        same.append(
            measured_rdm(trials, "crossnobis", "run", noise_precision(trials, "repetitions")).dissimilarities.mean()
        )
    errors = [np.std(values) / np.sqrt(60) for values in (other, same)]
    assert abs(np.mean(other)) < 4 * errors[0]
    assert np.mean(same) > 10 * errors[1]


def test_crossfitting_equals_one_precision_where_all_groups_have_the_same(make_trials, monkeypatch):
    trials = make_trials(n_stimuli=9)
    precision = NoisePrecision(np.diag(np.arange(1.0, 21)), "repetitions", "diag", 7)
    monkeypatch.setattr(dissimilarities, "noise_precision", lambda *_: precision)
    found = crossfitted_rdm(trials, "run", "diag")
    np.testing.assert_allclose(
        found.dissimilarities, measured_rdm(trials, "crossnobis", "run", precision).dissimilarities
    )
    told = {name: found.rdm_descriptors[name][0] for name in NAMES}
    assert (told["noise"], told["shrinkage"], told["dof"], told["n_folds"]) == ("repetitions", "diag", 7, 4)
    assert told["notes"] == "noise normalised by the repetitions of other stimuli than those compared"


def test_no_trial_of_the_compared_stimuli_has_a_say_in_their_noise(make_trials, monkeypatch):
    asked = []

    def spy(trials, *_):
        asked.append(frozenset(trials.table["stimulus"]))
        return NoisePrecision(np.eye(20), "repetitions", "", 1)

    monkeypatch.setattr(dissimilarities, "noise_precision", spy)
    monkeypatch.setattr(
        dissimilarities,
        "measured_rdm",
        lambda trials, *args: (asked.append(frozenset(trials.table["stimulus"])), measured_rdm(trials, *args))[1],
    )
    crossfitted_rdm(make_trials(n_stimuli=9), "run", "diag")
    everything = asked.pop(0)
    pairs = list(zip(asked[::2], asked[1::2], strict=True))
    assert len(pairs) == 6 and all(not noise & compared and noise | compared == everything for noise, compared in pairs)


def test_crossfitting_leaves_out_what_was_measured_once(make_trials):
    trials = make_trials(n_stimuli=7)
    keep = np.ones(28, bool)
    keep[[7, 14, 21]] = False
    found = crossfitted_rdm(select_trials(trials, keep))
    rest = crossfitted_rdm(select_trials(trials, trials.table["stimulus"].to_numpy() != "s0"))
    np.testing.assert_allclose(found.dissimilarities, rest.dissimilarities)
    assert (
        "1 stimuli measured in one run only are left out of crossnobis; noise normalised"
        in found.rdm_descriptors["notes"][0]
    )
    with pytest.raises(
        ValueError, match="needs at least 4 stimuli measured in two runs, got 3; set noise: residuals or none"
    ):
        crossfitted_rdm(make_trials(n_stimuli=3))
