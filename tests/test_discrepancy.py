"""Discrepancies: against rsatoolbox, the dense covariance, their laws, and what was not measured."""

import numpy as np
import pytest
import torch
from rsatoolbox.rdm import RDMs, compare

from brainrdl.discrepancy import DISCREPANCIES, check_discrepancy, discrepancy, measured
from brainrdl.dissimilarity import DISSIMILARITIES, pair_dissimilarities
from brainrdl.pairs import Pairs, all_pairs, sample_pairs

RSATOOLBOX = {"correlation": "corr", "cosine": "cosine", "corr_cov": "corr_cov", "cosine_cov": "cosine_cov"}
SHAPES = tuple(RSATOOLBOX)
IN_UNITS = ("mse", "scaled_mse")


def draw(n, seed=0, dtype=torch.float64):
    return 0.2 + torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_nan(values, *positions):
    values = values.clone()
    values[list(positions)] = torch.nan
    return values


def covariance(pairs):
    """V: 4 on the diagonal, 1 where two pairs share one stimulus."""
    ends = torch.stack(pairs, dim=1)  # (n_pairs, 2)
    shared = (ends[:, None, :, None] == ends[None, :, None, :]).sum((2, 3))  # (n_pairs, n_pairs)
    return torch.where(shared == 2, 4, shared).double()


@pytest.mark.parametrize("missing", [(), (3,), (0, 1, 2, 40), tuple(range(8, 66, 2))])
@pytest.mark.parametrize("name", SHAPES)
def test_equal_to_rsatoolbox(name, missing):
    predicted, target = draw(66, 1), draw(66, 2)
    similarity = compare(
        RDMs(with_nan(predicted, *missing).numpy()[None]),
        RDMs(with_nan(target, *missing).numpy()[None]),
        method=RSATOOLBOX[name],
    )
    value = discrepancy(name, predicted, measured(with_nan(target, *missing)), all_pairs(12), 12)
    np.testing.assert_allclose(1 - value, similarity.item(), rtol=1e-6)


def test_whitening_of_many_stimuli_loses_nothing_in_single_precision():
    pairs = all_pairs(300)
    alike = 1 + 0.1 * torch.stack([draw(len(pairs.i), seed) for seed in (1, 2)])
    exact, single = (
        discrepancy("cosine_cov", predicted, measured(target), pairs, 300).item()
        for predicted, target in (alike, alike.float())
    )
    assert single == pytest.approx(exact, rel=3e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["cosine_cov", "corr_cov"])
def test_whitening_is_that_of_the_sampled_measured_pairs(name, weighted):
    pairs = sample_pairs(20, 60, np.random.default_rng(0))
    predicted, target = draw(60, 1), with_nan(draw(60, 2), 5, 17, 31)
    weights = draw(60, 3) if weighted else None
    value = discrepancy(name, predicted, measured(target, weights), pairs, 20)

    kept = ~target.isnan()
    w = torch.ones(60).double()[kept] if weights is None else weights[kept]
    raw = torch.stack([predicted[kept], target[kept]])
    if name == "corr_cov":
        raw = raw - (w * raw).sum(1, keepdim=True) / w.sum()
    vectors = w.sqrt() * raw
    products = vectors @ torch.linalg.inv(covariance(Pairs(pairs.i[kept], pairs.j[kept]))) @ vectors.T
    torch.testing.assert_close(1 - value, products[0, 1] / (products[0, 0] * products[1, 1]).sqrt())


def test_mse_is_the_weighted_mean_over_measured_pairs():
    predicted, target = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.0, 4.0, torch.nan, 1.0])
    pairs = sample_pairs(4, 4, np.random.default_rng(0))
    value = discrepancy("mse", predicted, measured(target), pairs, 4)
    torch.testing.assert_close(value, torch.tensor((1 + 4 + 9) / 3))
    value = discrepancy("mse", predicted, measured(target, torch.tensor([1.0, 2.0, 5.0, 3.0])), pairs, 4)
    torch.testing.assert_close(value, torch.tensor((1 + 2 * 4 + 3 * 9) / 6))


