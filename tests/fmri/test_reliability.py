"""Split-half reliability of patterns and RDMs, and what noise leaves possible."""

import math
from dataclasses import replace

import numpy as np
import pytest

from brainrdl.fmri.dissimilarities import crossfitted_rdm, measured_rdm, noise_precision
from brainrdl.fmri.patterns import select_trials
from brainrdl.fmri.reliability import pattern_reliability, rdm_reliability, spearman_brown


def correlated_noise(make_trials, seed, n_stimuli=8, n_runs=12, n_voxels=150):
    """No stimulus differs from another; a few patterns make up most of the noise."""
    trials = make_trials(n_stimuli, n_runs, n_voxels, seed=seed)
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(5, n_voxels))
    noise = generator.normal(size=trials.responses.shape) + generator.normal(size=(len(trials.table), 5)) @ mixing
    return replace(trials, responses=noise)


def test_spearman_brown_steps_up_to_the_whole():
    found = spearman_brown(0.5)
    assert (
        found.halves == 0.5 and found.whole == pytest.approx(2 / 3) and found.ceiling == pytest.approx(math.sqrt(2 / 3))
    )
    assert spearman_brown(1).whole == 1 and spearman_brown(0).whole == 0
    for r in (-0.01, -0.8, -1):
        found = spearman_brown(r)
        assert found.halves == r and math.isnan(found.whole) and math.isnan(found.ceiling)


def test_it_is_the_reliability_of_twice_the_data():
    """Two measurements of variance 1 and noise variance v: r = 1 / (1 + v), of twice the data 1 / (1 + v / 2)."""
    for v in (0.1, 1.0, 5.0):
        assert spearman_brown(1 / (1 + v)).whole == pytest.approx(1 / (1 + v / 2))


def test_pattern_reliability_is_the_mean_over_stimuli(make_trials):
    trials = make_trials(n_stimuli=10)
    responses = trials.responses.reshape(4, 10, 20)
    first, second = (half - half.mean(0) for half in (responses[::2].mean(0), responses[1::2].mean(0)))
    expected = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)])
    assert pattern_reliability(trials, "run").halves == pytest.approx(expected)


def test_a_pattern_common_to_all_stimuli_is_not_reliability(make_trials):
    trials = make_trials(n_stimuli=40, n_voxels=100, noise=1.0)
    common = 50 * np.random.default_rng(7).normal(size=100)
    noise = np.random.default_rng(8).normal(size=trials.responses.shape)
    assert abs(pattern_reliability(replace(trials, responses=noise + common), "run").halves) < 0.1


def crossnobis(trials):
    return measured_rdm(trials, "crossnobis", "run")


def euclidean(trials):
    return measured_rdm(trials, "euclidean")


@pytest.mark.parametrize(("make", "folds_a_half"), [(euclidean, 1), (crossnobis, 2)])
def test_rdm_reliability_compares_the_halves_rdms(make_trials, make, folds_a_half):
    trials = make_trials(n_runs=6)
    runs = trials.table["run"].astype(int).to_numpy()
    first, second = (make(select_trials(trials, runs % 2 == k)).dissimilarities[0] for k in (0, 1))
    found = rdm_reliability(trials, "run", make, folds_a_half)
    assert found.halves == pytest.approx(np.corrcoef(first, second)[0, 1])


def test_two_folds_a_half_are_four_in_all(make_trials):
    assert math.isnan(rdm_reliability(make_trials(n_runs=3), "run", crossnobis, 2).halves)
    assert rdm_reliability(make_trials(n_runs=3), "run", euclidean, 1).halves > 0
    trials = make_trials(n_runs=4)
    assert rdm_reliability(trials, "run", crossnobis, 2).halves > 0
    # Three stimuli alone were measured in the fourth run.
    kept = (trials.table["run"] != "3") | trials.table["stimulus"].isin(["s0", "s1", "s2"])
    assert math.isnan(rdm_reliability(select_trials(trials, kept.to_numpy()), "run", crossnobis, 2).whole)


