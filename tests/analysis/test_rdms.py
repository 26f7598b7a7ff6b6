from __future__ import annotations

import numpy as np
import pytest
import torch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm, get_categorical_rdm
from scipy.spatial.distance import pdist
from torch import nn

from brainrdl.analysis.rdms import label_rdm, network_rdms, pixel_rdm
from brainrdl.layers import record_layers
from brainrdl.stimuli import Stimuli


@pytest.fixture
def stimuli():
    images = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Stimuli(images, tuple(f"img{k}" for k in range(12)), torch.arange(12) % 3)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True)), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)
    ).double()


def patterns_of(network, layer, images):
    network.eval()
    with torch.no_grad(), record_layers(network, [layer]) as recorded:
        network(images)
    return recorded[layer].flatten(1).numpy()


@pytest.mark.parametrize("dissimilarity", ["euclidean", "correlation"])
@pytest.mark.parametrize("layer", ["0", "3", ""])
def test_rdms_are_rsatoolboxs(network, stimuli, layer, dissimilarity):
    rdms = network_rdms(network, [layer], stimuli, dissimilarity)
    expected = calc_rdm(Dataset(patterns_of(network, layer, stimuli.images)), method=dissimilarity)
    np.testing.assert_allclose(rdms.dissimilarities, expected.dissimilarities, rtol=1e-6, atol=1e-12)
    assert rdms.dissimilarity_measure == dissimilarity


def test_cosine_is_scipys(network, stimuli):
    rdms = network_rdms(network, ["0"], stimuli, "cosine")
    expected = pdist(patterns_of(network, "0", stimuli.images), "cosine")
    np.testing.assert_allclose(rdms.dissimilarities[0], expected, rtol=1e-6, atol=1e-12)


def test_a_float32_network_is_measured_in_float64(network, stimuli):
    stimuli = stimuli._replace(images=stimuli.images.float())
    rdms = network_rdms(network.float(), ["0"], stimuli)
    expected = calc_rdm(Dataset(patterns_of(network, "0", stimuli.images).astype(np.float64)), method="euclidean")
    np.testing.assert_allclose(rdms.dissimilarities, expected.dissimilarities, rtol=1e-6)


def test_softmax_is_the_softmax_of_the_output(network, stimuli):
    rdms = network_rdms(network, ["softmax", ""], stimuli)
    output = torch.from_numpy(patterns_of(network, "", stimuli.images))
    expected = calc_rdm(Dataset(output.softmax(1).numpy()), method="euclidean")
    np.testing.assert_allclose(rdms.dissimilarities[0], expected.dissimilarities[0], rtol=1e-6)
    assert list(rdms.rdm_descriptors["layer"]) == ["softmax", ""]
    assert not np.allclose(rdms.dissimilarities[0], rdms.dissimilarities[1])


def test_a_module_named_softmax_is_meant_by_its_name(stimuli):
    network = nn.Sequential()
    network.add_module("flat", nn.Flatten())
    network.add_module("softmax", nn.Identity())
    network.add_module("out", nn.Linear(36, 2).double())
    rdms = network_rdms(network, ["softmax"], stimuli)
    np.testing.assert_allclose(rdms.dissimilarities, pixel_rdm(stimuli).dissimilarities, rtol=1e-6)


def test_batches_do_not_change_the_rdm(network, stimuli):
    whole = network_rdms(network, ["0", ""], stimuli)
    parts = network_rdms(network, ["0", ""], stimuli, batch_size=5)
    np.testing.assert_allclose(whole.dissimilarities, parts.dissimilarities, rtol=1e-9)


def test_the_network_is_left_as_it_was(network, stimuli):
    network.train()
    network[0].eval()
    network_rdms(network, ["0"], stimuli)
    assert network.training
    assert network[2].training
    assert not network[0].training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_preprocessing_comes_before_the_network_and_is_in_eval_mode(network, stimuli):
    class Double(nn.Module):
        def forward(self, images):
            assert not self.training
            return 2 * images

    preprocess = Double()
    rdms = network_rdms(network, ["0"], stimuli, preprocess=preprocess)
    doubled = network_rdms(network, ["0"], stimuli._replace(images=2 * stimuli.images))
    np.testing.assert_allclose(rdms.dissimilarities, doubled.dissimilarities)
    assert preprocess.training


