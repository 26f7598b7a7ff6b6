"""Relational distillation against loops over pairs and triplets, its angles in parts, its weights."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.special import huber

from brainrdl.objectives import RelationalDistillation, rkd
from brainrdl.objectives.rkd import angle_loss, distance_loss


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine_at(x, i, j, k):
    """Of the angle at x_j, between x_i and x_k; NaN where an arm has no length."""
    first, second = x[i] - x[j], x[k] - x[j]
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return first @ second / lengths if lengths else np.nan


def by_loop(student, teacher):
    """Mean Huber loss between the cosines of all triplets that have one on both sides."""
    triplets = permutations(range(len(student)), 3)
    differences = [cosine_at(student, *t) - cosine_at(teacher, *t) for t in triplets]
    losses = huber(1.0, np.array(differences))
    return losses[~np.isnan(losses)].mean()


def test_distances_against_scipy():
    student, teacher = draw(9, 6), draw(9, 4, seed=1)
    own, wanted = pdist(student.numpy()), pdist(teacher.numpy())
    difference = own / own.mean() - wanted / wanted.mean()
    assert (abs(difference) > 1).any() and (abs(difference) < 1).any(), "both parts of Huber's loss"
    expected = huber(1.0, difference).mean()
    assert distance_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_angles_against_a_loop():
    student, teacher = draw(7, 6), draw(7, 2, seed=1)
    assert angle_loss(student, teacher).item() == pytest.approx(by_loop(student.numpy(), teacher.numpy()), rel=1e-10)


def test_an_angle_without_an_arm_takes_no_part():
    student, teacher = draw(7, 6), draw(7, 4, seed=1)
    student[3], teacher[5] = student[2], teacher[0]
    assert angle_loss(student, teacher).item() == pytest.approx(by_loop(student.numpy(), teacher.numpy()), rel=1e-7)


def test_a_right_triangle_and_a_line():
    """Cosines 0, 3/5, 4/5 against 1, 1, -1; distances 3, 4, 5 (mean 4) against 1, 1, 2 (mean 4/3)."""
    triangle = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    line = torch.tensor([[0.0], [2.0], [1.0]], dtype=torch.float64)
    cosines = [0.4**2 / 2, 0.2**2 / 2, 1 / 2]
    assert angle_loss(triangle, line).item() == pytest.approx(np.mean(cosines))
    relative = np.array([5 / 4 - 6 / 4, 3 / 4 - 3 / 4, 4 / 4 - 3 / 4])
    assert distance_loss(triangle, line).item() == pytest.approx((relative**2).mean() / 2)


def test_equal_patterns_stay_together_and_pull_nothing():
    """Two equal patterns have no direction to be pulled in: their distance counts, its gradient is 0."""
    student = draw(6, 4)
    student[1] = student[0]
    student.requires_grad_()
    distance_loss(student, torch.eye(6, dtype=torch.float64)).backward()  # which wants them as far apart as all others
    assert student.grad[0].any()
    torch.testing.assert_close(student.grad[0], student.grad[1])
    student = torch.ones(6, 4, requires_grad=True)
    loss = distance_loss(student, draw(6, 4, seed=1).float())
    loss.backward()
    assert loss > 0 and not student.grad.any()
    assert angle_loss(student, draw(6, 4, seed=1).float()) == 0, "there is no angle"


@pytest.mark.parametrize("n_units", [10, 20_000])
def test_rounding_is_no_distance(n_units):
    patterns = draw(12, n_units).float()
    patterns[6:] = patterns[:6]
    lengths = rkd._Distances.of(patterns).length
    same = torch.arange(12)[:, None] % 6 == torch.arange(12) % 6
    assert torch.equal(lengths == 0, same)


@pytest.mark.parametrize("size", [1, 300])  # one vertex at a time, and three
def test_angles_in_parts_are_the_same(monkeypatch, size):
    student, teacher = draw(10, 6).requires_grad_(), draw(10, 4, seed=1)
    whole = angle_loss(student, teacher)
    (expected,) = torch.autograd.grad(whole, student)
    monkeypatch.setattr(rkd, "_MAX_ANGLES", size)
    with monkeypatch.context() as counting:
        calls = []
        function = rkd._angles_at
        counting.setattr(
            rkd, "_angles_at", lambda vertices, *rest: calls.append(len(vertices)) or function(vertices, *rest)
        )
        parts = angle_loss(student, teacher)
    assert calls == ([1] * 10 if size == 1 else [3, 3, 3, 1])
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, student)[0], expected)
    with torch.no_grad():
        torch.testing.assert_close(angle_loss(student, teacher), whole.detach())


def test_weights_stand_in_the_terms(student, teacher, stimuli, patterns_of):
    patterns = patterns_of(student, ["high"], stimuli)
    mine, wanted = patterns["high"], teacher.patterns(stimuli)["high"]
    terms = RelationalDistillation(teacher, {"high": "high"})(patterns, stimuli)
    torch.testing.assert_close(terms["rkd/high/distance"], distance_loss(mine, wanted))
    torch.testing.assert_close(terms["rkd/high/angle"], 2 * angle_loss(mine, wanted))
    terms = RelationalDistillation(teacher, {"high": "high"}, distance=25.0, angle=0.0)(patterns, stimuli)
    assert set(terms) == {"rkd/high/distance"}
    torch.testing.assert_close(terms["rkd/high/distance"], 25 * distance_loss(mine, wanted))


def test_messages(student, teacher, stimuli, patterns_of):
    for weights in ({"distance": -1.0}, {"angle": float("nan")}, {"angle": float("inf")}):
        with pytest.raises(ValueError, match=f"rkd: expected a weight >= 0 for '{next(iter(weights))}', got"):
            RelationalDistillation(teacher, {"high": "high"}, **weights)
    with pytest.raises(ValueError, match="the weights of 'distance' and 'angle' are both 0; give one of them"):
        RelationalDistillation(teacher, {"high": "high"}, distance=0, angle=0)
    two = stimuli.subset(torch.arange(2))
    patterns = patterns_of(student, ["high"], two)
    RelationalDistillation(teacher, {"high": "high"}, angle=0).prepare(patterns, two)
    with pytest.raises(ValueError, match="rkd needs batches of at least 3 stimuli, got 2"):
        RelationalDistillation(teacher, {"high": "high"}).prepare(patterns, two)
