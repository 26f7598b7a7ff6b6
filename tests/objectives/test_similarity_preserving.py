"""Similarity-preserving distillation against loops and closed forms."""

import numpy as np
import pytest
import torch

from brainrdl.objectives.similarity_preserving import similarity_loss


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loop(student, teacher):
    n = len(student)
    sides = []
    for patterns in (student, teacher):
        similarities = np.array([[sum(a * b) for b in patterns] for a in patterns])
        lengths = [sum(row**2) ** 0.5 for row in similarities]
        sides.append([row / length if length else row for row, length in zip(similarities, lengths, strict=True)])
    return sum((sides[0][i][j] - sides[1][i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def test_value_against_a_loop():
    student, teacher = draw(8, 5), draw(8, 11, seed=1)
    expected = by_loop(student.numpy(), teacher.numpy())
    assert similarity_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    student[3], teacher[[3, 6]] = 0, 0
    expected = by_loop(student.numpy(), teacher.numpy())
    assert similarity_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_closed_forms():
    """Orthogonal patterns are similar to themselves alone, equal ones to all: rows e_i and 1/√n."""
    n = 5
    orthogonal, equal = torch.eye(n, dtype=torch.float64), torch.ones(n, 3, dtype=torch.float64)
    expected = ((1 - n**-0.5) ** 2 + (n - 1) / n) / n
    assert similarity_loss(orthogonal, equal).item() == pytest.approx(expected)
    assert similarity_loss(equal, torch.zeros(n, 2, dtype=torch.float64)).item() == pytest.approx(1 / n)


def test_a_zero_patterns_own_row_has_no_gradient():
    """It is reached by the other rows, in which it stands, and by nothing that is divided by zero."""
    student, teacher = draw(6, 4), draw(6, 4, seed=1)
    student[2] = 0
    student.requires_grad_()
    similarity_loss(student, teacher).backward()
    patterns, wanted = student.detach().numpy(), teacher.numpy() @ teacher.numpy().T
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    expected = np.zeros(4)
    for i in set(range(6)) - {2}:  # d/dx_2 of (0 - t_i2)² / 36, where s_i2 = x_i · x_2 / length_i
        length = np.linalg.norm(patterns @ patterns[i])
        expected += 2 * (0 - wanted[i, 2]) * patterns[i] / length / 36
    np.testing.assert_allclose(student.grad[2].numpy(), expected, rtol=1e-10)


def test_one_scale_a_stimulus_does_matter():
    """Rows are divided by their length, columns are not."""
    patterns = draw(8, 5)
    scales = torch.linspace(0.5, 2, 8, dtype=torch.float64)[:, None]
    assert similarity_loss(patterns * scales, patterns) > 1e-3