def test_the_ceiling_is_what_the_true_rdm_reaches(make_trials):
    """Over draws of the noise: the true RDM's correlation with a measured one is the mean ceiling."""
    ceilings, reached = [], []
    for seed in range(60):
        trials = make_trials(n_stimuli=12, n_runs=8, noise=2.5, seed=seed)
        true = euclidean(make_trials(n_stimuli=12, n_runs=2, noise=0, seed=seed)).dissimilarities[0]
        ceilings.append(rdm_reliability(trials, "run", crossnobis, 2).ceiling)
        reached.append(np.corrcoef(true, crossnobis(trials).dissimilarities[0])[0, 1])
    assert np.mean(reached) == pytest.approx(np.nanmean(ceilings), abs=0.05)
    assert 0.5 < np.mean(reached) < 0.95


def test_stepped_up_crossnobis_is_a_lower_estimate(make_trials):
    """Two independent measurements of the same patterns agree better than the formula says: four runs, much noise."""
    halves, both = [], []
    for seed in range(60):
        trials = make_trials(n_stimuli=12, n_runs=8, n_voxels=100, noise=0, seed=seed)
        strength = np.linspace(0, 1, 12)[trials.table["stimulus"].str[1:].astype(int)]
        noise = 2.5 * np.random.default_rng(100 + seed).normal(size=trials.responses.shape)
        trials = replace(trials, responses=strength[:, None] * trials.responses + noise)
        runs = trials.table["run"].astype(int).to_numpy()
        one, other = (select_trials(trials, rows) for rows in (runs < 4, runs >= 4))
        halves.append(rdm_reliability(one, "run", crossnobis, 2).halves)
        both.append(np.corrcoef(crossnobis(one).dissimilarities[0], crossnobis(other).dissimilarities[0])[0, 1])
    stepped_up = spearman_brown(np.mean(halves)).whole
    assert np.mean(both) - stepped_up > 4 * np.std(both) / np.sqrt(len(both))


def test_a_single_stimulus_has_no_pattern_reliability(make_trials):
    assert math.isnan(pattern_reliability(make_trials(n_stimuli=1), "run").halves)


def test_halves_of_whole_sessions_leave_what_is_common_to_a_session_apart(make_trials):
    """Stimuli without a pattern, in 2 of 3 odd and 2 of 3 even sessions each, with a pattern a session."""
    found, shared = [], []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        trials = make_trials(n_stimuli=12, n_runs=6, seed=seed, n_voxels=60)
        trials.table["session"] = trials.table["run"]
        patterns = generator.normal(size=(6, 60))[trials.table["run"].astype(int)]
        trials = replace(trials, responses=patterns + generator.normal(size=trials.responses.shape))
        left_out = {f"s{k}": (2 * generator.integers(3), 2 * generator.integers(3) + 1) for k in range(12)}
        run = trials.table["run"].astype(int)
        kept = [r not in left_out[s] for s, r in zip(trials.table["stimulus"], run, strict=True)]
        trials = select_trials(trials, np.array(kept))
        found.append(rdm_reliability(trials, "session", euclidean, 1).halves)
        own = trials.table.groupby("stimulus")["run"].rank(method="dense") % 2
        rdms = [euclidean(select_trials(trials, (own == k).to_numpy())).dissimilarities[0] for k in (1, 0)]
        shared.append(np.corrcoef(*rdms)[0, 1])
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert np.mean(shared) > 3 * np.std(shared) / np.sqrt(len(shared))


def test_noise_of_the_halves_own_makes_pure_noise_unreliable(make_trials):
    """Of noise alone the halves agree by chance; with one precision estimated from both halves they agree well."""
    own, shared = [], []
    for seed in range(12):
        trials = correlated_noise(make_trials, seed)
        noise = noise_precision(trials, "repetitions")
        own.append(rdm_reliability(trials, "run", crossfitted_rdm, 2).halves)
        shared.append(
            rdm_reliability(trials, "run", lambda t, n=noise: measured_rdm(t, "crossnobis", "run", n), 2).halves
        )
    errors = [np.std(values) / np.sqrt(len(values)) for values in (own, shared)]
    assert abs(np.mean(own)) < 4 * errors[0]
    assert np.mean(shared) > 4 * errors[1]
