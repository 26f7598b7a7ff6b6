from __future__ import annotations

import tempfile

import numpy as np
import pandas as pd
import pytest
import torch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import calc_rdm, get_categorical_rdm, load_rdm
from scipy.spatial.distance import pdist
from scipy.special import softmax
from torch import nn

from brainrdl.analysis.rdms import category_rdm, join_rdms, label_rdm, network_rdms, pattern_rdms, pixel_rdm, save_rdms
from brainrdl.layers import record_layers
from brainrdl.pairs import all_pairs
from brainrdl.sources.controls import CategoryTeacher
from brainrdl.sources.rdms import MeasuredRDMs
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


class Stored:
    """Stimuli that are read when they are needed, and how many at a time."""

    def __init__(self, stimuli, labels=None, reads=None):
        self.stimuli, self.ids = stimuli, stimuli.ids
        self.labels = stimuli.labels if labels is None else labels
        self.reads = [] if reads is None else reads

    def subset(self, rows):
        return Stored(self.stimuli.subset(rows), self.labels[rows], self.reads)

    def read(self):
        self.reads.append(len(self.ids))
        return self.stimuli._replace(labels=self.labels)


class Alike(nn.Module):
    """A network whose patterns hang on nothing but their own stimulus, to the last bit."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Tanh(), nn.Flatten()

    def forward(self, images):
        return self.second(self.first(images))


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


def test_stimuli_that_are_read_when_needed_give_the_same(network, stimuli):
    stored = Stored(stimuli)
    for measured, expected in (
        (
            network_rdms(network, ["0", "softmax"], stored, batch_size=5),
            network_rdms(network, ["0", "softmax"], stimuli),
        ),
        (pixel_rdm(stored), pixel_rdm(stimuli)),
        (label_rdm(stored), label_rdm(stimuli)),
    ):
        np.testing.assert_allclose(measured.dissimilarities, expected.dissimilarities, rtol=1e-9)
        assert measured.pattern_descriptors == expected.pattern_descriptors
        assert measured.rdm_descriptors == expected.rdm_descriptors
    assert stored.reads == [5, 5, 2, 12]


def test_stored_stimuli_without_a_task_have_no_labels(network, stimuli):
    stored = Stored(stimuli, torch.full((12,), -1))
    assert set(network_rdms(network, ["0"], stored).pattern_descriptors) == {"stimulus", "index"}
    with pytest.raises(ValueError, match="stimuli with labels; these have none"):
        label_rdm(stored)
    stored.labels[0] = 2
    with pytest.raises(ValueError, match=r"a label is negative \(-1\); classes are counted from 0"):
        network_rdms(network, ["0"], stored)


def test_a_stored_image_that_is_not_finite_is_refused_by_name(network, stimuli):
    stimuli.images[7, 0, 0, 0] = torch.nan
    for make in (pixel_rdm, lambda stored: network_rdms(network, ["0"], stored)):
        with pytest.raises(ValueError, match="1 of 12 images hold NaN or infinite values, the first is 'img7'"):
            make(Stored(stimuli))


def test_batches_and_files_do_not_change_a_bit(stimuli, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stimuli = stimuli._replace(images=stimuli.images.float())
    layers = ["first", "second", "softmax"]
    whole = network_rdms(Alike(), layers, stimuli, "correlation").dissimilarities
    for memory in (2.0, 0.0):
        for batch_size in (1, 5, 12):
            again = network_rdms(Alike(), layers, stimuli, "correlation", batch_size=batch_size, memory=memory)
            np.testing.assert_array_equal(again.dissimilarities, whole)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("memory", [2.0, 0.0])
def test_a_forward_that_fails_leaves_network_and_disk_as_they_were(network, stimuli, monkeypatch, tmp_path, memory):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    calls = []

    def fails_later(images):
        calls.append(len(images))
        if len(calls) == 2:
            raise RuntimeError("no more")
        return images

    network.train()
    with pytest.raises(RuntimeError, match="no more"):
        network_rdms(network, ["0"], stimuli, preprocess=fails_later, batch_size=5, memory=memory)
    assert network.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert torch.is_grad_enabled()
    assert list(tmp_path.iterdir()) == []


def test_several_networks_stand_one_after_the_other(network, stimuli):
    torch.manual_seed(1)
    other = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    found = network_rdms(
        {"rdl": network, "other": other},
        {"rdl": ["0", ""], "other": ["1"]},
        stimuli,
        preprocess={"rdl": lambda images: 2 * images, "other": None},
        seed=3,
    )
    expected = join_rdms(
        [
            network_rdms(network, ["0", ""], stimuli, preprocess=lambda images: 2 * images, name="rdl", seed=3),
            network_rdms(other, ["1"], stimuli, name="other", seed=3),
        ]
    )
    np.testing.assert_array_equal(found.dissimilarities, expected.dissimilarities)
    assert found.rdm_descriptors == expected.rdm_descriptors
    assert found.rdm_descriptors["network"] == ["rdl", "rdl", "other"]
    assert found.pattern_descriptors == expected.pattern_descriptors


def test_several_networks_may_share_layers_and_preprocessing(network, stimuli):
    found = network_rdms({"a": network, "b": network}, (layer for layer in ["0", "3"]), stimuli, preprocess=torch.neg)
    assert found.rdm_descriptors["network"] == ["a", "a", "b", "b"]
    assert found.rdm_descriptors["layer"] == ["0", "3", "0", "3"]
    expected = network_rdms(network, ["0", "3"], stimuli, preprocess=torch.neg).dissimilarities
    np.testing.assert_array_equal(found.dissimilarities, np.concatenate([expected, expected]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_network_takes_images_of_its_own(network, stimuli, dtype):
    try:
        network = network.to(dtype)
        network(stimuli.images.to(dtype))
    except RuntimeError as error:
        pytest.skip(f"this version of torch has no such convolution: {error}")
    found = network_rdms(network, ["0"], stimuli)
    network.eval()
    with torch.no_grad():
        patterns = network[0](stimuli.images.to(dtype)).flatten(1).double()
    np.testing.assert_allclose(found.dissimilarities[0], pdist(patterns, "sqeuclidean") / patterns.shape[1], rtol=1e-9)


def test_patterns_give_the_rdms_of_their_network(network, stimuli):
    patterns = patterns_of(network, "0", stimuli.images).reshape(12, 4, 4, 4)
    expected = network_rdms(network, ["0"], stimuli, "correlation", name="vgg", class_names=["a", "b", "c"], seed=1)
    categories = {stimulus: "abc"[k % 3] for k, stimulus in enumerate(stimuli.ids)}
    for given in (patterns, torch.from_numpy(patterns), np.asfortranarray(patterns)):
        found = pattern_rdms(given, stimuli.ids, "correlation", "vgg", "0", seed=1, categories=categories)
        np.testing.assert_allclose(found.dissimilarities, expected.dissimilarities, rtol=1e-12)
        assert found.rdm_descriptors == expected.rdm_descriptors
        assert found.pattern_descriptors == expected.pattern_descriptors
        assert found.dissimilarity_measure == "correlation"


@pytest.mark.parametrize("dtype", ["float16", "int64", ">f4", "uint8", "bool"])
def test_patterns_of_any_numbers_are_compared_in_float64(dtype):
    values = np.random.default_rng(0).integers(0, 2, (9, 40)).astype(dtype)
    rdm = pattern_rdms(values, [f"s{k}" for k in range(9)])
    np.testing.assert_allclose(rdm.dissimilarities[0], pdist(values.astype(float), "sqeuclidean") / 40, rtol=1e-12)
    assert rdm.rdm_descriptors["network"] == rdm.rdm_descriptors["layer"] == ["features"]


def test_patterns_without_a_correlation_are_nan():
    patterns = np.random.default_rng(0).random((4, 5))
    patterns[1] = 0.3
    rdm = pattern_rdms(patterns, list("abcd"), "correlation")
    assert np.isnan(rdm.dissimilarities[0]).tolist() == [True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": list("abcd")}, "patterns: 5 rows, but 4 stimulus ids; give one id a row"),
        ({"ids": list("abcca")}, "patterns: stimulus id 'a' occurs 2 times"),
        ({"ids": [1, 2, 3, 4, 5]}, "patterns: expected stimulus ids as text, got 1"),
        ({"patterns": np.ones(5)}, r"patterns: expected \(n_stimuli, n_units\), got shape \(5,\)"),
        ({"patterns": np.ones((5, 2, 0))}, r"patterns: expected \(n_stimuli, n_units\), got shape \(5, 2, 0\)"),
        ({"patterns": np.ones((5, 2), complex)}, "patterns: expected real numbers, got values of type complex128"),
        ({"patterns": np.diag([1, 2, np.nan, 4, np.inf])}, "patterns: 2 of 5 rows hold NaN .* stimulus 'c'; repair"),
        ({"dissimilarity": "manhattan"}, "unknown dissimilarity 'manhattan'"),
        ({"categories": {"a": "x", "b": "y", "D": "y"}}, "3 of 5 stimuli have no category, the first is 'c'.* 'd' for"),
        ({"categories": ["x", "y"]}, "2 categories for 5 stimuli; give each stimulus one"),
    ],
)
def test_wrong_patterns_are_refused(change, message):
    arguments = {"patterns": np.eye(5), "ids": list("abcde"), **change}
    with pytest.raises(ValueError, match=message):
        pattern_rdms(**arguments)


def test_category_rdm_is_rsatoolboxs_categorical_rdm():
    categories = {"a": "face", "b": "house", "c": "face", "d": 3, "unseen": "face"}
    rdm = category_rdm(categories, list("dabc"), name="content")
    np.testing.assert_array_equal(rdm.dissimilarities, get_categorical_rdm([0, 1, 2, 1]).dissimilarities)
    assert rdm.rdm_descriptors["network"] == ["category model"]
    assert rdm.rdm_descriptors["layer"] == ["content"]
    assert rdm.rdm_descriptors["epoch"] == rdm.rdm_descriptors["seed"] == [-1]
    assert rdm.pattern_descriptors["stimulus"] == list("dabc")
    assert rdm.pattern_descriptors["category"] == ["3", "face", "house", "face"]
    assert rdm.pattern_descriptors["label"] == [0, 1, 2, 1]
    assert rdm.dissimilarity_measure == "category"
    assert category_rdm(["b", "a", "c", "b"], list("dabc")).pattern_descriptors["label"] == [1, 0, 2, 1]
    in_order = category_rdm(["3", "face", "house", "face"], list("dabc"))
    np.testing.assert_array_equal(in_order.dissimilarities, rdm.dissimilarities)


def test_category_rdm_is_what_the_category_teacher_says(stimuli):
    categories = {stimulus: f"category {k % 4}" for k, stimulus in enumerate(stimuli.ids)}
    teacher = CategoryTeacher(MeasuredRDMs(pixel_rdm(stimuli), name="layer"), categories)
    said = teacher.targets(stimuli, all_pairs(12))["pixels"].values
    np.testing.assert_array_equal(category_rdm(categories, stimuli.ids).dissimilarities[0], said)


def test_a_category_model_of_too_little_is_refused():
    with pytest.raises(ValueError, match="1 of 2 stimuli have no category, the first is 'b'; give each one"):
        category_rdm({"a": "x"}, ["a", "b"])
    with pytest.raises(ValueError, match="an RDM needs at least 2 stimuli, got 1"):
        category_rdm({"a": "x"}, ["a"])
    for empty in (None, np.nan, pd.NA):
        with pytest.raises(
            ValueError, match=r"2 of 3 stimuli have no category \(.*\), the first is 'b'; give each one"
        ):
            category_rdm({"a": "x", "b": empty, "c": empty}, list("abc"))
    with pytest.raises(ValueError, match="stimuli: stimulus id 'a' occurs 2 times"):
        category_rdm(["x", "y"], ["a", "a"])


def test_rdms_of_every_kind_are_read_again_by_rsatoolbox(network, stimuli, tmp_path):
    stimuli = stimuli._replace(ids=tuple(f"Käfer/犬{k}" for k in range(12)))
    names = ["Käfer", "犬", "owl"]
    categories = {stimulus: names[int(k)] for stimulus, k in zip(stimuli.ids, stimuli.labels, strict=True)}
    rdms = join_rdms(
        [
            network_rdms({"Netz ä": network, "b": network}, ["0", ""], stimuli, class_names=names, epoch=4),
            pattern_rdms(stimuli.images, stimuli.ids, categories=categories),
            pixel_rdm(stimuli),
            label_rdm(stimuli),
            category_rdm(categories, stimuli.ids, name="Tier"),
        ]
    )
    save_rdms(rdms, tmp_path / "rdms.h5")
    again = load_rdm(str(tmp_path / "rdms.h5"))
    np.testing.assert_array_equal(again.dissimilarities, rdms.dissimilarities)
    assert set(rdms.rdm_descriptors) == {"network", "layer", "seed", "epoch", "dissimilarity_measure", "index"}
    assert set(rdms.pattern_descriptors) == {"stimulus", "label", "category", "index"}
    for kind in ("rdm_descriptors", "pattern_descriptors"):
        for name, values in getattr(rdms, kind).items():
            assert list(getattr(again, kind)[name]) == values, name


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
    with pytest.raises(ValueError, match=r"expected a list of layers, got the text '0'; give \['0'\]"):
        network_rdms(network, "0", stimuli)
    with pytest.raises(ValueError, match="memory must be at least 0 GiB, got -1"):
        network_rdms(network, ["0"], stimuli, memory=-1)
    with pytest.raises(ValueError, match="stimuli: stimulus id 'img0' occurs 12 times"):
        network_rdms(network, ["0"], Stored(stimuli._replace(ids=("img0",) * 12)))
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
    with pytest.raises(ValueError, match=r"network 'rdl': layer '3' gives NaN or infinite values for 12 of 12"):
        network_rdms({"rdl": network}, ["0", "3"], stimuli)


def test_a_stimulus_of_a_later_batch_is_refused_by_its_own_name(network, stimuli):
    corner = stimuli.images[7, 0, 0, 0]

    def divided(images):
        return images / (images[:, :, :1, :1] != corner)

    with pytest.raises(ValueError, match=r"layer '0' gives NaN or infinite values for 1 of 12 stimuli, .* 'img7'"):
        network_rdms(network, ["0"], stimuli, preprocess=divided, batch_size=5)


def test_the_first_epoch_and_seed_are_0_and_not_left_out(network, stimuli):
    for rdms in (
        network_rdms(network, ["0"], stimuli, epoch=0, seed=0),
        pattern_rdms(np.eye(3), list("abc"), epoch=0, seed=0),
    ):
        assert rdms.rdm_descriptors["epoch"] == rdms.rdm_descriptors["seed"] == [0]


def test_stimuli_of_the_first_class_alone_keep_their_labels(stimuli):
    rdm = label_rdm(stimuli._replace(labels=torch.zeros(12, dtype=torch.int64)))
    np.testing.assert_array_equal(rdm.dissimilarities, 0)
    assert rdm.pattern_descriptors["label"] == [0] * 12


def test_the_softmax_of_a_network_in_single_precision_is_taken_in_double(stimuli):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    with torch.no_grad():
        outputs = network(stimuli.images.float()).double().numpy()
    expected = pdist(softmax(outputs, axis=1), "correlation")
    found = network_rdms(network, ["softmax"], stimuli, "correlation").dissimilarities[0]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_several_networks_that_do_not_go_together_are_refused(network, stimuli):
    both = {"a": network, "b": network}
    with pytest.raises(ValueError, match="expected at least one network, got none"):
        network_rdms({}, ["0"], stimuli)
    with pytest.raises(ValueError, match="names as keys, but name 'rdl' was given; leave it out"):
        network_rdms(both, ["0"], stimuli, name="rdl")
    with pytest.raises(
        ValueError, match="`layers` is given for a, but the networks are a, b; give each its own, or one"
    ):
        network_rdms(both, {"a": ["0"]}, stimuli)
    with pytest.raises(ValueError, match="`preprocess` is given for a, c, but the networks are a, b"):
        network_rdms(both, ["0"], stimuli, preprocess={"a": None, "c": None})
    with pytest.raises(ValueError, match="expected at least one layer, got none"):
        network_rdms(both, {"a": ["0"], "b": []}, stimuli)
    with pytest.raises(ValueError, match="layer 'conv9' is not in the network 'b'; "):
        network_rdms(both, {"a": ["0"], "b": ["conv9"]}, stimuli)
