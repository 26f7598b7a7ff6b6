"""Deep supervision: linear classifiers on inner layers."""

import pytest
import torch
from torch.nn import functional

from brainrdl.objectives import DeepSupervision


@pytest.fixture
def prepared(student, stimuli, patterns_of):
    def make(layers):
        torch.manual_seed(4)
        objective = DeepSupervision(layers)
        objective.prepare(patterns_of(student, objective.layers, stimuli), stimuli)
        return objective

    return make


def test_cross_entropy_of_a_linear_classifier_on_each_layer(prepared, student, stimuli, patterns_of):
    patterns = patterns_of(student, ["low", "high", ""], stimuli)
    plain = prepared(["low", "high"])
    terms = plain(patterns, stimuli)
    for k, layer in enumerate(["low", "high"]):
        classifier = plain.classifiers[k]
        scores = patterns[layer].flatten(1) @ classifier.weight.T + classifier.bias
        assert scores.shape == (20, 3)
        torch.testing.assert_close(terms[f"deep_supervision/{layer}"], functional.cross_entropy(scores, stimuli.labels))
    weighted = prepared({"low": 0.5, "high": 2.0})(patterns, stimuli)
    torch.testing.assert_close(weighted["deep_supervision/low"], terms["deep_supervision/low"] / 2)
    torch.testing.assert_close(weighted["deep_supervision/high"], terms["deep_supervision/high"] * 2)


def test_layer_and_classifier_learn_and_nothing_after(prepared, student, stimuli, patterns_of, moved):
    objective = prepared(["high"])
    (term,) = objective(patterns_of(student, objective.layers, stimuli), stimuli).values()
    assert moved(student, term) == {"low", "high"}
    assert objective.classifiers[0].weight.grad.any()


def test_messages(prepared, student, stimuli, patterns_of):
    for layers in ([], {}, "low"):
        with pytest.raises(ValueError, match="deep supervision: expected a list of at least one student layer, got"):
            DeepSupervision(layers)
    patterns = patterns_of(student, ["low", ""], stimuli)
    with pytest.raises(ValueError, match="deep supervision needs labels; these stimuli have none"):
        prepared(["low"])(patterns, stimuli._replace(labels=None))
    with pytest.raises(ValueError, match=r"no classifiers yet; call prepare\(patterns, stimuli\) first"):
        DeepSupervision(["low"])(patterns, stimuli)