def test_descriptors_say_what_each_rdm_and_stimulus_is(network, stimuli):
    names = ["cat", "dog", "owl"]
    rdms = network_rdms(network, ["0", "softmax"], stimuli, name="rdl", epoch=4, seed=2, class_names=names)
    assert rdms.rdm_descriptors == {
        "network": ["rdl"] * 2,
        "layer": ["0", "softmax"],
        "seed": [2, 2],
        "epoch": [4, 4],
        "index": [0, 1],
    }
    assert rdms.pattern_descriptors["stimulus"] == list(stimuli.ids)
    assert rdms.pattern_descriptors["label"] == stimuli.labels.tolist()
    assert rdms.pattern_descriptors["category"] == [names[k] for k in stimuli.labels]


def test_what_was_not_given_is_minus_one_and_unlabelled(network, stimuli):
    rdms = network_rdms(network, ["0"], stimuli._replace(labels=None))
    assert rdms.rdm_descriptors["epoch"] == rdms.rdm_descriptors["seed"] == [-1]
    assert set(rdms.pattern_descriptors) == {"stimulus", "index"}
    assert network_rdms(network, ["0"], stimuli).pattern_descriptors["category"][:4] == ["0", "1", "2", "0"]


def test_pixel_rdm_is_rsatoolboxs(stimuli):
    expected = calc_rdm(Dataset(stimuli.images.flatten(1).numpy()), method="correlation")
    rdm = pixel_rdm(stimuli, "correlation")
    np.testing.assert_allclose(rdm.dissimilarities, expected.dissimilarities, rtol=1e-6)
    assert rdm.rdm_descriptors["network"] == rdm.rdm_descriptors["layer"] == ["pixels"]


def test_label_rdm_is_rsatoolboxs_categorical_rdm(stimuli):
    rdm = label_rdm(stimuli, class_names=["a", "b", "c"])
    expected = get_categorical_rdm(stimuli.labels.tolist())
    np.testing.assert_array_equal(rdm.dissimilarities, expected.dissimilarities)
    assert rdm.rdm_descriptors["network"] == rdm.rdm_descriptors["layer"] == ["labels"]
    assert rdm.pattern_descriptors["category"][:3] == ["a", "b", "c"]


def test_wrong_input_is_refused_by_name(network, stimuli):
    with pytest.raises(ValueError, match="layer 'conv9' is not in the network"):
        network_rdms(network, ["conv9"], stimuli)
    with pytest.raises(ValueError, match="unknown dissimilarity 'euclid'"):
        network_rdms(network, ["0"], stimuli, "euclid")
    with pytest.raises(ValueError, match="'mahalanobis' needs a precision"):
        pixel_rdm(stimuli, "mahalanobis")
    with pytest.raises(ValueError, match="expected at least one layer, got none"):
        network_rdms(network, [], stimuli)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        network_rdms(network, ["0"], stimuli, batch_size=0)
    with pytest.raises(ValueError, match="an RDM needs at least 2 stimuli, got 1"):
        network_rdms(network, ["0"], stimuli.subset(torch.tensor([3])))
    with pytest.raises(ValueError, match="stimuli with labels; these have none"):
        label_rdm(stimuli._replace(labels=None))
    with pytest.raises(ValueError, match="label 2 but there are only 2 class names"):
        label_rdm(stimuli, class_names=["cat", "dog"])
    with pytest.raises(ValueError, match=r"'softmax' needs a network that gives \(n_stimuli, n_classes\)"):
        network_rdms(network[0], ["softmax"], stimuli)


def test_patterns_that_are_not_finite_are_refused_by_layer_and_stimulus(network, stimuli):
    with torch.no_grad():
        network[3].weight[0, 0] = torch.inf
        network[3].bias[1] = torch.nan
    with pytest.raises(ValueError, match=r"layer '3' gives NaN or infinite values for 12 of 12 stimuli, .* 'img0'"):
        network_rdms(network, ["0", "3"], stimuli)