# -- with a fitted scale ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_the_scale_is_that_of_a_regression_through_the_origin(weighted):
    """numpy's least squares on the measured pairs."""
    predicted, target = draw(28, 1), with_nan(draw(28, 2) - 0.4, 3, 9)
    weights = draw(28, 3) if weighted else torch.ones(28).double()
    kept = ~target.isnan()
    root = weights[kept].sqrt()
    (scale,), *_ = np.linalg.lstsq((root * predicted[kept])[:, None].numpy(), (root * target[kept]).numpy())
    assert scale > 0
    errors = (scale * predicted[kept] - target[kept]).square()
    value = discrepancy("scaled_mse", predicted, measured(target, weights), all_pairs(8), 8)
    torch.testing.assert_close(value, (weights[kept] * errors).sum() / weights[kept].sum())


def test_scaled_mse_in_closed_form():
    """d = (1, 2), t = (3, 1): s = 5 / 5, so that the errors are -2 and 1."""
    value = discrepancy("scaled_mse", torch.tensor([1.0, 2]), measured(torch.tensor([3.0, 1])), all_pairs(2), 2)
    torch.testing.assert_close(value, torch.tensor(2.5))


def test_scaled_mse_is_in_the_targets_units():
    predicted, target = draw(28, 1), draw(28, 2)
    one = discrepancy("scaled_mse", predicted, measured(target), all_pairs(8), 8)
    torch.testing.assert_close(discrepancy("scaled_mse", predicted, measured(3 * target), all_pairs(8), 8), 9 * one)


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 7.0, 1e12, 1e30])
def test_scaled_mse_does_not_know_the_size_of_the_prediction(scale):
    predicted, target = draw(28, 1, torch.float32), draw(28, 2, torch.float32)
    expected = discrepancy("scaled_mse", predicted, measured(target), all_pairs(8), 8)
    value = discrepancy("scaled_mse", scale * predicted, measured(target), all_pairs(8), 8)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)


def test_scaled_mse_draws_the_prediction_neither_to_zero_nor_away():
    """Its gradient is orthogonal to the prediction, and larger the smaller that is."""
    gradients = []
    for size in (1.0, 0.01):
        predicted = (size * draw(28, 1)).requires_grad_()
        discrepancy("scaled_mse", predicted, measured(draw(28, 2) - 0.4), all_pairs(8), 8).backward()
        gradients.append(predicted.grad)
        assert predicted.grad.abs().max() > 1e-4
        assert abs((predicted.grad * predicted).sum()) < 1e-12
    torch.testing.assert_close(gradients[1], 100 * gradients[0])


def test_a_scale_is_never_negative():
    """Opposite to the target, the best scale that is allowed is 0: the error is the target's mean square."""
    predicted, target = draw(28, 1).requires_grad_(), -draw(28, 2)
    value = discrepancy("scaled_mse", predicted, measured(target), all_pairs(8), 8)
    torch.testing.assert_close(value, target.square().mean())
    value.backward()
    assert (predicted.grad == 0).all()


def test_an_offset_of_the_target_is_fitted_by_the_scale_and_not_by_the_correlation():
    """What noise adds to distances that are not cross-validated."""
    predicted = draw(28, 1).requires_grad_()
    target = predicted.detach() + 2
    gradients = {}
    for name in ("scaled_mse", "correlation"):
        (gradients[name],) = torch.autograd.grad(
            discrepancy(name, predicted, measured(target), all_pairs(8), 8), predicted
        )
    assert gradients["correlation"].abs().max() < 1e-6
    assert gradients["scaled_mse"].abs().max() > 0.05


# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["gram", "differences"])
@pytest.mark.parametrize("name", DISCREPANCIES)
@pytest.mark.parametrize("dissimilarity", DISSIMILARITIES)
def test_gradcheck_from_patterns_with_missing_targets_and_weights(dissimilarity, name, path):
    n_stimuli, n_pairs = (6, 11) if path == "gram" else (60, 5)
    pairs = sample_pairs(n_stimuli, n_pairs, np.random.default_rng(3))
    rows = torch.cat(pairs).unique()
    generator = torch.Generator().manual_seed(0)
    others = torch.randn(n_stimuli, 4, generator=generator, dtype=torch.float64)
    patterns = torch.randn(len(rows), 4, generator=generator, dtype=torch.float64, requires_grad=True)
    root = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    precision = root @ root.T if dissimilarity == "mahalanobis" else None
    target = measured(with_nan(draw(n_pairs, 1), 1, 3), draw(n_pairs, 2))

    def loss(x):
        predicted = pair_dissimilarities(others.index_copy(0, rows, x), pairs, dissimilarity, precision)
        return discrepancy(name, predicted, target, pairs, n_stimuli)

    assert torch.autograd.gradcheck(loss, patterns)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("correlation", lambda d: 3 * d + 5),
        ("corr_cov", lambda d: 3 * d + 5),
        ("cosine", lambda d: 3 * d),
        ("cosine_cov", lambda d: 3 * d),
    ],
)
def test_invariance_to_the_teachers_units(name, change):
    pairs, predicted, target = all_pairs(8), draw(28, 1), with_nan(draw(28, 2), 3)
    expected = discrepancy(name, predicted, measured(target), pairs, 8)
    torch.testing.assert_close(discrepancy(name, predicted, measured(change(target)), pairs, 8), expected)
    torch.testing.assert_close(discrepancy(name, change(predicted), measured(target), pairs, 8), expected)


