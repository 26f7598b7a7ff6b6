from __future__ import annotations

import numpy as np
import pytest
from rsatoolbox.rdm import RDMs, compare
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, spearmanr

from brainrdl.analysis.second_order import COMPARISONS, SecondOrder, _mds, second_order_mds, undefined_rdms


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
    result = second_order_mds(rdms, comparison, n_bootstrap=2)
    np.testing.assert_allclose(result.distances, result.distances.T, atol=1e-12)
    assert (np.diag(result.distances) == 0).all()
    assert (result.distances[~np.eye(5, dtype=bool)] > 0).all()
    assert result.coordinates.shape == (5, 2)
    assert list(result.descriptors["network"]) == [f"net{k}" for k in range(5)]


@pytest.mark.parametrize("comparison", ["cosine", "rho-a", "tau-a", "kendall"])
def test_other_comparisons_are_rsatoolboxs(comparison):
    rdms = random_rdms(n_rdms=2)
    drawn = np.random.default_rng(0).integers(20, size=20)
    sample = rdms.subsample_pattern("index", drawn)
    expected = 1 - compare(sample[0], sample[1], comparison)[0, 0]
    assert second_order_mds(rdms, comparison, n_bootstrap=1).distances[0, 1] == pytest.approx(expected)


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
    assert not np.allclose(first.distances, other.distances)


def test_distances_do_not_depend_on_which_rdms_stand_beside():
    rdms = random_rdms()
    alone = second_order_mds(rdms[[3, 1]]).distances
    np.testing.assert_allclose(alone[0, 1], second_order_mds(rdms).distances[3, 1])


def test_points_in_a_plane_are_found_again():
    points = np.random.default_rng(0).normal(size=(8, 2))
    distances = squareform(pdist(points))
    coordinates, stress = _mds(distances, seed=0)
    np.testing.assert_allclose(squareform(pdist(coordinates)), distances, atol=0.01)
    assert stress < 0.01


def test_the_picture_does_not_depend_on_rotation_reflection_or_start():
    points = np.random.default_rng(1).normal(size=(8, 2)) * [3, 1]
    distances = squareform(pdist(points))
    pictures = [_mds(distances, seed)[0] for seed in (0, 1, 2)]
    for picture in pictures[1:]:
        np.testing.assert_allclose(picture, pictures[0], atol=0.05)
    centred = pictures[0]
    np.testing.assert_allclose(centred.mean(0), 0, atol=1e-12)
    assert centred[0, 0] < 0
    assert centred[:, 0].var() > centred[:, 1].var()
    assert centred[np.abs(centred[:, 1]).argmax(), 1] > 0


def test_stress_is_kruskals():
    # Three points at distance 1 lie in a plane; four do not: a regular tetrahedron is flattened.
    _, none = _mds(1 - np.eye(3), seed=0)
    coordinates, stress = _mds(1 - np.eye(4), seed=0)
    drawn = pdist(coordinates)
    assert none < 1e-3
    assert stress == pytest.approx(np.sqrt(((drawn - 1) ** 2).sum() / (drawn**2).sum()))
    assert stress > 0.1


def test_identical_rdms_fall_on_one_point():
    base = random_rdms(n_rdms=1).dissimilarities
    result = second_order_mds(RDMs(np.concatenate([base, base, base])), "normalized_euclidean", n_bootstrap=2)
    assert isinstance(result, SecondOrder)
    assert result.stress == 0
    np.testing.assert_array_equal(result.coordinates, 0)


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
    with pytest.raises(ValueError, match="unknown comparison 'bures' of RDMs; expected one of correlation, normalized"):
        second_order_mds(rdms, "bures")
    with pytest.raises(ValueError, match="expected at least 2 RDMs to compare, got 1"):
        second_order_mds(rdms[0])
    with pytest.raises(ValueError, match="at least 3 stimuli and 1 bootstrap sample, got 2 stimuli and 20 samples"):
        second_order_mds(rdms, n_stimuli=2)
