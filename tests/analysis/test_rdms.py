from __future__ import annotations

import numpy as np
import pytest
import torch
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import RDMs, calc_rdm, get_categorical_rdm, load_rdm
from scipy.spatial.distance import pdist
from torch import nn

from brainrdl.analysis.rdms import join_rdms, label_rdm, load_rdms, network_rdms, pixel_rdm, save_rdms
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


# joining


def test_rdms_are_joined_by_stimulus_id(network, stimuli):
    rows = torch.from_numpy(np.random.default_rng(0).permutation(12))
    direct = network_rdms(network, ["0", ""], stimuli, name="rdl")
    joined = join_rdms([pixel_rdm(stimuli), network_rdms(network, ["0", ""], stimuli.subset(rows), name="rdl")])
    np.testing.assert_allclose(joined.dissimilarities[1:], direct.dissimilarities, rtol=1e-9)
    assert joined.rdm_descriptors["network"] == ["pixels", "rdl", "rdl"]
    assert joined.pattern_descriptors["stimulus"] == list(stimuli.ids)
    assert joined.dissimilarity_measure == "euclidean"


def test_joining_different_measures_names_none(stimuli):
    joined = join_rdms([pixel_rdm(stimuli), label_rdm(stimuli)])
    assert joined.dissimilarity_measure is None
    assert joined.rdm_descriptors["layer"] == ["pixels", "labels"]


def test_joining_different_stimuli_is_refused(stimuli):
    other = stimuli._replace(ids=(*stimuli.ids[:-1], "new"))
    with pytest.raises(ValueError, match="not over the same stimuli: 2 differ, the first is 'img11'"):
        join_rdms([pixel_rdm(stimuli), pixel_rdm(other)])
    with pytest.raises(ValueError, match="need the pattern descriptor 'stimulus'; these have index"):
        join_rdms([RDMs(np.ones(3))])


# files


@pytest.mark.parametrize("names", [["cat", "dog", "owl"], ["Käfer", "犬", "owl"]])
def test_a_file_holds_the_rdms_and_rsatoolbox_reads_it(network, stimuli, tmp_path, names):
    rdms = network_rdms(network, ["0", ""], stimuli, name="rdl", epoch=3, class_names=names)
    save_rdms(rdms, tmp_path / "rdms.h5")
    for again in (load_rdms(tmp_path / "rdms.h5"), load_rdm(str(tmp_path / "rdms.h5"))):
        np.testing.assert_array_equal(again.dissimilarities, rdms.dissimilarities)
        assert again.dissimilarity_measure == "euclidean"
        for kind in ("rdm_descriptors", "pattern_descriptors"):
            for name, values in getattr(rdms, kind).items():
                assert list(getattr(again, kind)[name]) == values, name
    assert [path.name for path in tmp_path.iterdir()] == ["rdms.h5"]


def test_a_joined_file_without_a_measure_can_be_read(stimuli, tmp_path):
    save_rdms(join_rdms([pixel_rdm(stimuli), label_rdm(stimuli)]), tmp_path / "references.h5")
    assert load_rdms(tmp_path / "references.h5").dissimilarity_measure is None


def test_equal_rdms_give_equal_files_and_replace_older_ones(stimuli, tmp_path):
    save_rdms(label_rdm(stimuli), tmp_path / "a.h5")
    save_rdms(pixel_rdm(stimuli), tmp_path / "a.h5")
    save_rdms(pixel_rdm(stimuli), tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_write_that_fails_leaves_the_older_file(stimuli, tmp_path):
    save_rdms(pixel_rdm(stimuli), tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    broken = pixel_rdm(stimuli)
    broken.descriptors["not storable"] = object()
    with pytest.raises(TypeError):
        save_rdms(broken, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_a_file_that_is_missing_or_something_else_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"RDM file '.*absent.h5' is not there"):
        load_rdms(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match=r"text.h5' is not an RDM file of rsatoolbox \(HDF5\)"):
        load_rdms(tmp_path / "text.h5")
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something"] = np.ones(3)
    with pytest.raises(ValueError, match=r"other.h5' is not an RDM file of rsatoolbox \(HDF5\): 'dissimilarities'"):
        load_rdms(tmp_path / "other.h5")
