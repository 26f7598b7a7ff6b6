import numpy as np
import pytest
import torch
from rsatoolbox.rdm import RDMs

from brainrdl.pairs import all_pairs
from brainrdl.rdms import average_rdms
from brainrdl.sources.rdms import MeasuredRDMs
from brainrdl.sources.weights import precision_weights, reliability_weights
from brainrdl.stimuli import Stimuli


def make(values, **descriptors):
    values = np.asarray(values, float)
    return RDMs(values, rdm_descriptors=descriptors, pattern_descriptors={"stimulus": ["a", "b", "c", "d"]})


def draw(n_rdms, seed=0):
    """Pairs whose noise grows from the first to the last."""
    generator = np.random.default_rng(seed)
    return 1 + np.linspace(0.1, 2, 6) * generator.normal(size=(n_rdms, 6))


def subjects(values):
    return make(values, subject=[f"sub-{k}" for k in range(len(values))])


def test_weights_equal_their_formula():
    values = draw(5)
    values[:2, 1] = np.nan
    values[:4, 2] = np.nan
    values[:, 3] = np.nan
    weights = reliability_weights(subjects(values)).dissimilarities[0]
    n = np.array([5, 3, 1, 0, 5, 5])
    squares = [0.0] * 6
    for pair in range(6):
        measured = values[~np.isnan(values[:, pair]), pair]
        squares[pair] = measured.var(ddof=1) * (len(measured) - 1) if len(measured) > 1 else 0.0
    mean = sum(squares) / (4 + 2 + 4 + 4)
    expected = np.array([k / ((4 * mean + s) / (4 + max(k - 1, 0))) for k, s in zip(n, squares, strict=True)])
    np.testing.assert_allclose(weights, expected / expected[n > 0].mean())
    assert weights[3] == 0


def test_many_subjects_recover_the_inverse_variance():
    weights = reliability_weights(subjects(draw(20_000))).dissimilarities[0]
    expected = 1 / np.linspace(0.1, 2, 6) ** 2
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=0.06)


def test_no_weight_explodes():
    values = draw(4)
    values[:, 0] = 1.0  # without any variance
    weights = reliability_weights(subjects(values)).dissimilarities[0]
    squares = values.var(0, ddof=1)
    at_mean = 4 / squares.mean()
    found = 4 * (4 + 3) / (4 * squares.mean())
    others = 4 * (4 + 3) / (4 * squares.mean() + 3 * squares)
    np.testing.assert_allclose(weights[0], found / others.mean())
    assert found / at_mean == pytest.approx((4 + 3) / 4)


def test_equal_rdms_weigh_by_how_often_each_pair_was_measured():
    values = np.ones((3, 6))
    values[0, 0] = np.nan
    weights = reliability_weights(subjects(values)).dissimilarities[0]
    np.testing.assert_allclose(weights, np.array([2, 3, 3, 3, 3, 3]) * 6 / 17)


def test_weights_have_mean_one_and_no_unit():
    values = draw(6)
    values[:, 2] = np.nan
    weights = reliability_weights(subjects(values)).dissimilarities[0]
    assert weights[weights > 0].mean() == pytest.approx(1)
    np.testing.assert_allclose(reliability_weights(subjects(1000 * values)).dissimilarities[0], weights)
    np.testing.assert_allclose(reliability_weights(subjects(values[::-1])).dissimilarities[0], weights)


def test_one_rdm_of_weights_for_each_combination_of_the_others():
    values = draw(8)
    rdms = make(values, subject=list("aabbccdd"), roi=["IT", "EVC"] * 4)
    weights = reliability_weights(rdms)
    assert list(weights.rdm_descriptors["roi"]) == ["IT", "EVC"]
    assert "subject" not in weights.rdm_descriptors
    assert list(weights.pattern_descriptors["stimulus"]) == ["a", "b", "c", "d"]
    for row, start in enumerate((0, 1)):
        alone = reliability_weights(subjects(values[start::2]))
        np.testing.assert_allclose(weights.dissimilarities[row], alone.dissimilarities[0])
    assert reliability_weights(rdms, ["subject", "roi"]).n_rdm == 1


def test_weights_go_with_the_mean_rdms():
    values = draw(8)
    values[:, 2] = np.nan
    rdms = make(values, subject=list("aabbccdd"), roi=["IT", "EVC"] * 4)
    weights = reliability_weights(rdms)
    source = MeasuredRDMs(average_rdms(rdms), weights=weights)
    stimuli = Stimuli(torch.zeros(4, 1, 1, 1, dtype=torch.float64), tuple("abcd"))
    for name, expected in zip(("IT", "EVC"), weights.dissimilarities, strict=True):
        target = source.targets(stimuli, all_pairs(4))[name]
        np.testing.assert_allclose(target.weights, expected)
        assert target.values.isnan().tolist() == [False, False, True, False, False, False]


def test_given_precisions():
    weights = precision_weights(make([[1.0, 3.0, np.nan, 0.0, 2.0, 2.0]], roi=["IT"]))
    np.testing.assert_allclose(weights.dissimilarities, [[0.5, 1.5, 0, 0, 1, 1]])
    assert list(weights.rdm_descriptors["roi"]) == ["IT"]


@pytest.mark.parametrize("value", [-1.0, np.inf])
def test_precisions_that_are_none_are_refused(value):
    with pytest.raises(
        ValueError, match=f"1 precisions are negative or infinite, the first is {value:g}; expected 1 / var"
    ):
        precision_weights(make([[1.0, value, 1.0, 1.0, 1.0, 1.0]]))
    with pytest.raises(ValueError, match="an RDM of precisions has no value above 0"):
        precision_weights(make([[0.0, np.nan, 0.0, 0.0, 0.0, 0.0]]))


def test_what_gives_no_variance_is_refused():
    with pytest.raises(ValueError, match=r"the RDMs have no descriptor 'session'; they have: .*subject"):
        reliability_weights(subjects(draw(3)), over="session")
    alone = make(draw(2), subject=["a", "b"], roi=["IT", "EVC"])
    with pytest.raises(ValueError, match="roi IT: no pair was measured twice"):
        reliability_weights(alone)
    with pytest.raises(ValueError, match="these RDMs: no pair was measured twice"):
        reliability_weights(subjects(draw(1)))
