from __future__ import annotations

import numpy as np
import pytest
from rsatoolbox.rdm import RDMs, compare
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr

from brainrdl.analysis.scaling import align, multidimensional_scaling
from brainrdl.analysis.second_order import (
    COMPARISONS,
    SecondOrder,
    rdm_name,
    second_order_distances,
    second_order_mds,
    undefined_rdms,
)

COMPLETE = ("bures", "bures_metric")


def random_rdms(n_rdms=5, n_stimuli=20, seed=0, low=0.0):
    values = low + np.random.default_rng(seed).random((n_rdms, n_stimuli * (n_stimuli - 1) // 2))
    names = {"network": [f"net{k}" for k in range(n_rdms)], "layer": ["fc"] * n_rdms}
    return RDMs(values, rdm_descriptors=names)


def pair_values(rdms, k, drawn):
    """The dissimilarities of RDM k between every two different stimuli of a sample, by a plain loop."""
    matrix = rdms.get_matrices()[k]
    drawn = np.sort(drawn)
    return np.array([matrix[a, b] for i, a in enumerate(drawn) for b in drawn[i + 1 :] if a != b])


def normalized_euclidean(a, b):
    return np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("comparison", "distance"),
    [
        ("correlation", lambda a, b: 1 - pearsonr(a, b).statistic),
        ("spearman", lambda a, b: 1 - spearmanr(a, b).statistic),
        ("normalized_euclidean", normalized_euclidean),
    ],
)
def test_distances_are_the_mean_over_bootstrap_samples_of_a_plain_loop(comparison, distance):
    rdms = random_rdms(n_rdms=3)
    result = second_order_mds(rdms, comparison, n_bootstrap=4, n_stimuli=15, seed=3)
    generator = np.random.default_rng(3)
    expected = np.zeros((3, 3))
    for _ in range(4):
        drawn = generator.integers(20, size=15)
        for i in range(3):
            for j in range(3):
                expected[i, j] += distance(pair_values(rdms, i, drawn), pair_values(rdms, j, drawn)) / 4
    np.testing.assert_allclose(result.distances, expected, atol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("comparison", COMPARISONS)
def test_distances_are_symmetric_and_zero_on_self(comparison):
    rdms = random_rdms()
    rdms.dissimilarities = rdms.dissimilarities.round(1)  # ties
    result = second_order_mds(rdms, comparison, n_bootstrap=0 if comparison in COMPLETE else 2)
    np.testing.assert_allclose(result.distances, result.distances.T, atol=1e-12)
    assert (np.diag(result.distances) == 0).all()
    assert (result.distances[~np.eye(5, dtype=bool)] > 0).all()
    assert result.coordinates.shape == (5, 2)
    assert list(result.descriptors["network"]) == [f"net{k}" for k in range(5)]
    assert list(result.descriptors) == ["network", "layer"]


@pytest.mark.parametrize("comparison", [c for c in COMPARISONS if c not in ("normalized_euclidean", *COMPLETE)])
@pytest.mark.parametrize("n_stimuli", [20, 12])
def test_distances_are_rsatoolboxs_on_the_very_same_samples(comparison, n_stimuli):
    rdms = random_rdms(n_rdms=3)
    found = second_order_distances(rdms, comparison, n_bootstrap=3, n_stimuli=n_stimuli, seed=5)
    generator = np.random.default_rng(5)
    for distances in found:
        sample = rdms.subsample_pattern("index", generator.integers(20, size=n_stimuli))
        expected = 1 - compare(sample, sample, "corr" if comparison == "correlation" else comparison)
        # A pair that was drawn twice is a tie, with which rho-a and tau-a of an RDM with itself are below 1.
        np.testing.assert_allclose(distances, expected * (1 - np.eye(3)), atol=1e-9)
    result = second_order_mds(rdms, comparison, n_bootstrap=3, n_stimuli=n_stimuli, seed=5)
    np.testing.assert_allclose(result.distances, found.mean(0), atol=1e-12)
    assert result.n_stimuli == n_stimuli


@pytest.mark.parametrize("comparison", [c for c in COMPARISONS if c != "normalized_euclidean"])
def test_without_bootstrap_every_stimulus_is_taken_once(comparison):
    patterns = np.random.default_rng(0).normal(size=(3, 12, 30))
    rdms = RDMs(np.stack([pdist(p, "sqeuclidean") for p in patterns]))
    result = second_order_mds(rdms, comparison, n_bootstrap=0)
    expected = compare(rdms, rdms, "corr" if comparison == "correlation" else comparison)
    expected = np.sqrt(expected.clip(min=0)) if comparison == "bures_metric" else 1 - expected
    np.testing.assert_allclose(result.distances, expected * (1 - np.eye(3)), atol=1e-9)
    assert result.samples.shape == (0, 3, 2)
    assert result.n_stimuli == 12


def test_three_stimuli_are_enough():
    rdms = random_rdms(n_stimuli=3)
    expected = 1 - compare(rdms, rdms, "corr")
    np.testing.assert_allclose(second_order_distances(rdms, n_bootstrap=0)[0], expected, atol=1e-9)
    of_all = next(s for s in range(99) if len(set(np.random.default_rng(s).integers(3, size=3))) == 3)
    found = second_order_distances(rdms, n_bootstrap=1, n_stimuli=3, seed=of_all)
    np.testing.assert_allclose(found[0], expected, atol=1e-9)


def test_rdms_are_whitened_as_far_as_rsatoolbox_can():
    rdms = random_rdms(n_rdms=2, n_stimuli=100)
    with pytest.raises(ValueError, match=r"'corr_cov' needs every pair of 100 stimuli, .* use 'corr', 'cosine'"):
        second_order_distances(rdms, "corr_cov", n_bootstrap=1)
    assert second_order_distances(rdms, "corr_cov", n_bootstrap=1, n_stimuli=60).shape == (1, 2, 2)
    whole = second_order_distances(rdms, "corr_cov", n_bootstrap=0)[0, 0, 1]
    assert whole == pytest.approx(1 - compare(rdms[0], rdms[1], "corr_cov").item())


@pytest.mark.parametrize("comparison", COMPLETE)
def test_comparisons_that_need_every_pair_say_so(comparison):
    rdms = random_rdms()
    message = rf"'{comparison}' needs RDMs in which every pair is measured, .* take n_bootstrap=0 and stimuli without"
    with pytest.raises(ValueError, match=message):
        second_order_mds(rdms, comparison)
    rdms.dissimilarities[1, 4] = np.nan
    with pytest.raises(ValueError, match=message):
        second_order_mds(rdms, comparison, n_bootstrap=0)


def test_correlation_ignores_scale_and_offset_and_the_norm_ignores_scale():
    base = random_rdms(n_rdms=1).dissimilarities
    rdms = RDMs(np.concatenate([base, 3 * base + 1, 2 * base]))
    assert second_order_mds(rdms, "correlation").distances.max() < 1e-12
    by_norm = second_order_mds(rdms, "normalized_euclidean").distances
    assert by_norm[0, 2] < 1e-12 < by_norm[0, 1]


def test_a_stimulus_drawn_twice_is_no_pair_with_itself():
    # Independent dissimilarities, far from 0: zeros for repeated stimuli, in the same place in both, would correlate.
    result = second_order_mds(random_rdms(n_rdms=2, n_stimuli=40, low=10), "correlation", n_bootstrap=5)
    assert 0.8 < result.distances[0, 1] < 1.2


def test_a_pair_missing_in_one_rdm_takes_no_part():
    rdms = random_rdms(n_rdms=3)
    matrices = rdms.get_matrices()
    keep = np.arange(1, 20)
    matrices[0][0, 5] = matrices[0][5, 0] = np.nan
    with_nan = second_order_mds(RDMs(matrices), n_bootstrap=3)
    assert np.isfinite(with_nan.distances).all()
    # Where one stimulus is missing throughout, the others alone decide.
    matrices[1][0, :] = matrices[1][:, 0] = np.nan
    matrices[1][0, 0] = 0
    drawn = np.random.default_rng(0).integers(20, size=20)
    kept = RDMs(matrices[:, keep][:, :, keep])
    rest = drawn[drawn > 0] - 1
    expected = 1 - pearsonr(pair_values(kept, 0, rest), pair_values(kept, 2, rest)).statistic
    assert second_order_mds(RDMs(matrices), n_bootstrap=1).distances[0, 2] == pytest.approx(expected)


def test_the_same_seed_gives_the_same_picture_and_another_one_other_samples():
    rdms = random_rdms()
    first, again, other = (second_order_mds(rdms, n_bootstrap=2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.coordinates, again.coordinates)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert not np.allclose(first.distances, other.distances)


def test_distances_do_not_depend_on_which_rdms_stand_beside():
    rdms = random_rdms()
    alone = second_order_mds(rdms[[3, 1]]).distances
    np.testing.assert_allclose(alone[0, 1], second_order_mds(rdms).distances[3, 1])


@pytest.mark.parametrize("metric", [True, False])
def test_the_picture_is_the_scaling_of_the_mean_distances(metric):
    result = second_order_mds(random_rdms(), n_bootstrap=3, metric=metric)
    coordinates, stress = multidimensional_scaling(result.distances, metric)
    np.testing.assert_array_equal(result.coordinates, coordinates)
    assert (result.stress, result.metric) == (stress, metric)


@pytest.mark.parametrize("metric", [True, False])
def test_each_samples_points_are_its_distances_scaled_and_laid_onto_the_mean(metric):
    rdms = random_rdms(n_rdms=3)  # three points: their distances fit in a plane, from any start
    result = second_order_mds(rdms, n_bootstrap=4, seed=2, metric=metric)
    assert result.samples.shape == (4, 3, 2)
    for points, distances in zip(result.samples, second_order_distances(rdms, n_bootstrap=4, seed=2), strict=True):
        if metric:
            np.testing.assert_allclose(pdist(points), distances[np.triu_indices(3, 1)], rtol=1e-3)
        np.testing.assert_allclose(align(points, result.coordinates), points, atol=1e-9)
        np.testing.assert_allclose(points.mean(0), 0, atol=1e-9)


def test_more_stimuli_leave_less_spread():
    patterns = np.random.default_rng(0).normal(size=(4, 120, 5))
    patterns[1:] += patterns[0]
    rdms = RDMs(np.stack([pdist(p) for p in patterns]))
    few, many = (second_order_mds(rdms, n_stimuli=n).samples.var(0).sum() for n in (12, 120))
    assert many < few / 4


def test_identical_rdms_fall_on_one_point():
    base = random_rdms(n_rdms=1).dissimilarities
    result = second_order_mds(RDMs(np.concatenate([base, base, base])), "normalized_euclidean", n_bootstrap=2)
    assert isinstance(result, SecondOrder)
    assert result.stress == 0
    np.testing.assert_array_equal(result.coordinates, 0)
    np.testing.assert_array_equal(result.samples, 0)


@pytest.mark.parametrize("comparison", ["correlation", "cosine", "spearman", "normalized_euclidean", "cosine_cov"])
def test_rounding_does_not_set_rdms_apart(comparison):
    base = random_rdms(n_rdms=1).dissimilarities
    result = second_order_mds(RDMs(np.concatenate([base, base / 3, 7 * base])), comparison, n_bootstrap=2)
    np.testing.assert_array_equal(result.distances, 0)
    np.testing.assert_array_equal(result.coordinates, 0)


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_a_constant_rdm_has_an_angle_to_others_but_no_correlation(comparison):
    rdms = random_rdms()
    rdms.dissimilarities[2] = 0.3
    rdms.dissimilarities[2, 0] = 0.1 + 0.2  # the same but for rounding
    of_angles = comparison in ("normalized_euclidean", "cosine", "cosine_cov", *COMPLETE)
    assert undefined_rdms(rdms, comparison) == ({} if of_angles else {2: "is constant (all dissimilarities are 0.3)"})
    if of_angles:
        found = second_order_distances(rdms, comparison, n_bootstrap=0 if comparison in COMPLETE else 1)
        assert np.isfinite(found).all()


def test_infinite_values_are_refused_by_name():
    rdms = random_rdms()
    rdms.dissimilarities[3, 7] = np.inf
    with pytest.raises(
        ValueError, match=r"RDM 3 \(network 'net3', layer 'fc'\) holds infinite values, so it cannot be"
    ):
        second_order_mds(rdms, "normalized_euclidean")


def test_a_constant_rdm_is_refused_by_name():
    rdms = random_rdms()
    rdms.dissimilarities[2] = 0.5
    message = r"RDM 2 \(network 'net2', layer 'fc'\) is constant \(all dissimilarities are 0.5\), so it cannot be"
    with pytest.raises(ValueError, match=message):
        second_order_mds(rdms, "correlation")
    assert second_order_mds(rdms, "normalized_euclidean").distances[2, 0] > 0
    rdms.dissimilarities[2] = 0
    with pytest.raises(ValueError, match=r"is constant \(all dissimilarities are 0\)"):
        second_order_mds(rdms, "normalized_euclidean")
    rdms.dissimilarities[2] = np.nan
    with pytest.raises(ValueError, match="is NaN throughout, so it cannot be compared by 'spearman'; leave it out"):
        second_order_mds(rdms, "spearman")
    assert list(undefined_rdms(rdms)) == [2]


def test_an_rdm_that_is_constant_in_a_sample_is_refused_by_name():
    values = np.ones(190)
    values[0] = 2  # only the pair of stimuli 0 and 1 differs: most samples lack it
    rdms = RDMs(np.stack([np.random.default_rng(0).random(190), values]))
    with pytest.raises(ValueError, match=r"RDM 1 is constant .* in a bootstrap sample of 5 stimuli"):
        second_order_mds(rdms, n_stimuli=5)


def test_arguments_are_checked():
    rdms = random_rdms()
    with pytest.raises(
        ValueError, match="unknown comparison 'neg_riem_dist' of RDMs; expected one of correlation, normalized"
    ):
        second_order_mds(rdms, "neg_riem_dist")
    with pytest.raises(ValueError, match="expected at least 2 RDMs to compare, got 1"):
        second_order_mds(rdms[0])
    with pytest.raises(ValueError, match="at least 3 stimuli and 1 bootstrap sample, got 2 stimuli and 20 samples"):
        second_order_mds(rdms, n_stimuli=2)
    with pytest.raises(
        ValueError, match="12 stimuli and 0 samples; to take every stimulus once, give n_bootstrap=0 an"
    ):
        second_order_mds(rdms, n_bootstrap=0, n_stimuli=12)


def test_rdms_without_common_pairs_are_refused():
    rdms = random_rdms(n_rdms=2)
    rdms.dissimilarities[0, :90] = np.nan
    rdms.dissimilarities[1, 90:] = np.nan
    message = r"0 pairs of a sample of 20 stimuli are measured in all RDMs, .* missing in RDM 1 \(network 'net1', layer"
    with pytest.raises(ValueError, match=message):
        second_order_mds(rdms)


def test_an_rdm_is_named_by_what_tells_it_apart():
    rdms = RDMs(np.ones((2, 3)), rdm_descriptors={"roi": ["EVC", "IT"], "subject": ["1", "1"]})
    assert rdm_name(rdms, 1) == "RDM 1 (roi 'IT', subject '1')"
    assert rdm_name(random_rdms(), 1) == "RDM 1 (network 'net1', layer 'fc')"
    assert rdm_name(RDMs(np.ones((2, 3))), 1) == "RDM 1"
