"""Ceilings are rsatoolbox's where it has them; on chosen pairs they are those of the RDMs of these pairs."""

import numpy as np
import pytest
from rsatoolbox.inference import boot_noise_ceiling
from rsatoolbox.rdm import RDMs, compare
from scipy import stats

from brainrdl.analysis import noise_ceiling, within_subject_ceiling
from brainrdl.analysis.comparison import COMPARISONS
from brainrdl.rdms.selection import select_rdms, subset_stimuli

pytestmark = pytest.mark.filterwarnings("ignore:Noise ceiling for tau")


@pytest.mark.parametrize("method", COMPARISONS)
def test_the_ceiling_is_rsatoolboxs(drawn, method):
    brain, _, _ = drawn()
    ceiling = noise_ceiling(brain, method)
    np.testing.assert_allclose((ceiling.low, ceiling.high), boot_noise_ceiling(brain, method), rtol=0, atol=1e-12)
    assert ceiling.n_subjects == 5
    assert (ceiling.per_subject["n_pairs"] == 66).all()
    assert (ceiling.per_subject["n_pooled"] == 4).all()
    assert ceiling.low == pytest.approx(ceiling.per_subject["low"].mean())


# Low and high of rsatoolbox 0.3.2, to the digits they were noted with.
KNOWN = {
    ("IT", "spearman"): (0.4525, 0.5422),
    ("EVC", "spearman"): (0.2419, 0.3917),
    ("IT", "corr"): (0.4593, 0.5492),
    ("EVC", "corr"): (0.2488, 0.3998),
}


@pytest.mark.parametrize("roi", ["EVC", "IT"])
@pytest.mark.parametrize("method", [name for name in COMPARISONS if name != "tau-a"])
def test_the_ceiling_of_the_real_rdms_is_rsatoolboxs(objects92, roi, method):
    brain = select_rdms(objects92[0], roi=roi)
    ceiling = noise_ceiling(brain, method)
    np.testing.assert_allclose((ceiling.low, ceiling.high), boot_noise_ceiling(brain, method), rtol=0, atol=1e-6)
    if (roi, method) in KNOWN:
        np.testing.assert_allclose((ceiling.low, ceiling.high), KNOWN[roi, method], rtol=0, atol=5e-5)


def test_several_rdms_of_a_subject_stay_on_one_side_as_in_rsatoolbox(drawn):
    brain, _, _ = drawn(n_subjects=6)
    brain.rdm_descriptors["subject"] = ["a", "a", "b", "b", "c", "c"]
    ceiling = noise_ceiling(brain, "corr")
    np.testing.assert_allclose((ceiling.low, ceiling.high), boot_noise_ceiling(brain, "corr", "subject"), atol=1e-12)
    assert ceiling.n_subjects == 3
    assert ceiling.low < noise_ceiling(brain, "corr", by="index").low


@pytest.mark.parametrize("method", COMPARISONS)
def test_on_the_pairs_of_some_stimuli_it_is_the_ceiling_of_their_rdms(drawn, method):
    brain, _, ids = drawn()
    i, j = np.triu_indices(12, 1)
    ceiling = noise_ceiling(brain, method, pairs=(i < 7) & (j < 7))
    expected = boot_noise_ceiling(subset_stimuli(brain, ids[:7]), method)
    np.testing.assert_allclose((ceiling.low, ceiling.high), expected, rtol=0, atol=1e-12)
    assert (ceiling.per_subject["n_pairs"] == 21).all()


def test_three_pairs_are_enough_and_two_are_not(drawn):
    brain, _, _ = drawn()
    pairs = np.arange(66) < 3
    values = brain.get_vectors()[:, pairs]
    low = [np.corrcoef(values[k], stats.zscore(np.delete(values, k, 0), axis=1).mean(0))[0, 1] for k in range(5)]
    np.testing.assert_allclose(noise_ceiling(brain, "corr", pairs=pairs).per_subject["low"], low, atol=1e-12)
    assert noise_ceiling(brain, "corr", pairs=np.arange(66) < 2) is None


