"""Linear CKA against its definition, feature by feature, rsatoolbox and Song's unbiased HSIC."""

import numpy as np
import pytest
import torch
from rsatoolbox.rdm import RDMs, compare
from scipy.spatial.distance import pdist

from brainrdl.objectives import LinearCKA, RDLObjective
from brainrdl.objectives.cka import linear_cka


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unbiased_hsic(k, m):
    """Song et al. (2012), as printed."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    ones = np.ones(n)
    middle = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + middle - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))


@pytest.mark.parametrize(("n_units", "of_teacher"), [(3, 5), (40, 7)])
def test_against_the_form_over_units(n_units, of_teacher):
    """||YᵀX||² / (||XᵀX|| ||YᵀY||) of centred patterns, which no kernel is in."""
    student, teacher = draw(12, n_units) + 2, draw(12, of_teacher, seed=1) - 1
    x, y = (p.numpy() - p.numpy().mean(0) for p in (student, teacher))
    expected = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert linear_cka(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_against_rsatoolbox():
    """Of squared Euclidean distances, the cosine whitened by their covariance is linear CKA."""
    student, teacher = draw(12, 9), draw(12, 5, seed=1)
    first, second = (RDMs(pdist(p.numpy(), "sqeuclidean")[None]) for p in (student, teacher))
    assert linear_cka(student, teacher).item() == pytest.approx(compare(first, second, "cosine_cov").item(), rel=1e-8)


def test_is_rdl_with_whitened_cosine(student, teacher, stimuli, patterns_of):
    settings = {"dissimilarity": "euclidean", "discrepancy": "cosine_cov"}
    patterns = {layer: p.detach() for layer, p in patterns_of(student, ["high"], stimuli).items()}
    results = []
    for objective in (LinearCKA(teacher, {"high": "high"}), RDLObjective(teacher, {"high": "high"}, **settings)):
        own = {"high": patterns["high"].clone().requires_grad_()}
        (term,) = objective(own, stimuli).values()
        results.append((term.detach(), *torch.autograd.grad(term, own["high"])))
    (value, gradient), (of_rdl, gradient_of_rdl) = results
    torch.testing.assert_close(value, of_rdl, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, gradient_of_rdl, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("n_stimuli", [4, 5, 15])
def test_unbiased_against_the_printed_estimate(n_stimuli):
    student, teacher = draw(n_stimuli, 9) + 1, draw(n_stimuli, 4, seed=1)
    k, m = (p.numpy() @ p.numpy().T for p in (student, teacher))
    expected = unbiased_hsic(k, m) / (unbiased_hsic(k, k) * unbiased_hsic(m, m)) ** 0.5
    assert linear_cka(student, teacher, unbiased=True).item() == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_bias():
    """Independent patterns, many more units than stimuli: aligned by the standard estimate, not by the other one."""
    drawn = [(draw(16, 400, seed=2 * k), draw(16, 400, seed=2 * k + 1)) for k in range(40)]
    standard = [linear_cka(*both).item() for both in drawn]
    unbiased = [linear_cka(*both, unbiased=True).item() for both in drawn]
    assert np.mean(standard) > 0.9
    assert abs(np.mean(unbiased)) < 3 * np.std(unbiased) / 40**0.5
    assert min(unbiased) < 0


@pytest.mark.parametrize("unbiased", [False, True])
def test_between_its_bounds_and_symmetric(unbiased):
    for seed in range(20):
        both = draw(6, 3, seed=seed), draw(6, 8, seed=seed + 100)
        value = linear_cka(*both, unbiased=unbiased)
        assert (-1 if unbiased else 0) <= value <= 1
        torch.testing.assert_close(value, linear_cka(*both[::-1], unbiased=unbiased))


def test_another_scale_for_each_unit_matters():
    patterns = draw(9, 4)
    assert linear_cka(patterns * torch.tensor([1.0, 5.0, 0.1, 1.0]), patterns) < 0.95


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e4 / 3])
@pytest.mark.parametrize("unbiased", [False, True])
def test_no_variance_is_1_without_gradient(teacher, stimuli, unbiased, constant):
    objective = LinearCKA(teacher, {"high": "high"}, unbiased=unbiased)
    patterns = torch.full((20, 6), constant, requires_grad=True)
    (term,) = objective({"high": patterns}, stimuli).values()
    term.backward()
    assert term == 1 and not patterns.grad.any()


def test_unbiased_knows_no_variance_of_equidistant_patterns():
    """Every two as far apart as any other two: without its diagonal, such a kernel has no structure."""
    equidistant = torch.eye(6).requires_grad_()
    value = linear_cka(equidistant, draw(6, 3).float(), unbiased=True)
    value.backward()
    assert value == 0 and not equidistant.grad.any()
    assert linear_cka(equidistant, draw(6, 3).float()) > 0


def test_unbiased_needs_four_stimuli(teacher, stimuli):
    three, patterns = stimuli.subset(torch.arange(3)), {"high": torch.rand(3, 6)}
    LinearCKA(teacher, {"high": "high"}).prepare(patterns, three)
    objective = LinearCKA(teacher, {"high": "high"}, unbiased=True)
    with pytest.raises(ValueError, match="cka needs batches of at least 4 stimuli, got 3; raise the batch size"):
        objective.prepare(patterns, three)
    assert objective(patterns, three)["cka/high"] == 1, "a last batch so small teaches nothing"
