"""Comparisons are rsatoolbox's; partial correlation is that of statsmodels' residuals."""

import numpy as np
import pytest
import statsmodels.api as sm
from rsatoolbox.rdm import RDMs, compare
from scipy import stats

from brainrdl.analysis.comparison import COMPARISONS, PARTIAL, POOLING, check_comparison, pooled, residuals, similarity


def vectors(n_rdms, n_stimuli=10, seed=0):
    return np.random.default_rng(seed).random((n_rdms, n_stimuli * (n_stimuli - 1) // 2))


@pytest.mark.parametrize("comparison", COMPARISONS)
@pytest.mark.parametrize("missing", [0, 13])
def test_similarity_is_rsatoolboxs_also_where_pairs_are_missing(comparison, missing):
    one, other = vectors(2), vectors(3, seed=1)
    for rows in (one, other):
        rows[:, np.random.default_rng(2).permutation(45)[:missing]] = np.nan
    expected = compare(RDMs(one), RDMs(other), method=comparison)
    np.testing.assert_allclose(similarity(one, other, comparison), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("comparison", ["cosine_cov", "corr_cov"])
def test_a_part_of_an_rdm_that_is_an_rdm_is_whitened_as_that_one(comparison):
    matrices = RDMs(vectors(2)).get_matrices()
    part = RDMs(matrices[:, :6, :6]).get_vectors()
    matrices[:, 6:], matrices[:, :, 6:] = np.nan, np.nan
    within = RDMs(matrices).get_vectors()
    np.testing.assert_allclose(
        similarity(within[:1], within[1:], comparison), similarity(part[:1], part[1:], comparison), atol=1e-12
    )


def test_incomplete_rdms_that_rsatoolbox_cannot_whiten_are_refused():
    one, other = vectors(1, 100), vectors(1, 100, seed=1)
    assert np.isfinite(similarity(one, other, "cosine_cov")).all()
    one[:, 0] = other[:, 0] = np.nan
    with pytest.raises(ValueError, match="'cosine_cov' needs every pair of 100 stimuli, and 1 are left out"):
        similarity(one, other, "cosine_cov")
    assert np.isfinite(similarity(one, other, "corr")).all()


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_what_does_not_vary_has_no_similarity_unless_the_comparison_defines_one(comparison):
    one, other = np.stack([np.full(45, 0.3), np.zeros(45), vectors(1)[0]]), vectors(1, seed=1)
    values = similarity(one, other, comparison)[:, 0]
    assert abs(values[2] - compare(RDMs(one[2:]), RDMs(other), method=comparison).item()) < 1e-12
    if comparison in ("rho-a", "tau-a"):
        assert values[0] == values[1] == 0
    else:
        assert np.isnan(values[1])
        assert np.isnan(values[0]) == (not comparison.startswith("cosine"))
    np.testing.assert_allclose(similarity(other, one, comparison)[0], values, rtol=0, atol=1e-15)


def test_fewer_than_3_pairs_have_no_similarity():
    one = np.full((1, 45), np.nan)
    one[0, :2] = 1, 2
    assert np.isnan(similarity(one, one, "corr")).all()
    one[0, 2] = 0
    assert abs(similarity(one, one, "corr").item() - 1) < 1e-12


@pytest.mark.parametrize("comparison", PARTIAL)
@pytest.mark.parametrize("seed", range(5))
def test_the_correlation_of_residuals_is_that_of_statsmodels_residuals(comparison, seed):
    generator = np.random.default_rng(seed)
    rows, controls = vectors(2, seed=seed), vectors(3, seed=seed + 100)
    controls[0] = controls[0] > 0.5  # ties, as in a category RDM
    rows += controls[:2] + controls[2]
    used = generator.random(45) > 0.2
    masked = np.where(used, rows, np.nan)
    left = residuals(masked, controls, comparison)
    assert (np.isnan(left) == ~used).all()
    values, known = rows[:, used], controls[:, used]
    if comparison != "corr":
        values, known = stats.rankdata(values, axis=1), stats.rankdata(known, axis=1)
    design = sm.add_constant(known.T)
    one, other = (sm.OLS(row, design).fit().resid for row in values)
    assert abs(similarity(left[:1], left[1:], "corr").item() - stats.pearsonr(one, other).statistic) < 1e-10


def test_partial_correlation_with_one_control_has_a_closed_form():
    x, y, z = vectors(3)
    x, y = x + z, y - z
    left = residuals(np.stack([x, y]), z[None], "spearman")
    xy, xz, yz = (stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert abs(similarity(left[:1], left[1:], "corr").item() - expected) < 1e-12


def test_what_the_controls_explain_wholly_has_no_partial_correlation():
    z = vectors(2)
    rows = np.stack([3 * z[0] - z[1] + 5, vectors(1, seed=1)[0]])
    left = residuals(rows, z, "corr")
    assert (left[0] == 0).all()
    assert np.isnan(similarity(left[:1], left[1:], "corr")).all()


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_pooling_gives_what_its_name_says_and_no_warning(comparison, recwarn):
    rows = vectors(4)
    rows[2] *= 10
    expected = {
        "mean of ranks": stats.rankdata(rows, axis=1).mean(0),
        "mean of z-scores": stats.zscore(rows, axis=1).mean(0),
        "mean of RDMs of equal norm": (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0),
    }[POOLING[comparison]]
    # Up to the origin or the unit, which the comparison does not see.
    assert abs(stats.pearsonr(pooled(rows, comparison)[0], expected).statistic - 1) < 1e-12
    assert not recwarn.list


def test_unknown_comparisons_are_refused():
    with pytest.raises(ValueError, match="unknown comparison 'pearson' of RDMs; expected one of spearman, rho-a"):
        check_comparison("pearson")