@pytest.mark.parametrize("scale", [1e-13, 1e-9, 1e12])
@pytest.mark.parametrize("name", SHAPES)
def test_size_of_dissimilarities_and_weights_does_not_matter_in_float32(name, scale):
    pairs, predicted, target = all_pairs(8), draw(28, 1, torch.float32), draw(28, 2, torch.float32)
    weights = draw(28, 3, torch.float32)
    expected = discrepancy(name, predicted, measured(target, weights), pairs, 8)
    scaled = discrepancy(name, scale * predicted, measured(scale * target, weights), pairs, 8)
    torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=1e-6)
    scaled = discrepancy(name, predicted, measured(target, scale * weights), pairs, 8)
    torch.testing.assert_close(scaled, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_zero_at_equal_and_never_below(name):
    pairs, target = all_pairs(8), draw(28, 2)
    assert abs(discrepancy(name, target, measured(target), pairs, 8)) < 1e-12
    opposite = discrepancy(name, -target, measured(target), pairs, 8)
    if name == "scaled_mse":
        torch.testing.assert_close(opposite, target.square().mean())
    elif name != "mse":
        torch.testing.assert_close(opposite, torch.tensor(2.0).double())
        for seed in range(20):
            assert -1e-12 < discrepancy(name, draw(28, seed) - 0.7, measured(target - 0.7), pairs, 8) < 2 + 1e-12


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_negative_targets_are_taken_as_they_are(name):
    pairs, predicted, target = all_pairs(6), draw(15, 1), draw(15, 2) - 0.7
    assert (target < 0).any()
    clamped = discrepancy(name, predicted, measured(target.clamp(min=0)), pairs, 6)
    assert abs(discrepancy(name, predicted, measured(target), pairs, 6) - clamped) > 1e-3


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_weight_zero_missing_and_absent_are_the_same(name):
    pairs, target = sample_pairs(9, 20, np.random.default_rng(1)), draw(20, 2)
    out = torch.zeros(20, dtype=torch.bool)
    out[[2, 11, 12]] = True
    weights = torch.where(out, 0.0, 1.0).double()
    ways = {
        "nan": (measured(with_nan(target, 2, 11, 12)), pairs),
        "weight": (measured(target, weights), pairs),
        "excluded": (measured(target, excluded=out), pairs),
        "absent": (measured(target[~out]), Pairs(pairs.i[~out], pairs.j[~out])),
    }
    values, gradients = {}, {}
    for way, (known, asked) in ways.items():
        predicted = draw(20, 1).requires_grad_()
        given = predicted[~out] if way == "absent" else predicted
        values[way] = discrepancy(name, given, known, asked, 9)
        values[way].backward()
        gradients[way] = predicted.grad
        assert (predicted.grad[out] == 0).all()
    for way in ways:
        torch.testing.assert_close(values[way], values["absent"])
        torch.testing.assert_close(gradients[way], gradients["absent"])


@pytest.mark.parametrize("name", DISCREPANCIES)
@pytest.mark.parametrize("stored", [7.0, -1e30, torch.inf, torch.nan])
def test_what_is_stored_where_the_weight_is_zero_does_not_matter(name, stored):
    """Bit by bit, in the value and the gradient."""
    weights = torch.ones(28)
    weights[[2, 9]] = 0
    results = []
    for value in (0.0, stored):
        target, predicted = draw(28, 2, torch.float32), draw(28, 1, torch.float32).requires_grad_()
        target[[2, 9]] = value
        loss = discrepancy(name, predicted, measured(target, weights), all_pairs(8), 8)
        results.append((loss, *torch.autograd.grad(loss, predicted)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    assert results[0][1].any()


@pytest.mark.parametrize("name", ["mse", "scaled_mse", "correlation", "cosine"])
def test_weight_two_is_a_pair_counted_twice(name):
    pairs, predicted, target = all_pairs(5), draw(10, 1), draw(10, 2)
    weights = torch.ones(10).double()
    weights[4] = 2
    twice = torch.tensor([*range(10), 4])
    expected = discrepancy(name, predicted[twice], measured(target[twice]), Pairs(*(p[twice] for p in pairs)), 5)
    torch.testing.assert_close(discrepancy(name, predicted, measured(target, weights), pairs, 5), expected)


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_what_is_predicted_where_nothing_was_measured_does_not_matter(name):
    pairs, target = all_pairs(6), measured(with_nan(draw(15, 2), 0, 7))
    predicted, odd = draw(15, 1).requires_grad_(), draw(15, 1)
    odd[0], odd[7] = torch.nan, torch.inf
    odd.requires_grad_()
    values = [discrepancy(name, p, target, pairs, 6) for p in (predicted, odd)]
    assert torch.equal(*values)
    for value in values:
        value.backward()
    assert torch.equal(predicted.grad, odd.grad)
    assert predicted.grad.isfinite().all()
    assert (predicted.grad != 0).sum() == 13


@pytest.mark.parametrize("name", DISCREPANCIES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_prediction_that_is_not_finite_shows(name, value):
    predicted, target = torch.stack([draw(15, 1), draw(15, 2)]), measured(torch.stack([draw(15, 3), draw(15, 4)]))
    predicted[1, 5] = value
    result = discrepancy(name, predicted, target, all_pairs(6), 6)
    assert result[0].isfinite()
    assert not result[1].isfinite()


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_missing_targets_and_undefined_patterns_give_no_nan_gradient(name):
    patterns = torch.randn(8, 5, generator=torch.manual_seed(0))
    patterns[3] = 0.1
    patterns.requires_grad_()
    predicted = pair_dissimilarities(patterns, all_pairs(8), "correlation")
    target = measured(with_nan(draw(28, 1), 0, 5, 20), excluded=predicted.isnan())
    discrepancy(name, predicted, target, all_pairs(8), 8).backward()
    assert patterns.grad.isfinite().all()
    assert (patterns.grad[3] == 0).all()
    assert (patterns.grad.abs().sum(1) > 0).sum() == 7


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_nothing_measured(name):
    predicted = draw(10, 1).requires_grad_()
    value = discrepancy(name, predicted, measured(torch.full((10,), torch.nan)), all_pairs(5), 5)
    assert value == (0 if name in IN_UNITS else 1)
    value.backward()
    assert (predicted.grad == 0).all()


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_no_pairs(name):
    none = torch.zeros(0)
    predicted = none.clone().requires_grad_()
    value = discrepancy(name, predicted, measured(none), Pairs(none.long(), none.long()), 5)
    assert value == (0 if name in IN_UNITS else 1)
    value.backward()
    assert predicted.grad.shape == (0,)


@pytest.mark.parametrize("constant", ["predicted", "target"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["correlation", "corr_cov"])
def test_a_constant_has_no_correlation(name, dtype, constant):
    predicted, target = draw(28, 1, dtype), draw(28, 2, dtype)
    (predicted if constant == "predicted" else target)[:] = 0.1
    predicted.requires_grad_()
    value = discrepancy(name, predicted, measured(target), all_pairs(8), 8)
    assert value == 1
    value.backward()
    assert (predicted.grad == 0).all()


@pytest.mark.parametrize("name", ["cosine", "cosine_cov"])
def test_zeros_have_no_cosine(name):
    predicted = torch.zeros(28, requires_grad=True)
    value = discrepancy(name, predicted, measured(draw(28)), all_pairs(8), 8)
    assert value == 1
    value.backward()
    assert (predicted.grad == 0).all()


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_the_result_has_the_dtype_of_the_prediction(name):
    target = measured(draw(28, 2), draw(28, 3))
    assert discrepancy(name, draw(28, 1, torch.float32), target, all_pairs(8), 8).dtype == torch.float32
    assert discrepancy(name, draw(28, 1), measured(draw(28, 2).float()), all_pairs(8), 8).dtype == torch.float64


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_autocast_changes_nothing(name):
    outside, inside = (draw(28, 1, torch.float32).requires_grad_() for _ in range(2))
    target = measured(with_nan(draw(28, 2, torch.float32), 4))
    expected = discrepancy(name, outside, target, all_pairs(8), 8)
    expected.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = discrepancy(name, inside, target, all_pairs(8), 8)
        value.backward()
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert torch.equal(inside.grad, outside.grad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rmse",), "unknown discrepancy 'rmse'; expected one of mse, correlation"),
        (("mse", "batch"), "unknown normalization 'batch'; expected one of image, pair"),
        (
            ("cosine", "image"),
            r"normalization 'image' \(Eq. 4\) is defined for 'mse' alone; leave it out with 'cosine'",
        ),
    ],
)
def test_wrong_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_discrepancy(*arguments)


def test_normalization_in_force():
    assert check_discrepancy("mse") == "image"
    assert check_discrepancy("mse", "pair") == "pair"
    assert check_discrepancy("corr_cov") == "pair"


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_rows_are_compared_each_by_itself(name):
    """Rows with other pairs missing, one without any, one without shape; values and gradients."""
    pairs = sample_pairs(9, 25, np.random.default_rng(0))
    predicted = torch.stack([draw(25, k) for k in range(4)])
    predicted[3] = 0.5
    target = torch.stack([draw(25, 10 + k) for k in range(4)])
    target[0, [1, 7]] = torch.nan
    target[2] = torch.nan
    known = measured(target, torch.stack([draw(25, 20 + k) for k in range(4)]))
    together, alone = (predicted.clone().requires_grad_() for _ in range(2))
    found = discrepancy(name, together, known, pairs, 9)
    rows = [measured(known.values[k], known.weights[k]) for k in range(4)]
    expected = torch.stack([discrepancy(name, alone[k], rows[k], pairs, 9) for k in range(4)])
    assert found.shape == (4,)
    torch.testing.assert_close(found, expected)
    factors = torch.tensor([1.0, -2.0, 3.0, 0.5]).double()
    (found * factors).sum().backward()
    (expected * factors).sum().backward()
    torch.testing.assert_close(together.grad, alone.grad)
    assert together.grad[:2].any(1).all()
    assert not together.grad[2].any()
