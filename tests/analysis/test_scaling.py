from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.distance import pdist, squareform
from sklearn.manifold import smacof

from brainrdl.analysis.scaling import align, multidimensional_scaling, stress


def points(n=12, seed=0, dimensions=2):
    return np.random.default_rng(seed).normal(size=(n, dimensions)) * [3, 1, 2, 1, 1][:dimensions]


def distances(coordinates):
    return squareform(pdist(coordinates))


def turned(coordinates, angle=1.0):
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return coordinates @ rotation * [-1, 1] + [5, -7]


@pytest.mark.parametrize("metric", [True, False])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("n", [2, 3, 12, 60])
def test_points_in_a_plane_are_found_again(n, unit, metric):
    true = unit * points(n)
    found = multidimensional_scaling(distances(true), metric)
    assert np.abs(align(found.coordinates, true) - true).max() < 1e-6 * unit
    assert found.stress < 1e-6
    if n > 2:
        assert procrustes(true, found.coordinates)[2] < 1e-6


def test_points_on_a_line_and_points_twice_are_found_again():
    line = np.outer([0, 1, 3, 3, 7], [0.6, 0.8])
    found = multidimensional_scaling(distances(line))
    np.testing.assert_allclose(distances(found.coordinates), distances(line), atol=1e-6)
    square = np.array([[0, 0], [0, 0], [1, 0], [1, 1], [0, 1]])
    np.testing.assert_allclose(
        distances(multidimensional_scaling(distances(square)).coordinates), distances(square), atol=1e-6
    )


@pytest.mark.parametrize("metric", [True, False])
@pytest.mark.parametrize("n", [2, 5])
def test_points_without_distances_are_one(n, metric):
    found = multidimensional_scaling(np.zeros((n, n)), metric)
    np.testing.assert_array_equal(found.coordinates, np.zeros((n, 2)))
    assert found.stress == 0


def test_three_alike_distances_fit_in_a_plane_and_four_do_not():
    assert multidimensional_scaling(1 - np.eye(3)).stress < 1e-6
    flattened = multidimensional_scaling(1 - np.eye(4))
    drawn = pdist(flattened.coordinates)
    assert flattened.stress == pytest.approx(np.sqrt(((drawn - 1) ** 2).sum() / (drawn**2).sum()))
    assert flattened.stress > 0.1


@pytest.mark.parametrize("metric", [True, False])
@pytest.mark.parametrize("n", [10, 20])
def test_the_stress_is_scikit_learns(n, metric):
    wanted = distances(points(n, dimensions=5))
    # Where it has converged: its disparities are those of one step before.
    coordinates, expected = smacof(
        wanted,
        metric=metric,
        init=points(n, seed=1),
        n_init=1,
        max_iter=20_000,
        eps=1e-15,
        normalized_stress=True,
    )
    assert stress(coordinates, wanted, metric) == pytest.approx(expected, rel=1e-5)
    assert expected > 0.01
    found = multidimensional_scaling(wanted, metric)
    assert found.stress == pytest.approx(stress(found.coordinates, wanted, metric))


def test_the_classical_start_is_not_worse_than_random_ones():
    wanted = distances(points(30, dimensions=5))
    started = [smacof(wanted, metric=True, n_init=1, random_state=k, eps=1e-7, max_iter=1000)[0] for k in range(5)]
    least = min(stress(coordinates, wanted) for coordinates in started)
    assert multidimensional_scaling(wanted).stress <= least * 1.001


def test_non_metric_scaling_sees_the_order_alone():
    wanted = distances(points(15, dimensions=5))
    plain, bent = multidimensional_scaling(wanted, metric=False), multidimensional_scaling(wanted**3, metric=False)
    # The starts differ, the order does not.
    assert bent.stress == pytest.approx(plain.stress, rel=0.1)
    assert plain.stress < multidimensional_scaling(wanted).stress
    assert stress(plain.coordinates, wanted**3, metric=False) == pytest.approx(plain.stress)
    assert (pdist(plain.coordinates) ** 2).mean() == pytest.approx((squareform(wanted) ** 2).mean())


def test_in_non_metric_scaling_a_distance_of_0_is_the_smallest_and_not_a_missing_one():
    true = points(10)
    true[1] = true[0]
    found = multidimensional_scaling(distances(true), metric=False).coordinates
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


@pytest.mark.parametrize("metric", [True, False])
def test_the_picture_does_not_depend_on_how_the_points_lay(metric):
    true = points(9, dimensions=5)
    wanted = distances(true)
    first, again = (multidimensional_scaling(wanted, metric).coordinates for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first.mean(0), 0, atol=1e-9)
    assert first[0, 0] < 0
    assert first[:, 0].var() > first[:, 1].var()
    assert abs(np.cov(first.T)[0, 1]) < 1e-9
    assert first[np.abs(first[:, 1]).argmax(), 1] > 0
    order = np.array([0, *np.random.default_rng(0).permutation(np.arange(1, 9))])
    other = multidimensional_scaling(wanted[order][:, order], metric).coordinates
    np.testing.assert_allclose(other, first[order], atol=1e-3)


def test_a_start_is_where_the_result_is_laid():
    true = points(12)
    start = turned(true) + 0.05 * points(12, seed=1)
    found = multidimensional_scaling(distances(true), start=start)
    # SMACOF ends where a step changes little: a thousandth of the longest distance is left.
    np.testing.assert_allclose(distances(found.coordinates), distances(true), atol=1e-3 * distances(true).max())
    np.testing.assert_allclose(found.coordinates, align(true, start), atol=1e-3 * distances(true).max())
    collapsed = multidimensional_scaling(np.zeros((12, 12)), start=start)
    np.testing.assert_allclose(collapsed.coordinates, np.tile(start.mean(0), (12, 1)))


def test_a_start_decides_between_solutions_that_are_as_good():
    # Four points as far from each other as from all: a square, whose diagonals any two pairs may be.
    for diagonal in (1, 2, 3):
        others = [k for k in (1, 2, 3) if k != diagonal]
        start = np.zeros((4, 2))
        start[[diagonal, *others]] = [[1, 1], [1, 0], [0, 1]]
        drawn = distances(multidimensional_scaling(1 - np.eye(4), start=start).coordinates)
        assert drawn[0].argmax() == diagonal


def test_aligning_turns_reflects_and_moves_but_does_not_scale():
    true = points(12)
    np.testing.assert_allclose(align(turned(true), true), true, atol=1e-12)
    np.testing.assert_allclose(align(turned(2 * true), true), 2 * true - true.mean(0), atol=1e-12)


def test_malformed_distances_are_refused():
    good = distances(points(4))
    for value in (np.nan, np.inf, -0.5):
        bad = good.copy()
        bad[1, 2] = bad[2, 1] = value
        with pytest.raises(ValueError, match=rf"finite, not negative, .* points 1 and 2 stands {value}; leave one out"):
            multidimensional_scaling(bad)
    lopsided = good.copy()
    lopsided[3, 0] += 1
    with pytest.raises(ValueError, match=r"symmetric .* from point 0 to 3 it is .*, back .*; take the mean of both"):
        multidimensional_scaling(lopsided)
    for k in range(4):
        with pytest.raises(ValueError, match=f"from point {k} to itself it is 1; are these similarities"):
            multidimensional_scaling(good + np.diag(np.arange(4) == k))
    for shape in ((1, 1), (3, 4), (6,)):
        with pytest.raises(ValueError, match="expected a square matrix of distances between at least 2 points, got"):
            multidimensional_scaling(np.zeros(shape))
