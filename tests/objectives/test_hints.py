"""Hints: a linear regression of the teacher's units, and who learns from it."""

import pytest
import torch

from brainrdl.objectives import Hints

MAPPING = {"low": "low", "high": "high"}


@pytest.fixture
def hints(student, teacher, stimuli, patterns_of):
    torch.manual_seed(4)
    objective = Hints(teacher, MAPPING)
    objective.prepare(patterns_of(student, objective.layers, stimuli), stimuli)
    return objective


def test_half_the_mean_squared_error_of_a_linear_prediction(hints, student, teacher, stimuli, patterns_of):
    patterns = patterns_of(student, hints.layers, stimuli)
    terms = hints(patterns, stimuli)
    assert set(terms) == {"hints/low", "hints/high"}
    for k, layer in enumerate(MAPPING):
        wanted = teacher.patterns(stimuli)[layer].flatten(1)
        weight, bias = hints.regressors[k].weight, hints.regressors[k].bias
        assert weight.shape == (wanted.shape[1], patterns[layer].flatten(1).shape[1])
        error = patterns[layer].flatten(1) @ weight.T + bias - wanted
        torch.testing.assert_close(terms[f"hints/{layer}"], error.square().mean() / 2)


def test_student_and_regressor_learn(hints, student, teacher, stimuli, patterns_of, moved):
    term = hints(patterns_of(student, hints.layers, stimuli), stimuli)["hints/low"]
    assert moved(student, term) == {"low"}
    assert hints.regressors[0].weight.grad.any()
    assert all(p.grad is None for p in teacher.network.parameters())


def test_the_same_layer_is_predicted_perfectly(student, stimuli, patterns_of, make_net):
    from brainrdl.sources import NetworkTeacher

    objective = Hints(NetworkTeacher(student, ["high"]), {"high": "high"})
    patterns = patterns_of(student, ["high"], stimuli)
    objective.prepare(patterns, stimuli)
    with torch.no_grad():
        objective.regressors[0].weight.copy_(torch.eye(6))
        objective.regressors[0].bias.zero_()
    assert objective(patterns, stimuli)["hints/high"].item() == pytest.approx(0, abs=1e-10)


def test_messages(student, teacher, stimuli, patterns_of):
    with pytest.raises(ValueError, match="hints: map at least one student layer to a teacher layer"):
        Hints(teacher, {})
    with pytest.raises(ValueError, match="student layer 'low' is mapped to 'mid', which the teacher does not record"):
        Hints(teacher, {"low": "mid"})
    with pytest.raises(ValueError, match=r"no regressors yet; call prepare\(patterns, stimuli\) first"):
        Hints(teacher, MAPPING)(patterns_of(student, MAPPING, stimuli), stimuli)
