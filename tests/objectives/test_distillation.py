"""Distillation against SciPy's softmax and relative entropy."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from brainrdl.objectives import Distillation
from brainrdl.sources import NetworkTeacher


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_value(student, teacher, stimuli, patterns_of, temperature):
    patterns = patterns_of(student, [""], stimuli)
    terms = Distillation(teacher, temperature)(patterns, stimuli)
    target = softmax(teacher.patterns(stimuli)[""].numpy().astype(float) / temperature, axis=1)
    own = softmax(patterns[""].detach().numpy().astype(float) / temperature, axis=1)
    expected = temperature**2 * rel_entr(target, own).sum(1).mean()
    assert set(terms) == {"distillation/output"}
    assert terms["distillation/output"].item() == pytest.approx(expected, rel=1e-4)


def test_nothing_to_learn_from_ones_own_outputs(student, stimuli, patterns_of):
    term = Distillation(NetworkTeacher(student, ["high"]))(patterns_of(student, [""], stimuli), stimuli)
    assert abs(term["distillation/output"].item()) < 1e-6


def test_hot_gradient_is_that_of_the_centred_logits(student, teacher, stimuli):
    """For a high temperature T², times the gradient, tends to (z - v) / n_classes with centred logits (Hinton 2015)."""
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(3), requires_grad=True)
    (term,) = Distillation(teacher, 1e3)({"": logits}, stimuli).values()
    (gradient,) = torch.autograd.grad(term, logits)
    v = teacher.patterns(stimuli)[""]
    difference = (logits - logits.mean(1, keepdim=True)) - (v - v.mean(1, keepdim=True))
    np.testing.assert_allclose(gradient.numpy(), difference.detach().numpy() / 3 / 20, atol=2e-4)


def test_reaches_every_layer_and_not_the_teacher(student, teacher, stimuli, patterns_of, moved):
    (term,) = Distillation(teacher)(patterns_of(student, [""], stimuli), stimuli).values()
    assert moved(student, term) == {"low", "high", "readout"}
    assert all(p.grad is None for p in teacher.network.parameters())


def test_messages(student, teacher, stimuli, make_net, patterns_of):
    for temperature in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="distillation: expected a temperature > 0, got"):
            Distillation(teacher, temperature)
    Distillation(teacher).prepare(patterns_of(student, [""], stimuli), stimuli)
    wider = make_net(n_classes=5)
    with pytest.raises(ValueError, match=r"student gives shape \(20, 5\), the teacher \(20, 3\).* the same classes"):
        Distillation(teacher).prepare(patterns_of(wider, [""], stimuli), stimuli)