def test_on_pairs_that_are_no_rdm_it_is_that_of_the_chosen_values(drawn):
    brain, _, _ = drawn()
    pairs = np.random.default_rng(0).random(66) > 0.4
    ranks = stats.rankdata(brain.get_vectors()[:, pairs], axis=1)
    low = [stats.spearmanr(ranks[k], np.delete(ranks, k, 0).mean(0)).statistic for k in range(5)]
    high = [stats.spearmanr(ranks[k], ranks.mean(0)).statistic for k in range(5)]
    per_subject = noise_ceiling(brain, "spearman", pairs=pairs).per_subject
    np.testing.assert_allclose(per_subject["low"], low, atol=1e-12)
    np.testing.assert_allclose(per_subject["high"], high, atol=1e-12)


def test_no_rdm_agrees_with_the_subjects_better_than_the_upper_bound(drawn):
    brain, truth, _ = drawn(n_subjects=4, n_stimuli=8, noise=1.0)
    ceiling = noise_ceiling(brain, "corr")
    generator = np.random.default_rng(0)
    others = RDMs(np.concatenate([truth.get_vectors(), brain.get_vectors(), generator.random((2000, 28))]))
    assert compare(others, brain, "corr").mean(1).max() <= ceiling.high
    assert ceiling.low < ceiling.high


def test_a_subject_with_missing_pairs_has_a_ceiling_on_those_it_has_and_is_no_ground_of_the_others(drawn):
    brain, _, _ = drawn()
    brain.dissimilarities[2, :10] = np.nan
    measured = np.arange(66) >= 10
    per_subject = noise_ceiling(brain, "spearman").per_subject.set_index("subject")
    assert per_subject["n_pairs"].tolist() == [66, 66, 56, 66, 66]
    assert per_subject["n_pooled"].tolist() == [3, 3, 4, 3, 3]
    without = noise_ceiling(brain[[0, 1, 3, 4]], "spearman").per_subject.set_index("subject")
    np.testing.assert_allclose(per_subject.loc[without.index, ["low", "high"]], without[["low", "high"]], atol=1e-12)
    masked = noise_ceiling(brain, "spearman", pairs=measured).per_subject.set_index("subject")
    assert per_subject.loc["sub-2", "low"] == masked.loc["sub-2", "low"]


def test_the_value_that_stands_at_pairs_not_chosen_does_not_matter(drawn):
    brain, _, _ = drawn()
    pairs = np.arange(66) % 3 > 0
    expected = noise_ceiling(brain, "corr", pairs=pairs)
    brain.dissimilarities[:, ~pairs] = 1e6
    assert noise_ceiling(brain, "corr", pairs=pairs).low == expected.low


def test_without_other_subjects_there_is_no_ceiling(drawn):
    brain, _, _ = drawn(n_subjects=2)
    assert noise_ceiling(brain[0]) is None
    brain.dissimilarities[0, :40] = np.nan
    brain.dissimilarities[1, 40:] = np.nan
    assert noise_ceiling(brain) is None
    assert noise_ceiling(drawn()[0], pairs=np.arange(66) < 2) is None


def test_what_has_no_ceiling_is_refused(drawn):
    brain, _, _ = drawn(rois=("EVC", "IT"))
    with pytest.raises(ValueError, match="a ceiling is of one region, these RDMs are of EVC, IT; select one"):
        noise_ceiling(brain)
    brain = select_rdms(brain, roi="IT")
    with pytest.raises(ValueError, match="unknown comparison 'pearson'"):
        noise_ceiling(brain, "pearson")
    with pytest.raises(ValueError, match="no descriptor 'person'"):
        noise_ceiling(brain, by="person")
    with pytest.raises(
        ValueError, match="pairs must be 66 bools, one for each pair of the RDMs' 12 stimuli, got int64"
    ):
        noise_ceiling(brain, pairs=np.arange(66))
    with pytest.raises(ValueError, match=r"got bool of shape \(12, 12\)"):
        noise_ceiling(brain, pairs=np.ones((12, 12), dtype=bool))


# within a subject


def measured(n_sessions, noise, seed=0, n_subjects=1, n_stimuli=40):
    """Sessions of subjects whose own RDM is known."""
    generator = np.random.default_rng(seed)
    n_pairs = n_stimuli * (n_stimuli - 1) // 2
    truth = generator.normal(size=(n_subjects, n_pairs))
    rdms = RDMs(
        np.concatenate([row + noise * generator.normal(size=(n_sessions, n_pairs)) for row in truth]),
        rdm_descriptors={
            "subject": [f"sub-{k}" for k in range(n_subjects) for _ in range(n_sessions)],
            "session": [f"ses-{k}" for _ in range(n_subjects) for k in range(n_sessions)],
        },
    )
    return rdms, truth


def test_two_sessions_give_the_spearman_brown_formula():
    rdms, _ = measured(2, noise=1.0)
    r = compare(rdms[0], rdms[1], "spearman").item()
    (row,) = within_subject_ceiling(rdms).to_dict("records")
    assert row["split_half"] == pytest.approx(r, abs=1e-12)
    assert row["reliability"] == pytest.approx(2 * r / (1 + r), abs=1e-12)
    assert row["ceiling"] == pytest.approx(np.sqrt(2 * r / (1 + r)), abs=1e-12)
    assert (row["n_sessions"], row["n_splits"], row["n_pairs"]) == (2, 1, 780)


@pytest.mark.parametrize(("n_sessions", "n_splits"), [(3, 3), (4, 3), (6, 10), (14, 100)])
def test_reliability_and_ceiling_are_those_of_the_mean_of_all_sessions(n_sessions, n_splits):
    rdms, truth = measured(n_sessions, noise=2.0, n_subjects=8)
    table = within_subject_ceiling(rdms, method="corr")
    assert (table["n_splits"] == n_splits).all()
    # With variance 1 of the truth and 4 of a session's noise; halves that differ by one are a little less alike.
    assert abs(table["reliability"].mean() - 1 / (1 + 4 / n_sessions)) < 0.03
    means = rdms.get_vectors().reshape(8, n_sessions, -1).mean(1)
    reached = [stats.pearsonr(mean, true).statistic for mean, true in zip(means, truth, strict=True)]
    assert abs(table["ceiling"].mean() - np.mean(reached)) < 0.02


def test_drawn_halves_are_the_seeds():
    rdms, _ = measured(12, noise=3.0, n_stimuli=8)
    values = [within_subject_ceiling(rdms, seed=seed)["split_half"].item() for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_pairs_missing_in_a_session_take_no_part():
    rdms, _ = measured(4, noise=1.0)
    pairs = np.arange(780) >= 100
    expected = within_subject_ceiling(rdms, pairs=pairs)
    rdms.dissimilarities[1, :100] = np.nan
    assert within_subject_ceiling(rdms).equals(expected)
    rdms.dissimilarities[2, 100:] = np.nan
    row = within_subject_ceiling(rdms).iloc[0]
    assert row["n_pairs"] == 0
    assert np.isnan([row["split_half"], row["reliability"], row["ceiling"]]).all()


def test_a_reliability_below_zero_leaves_no_ceiling():
    rdms, _ = measured(2, noise=0.1)
    rdms.dissimilarities[1] *= -1
    row = within_subject_ceiling(rdms).iloc[0]
    assert row["split_half"] < 0
    assert np.isnan(row["ceiling"])


def test_without_repetitions_there_is_no_ceiling_and_doubled_ones_are_refused():
    rdms, _ = measured(1, noise=1.0, n_subjects=3)
    assert within_subject_ceiling(rdms) is None
    rdms, _ = measured(3, noise=1.0)
    rdms.rdm_descriptors["session"] = ["ses-1", "ses-2", "ses-1"]
    with pytest.raises(ValueError, match="subject 'sub-0' has several RDMs of one session"):
        within_subject_ceiling(rdms)
    with pytest.raises(ValueError, match="no descriptor 'run'"):
        within_subject_ceiling(rdms, by="run")
