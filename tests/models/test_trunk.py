"""Frozen trunks, their cached activations, and heads upon them."""

import pytest
import torch
from torch import nn

from brainrdl.layers import record_layers
from brainrdl.models import LinearHead, MnistCNN, NiN, Preprocessing, Trunk, cached
from brainrdl.stimuli import Stimuli


def stimuli(n_stimuli=5, size=32, channels=3):
    images = torch.rand(n_stimuli, channels, size, size, generator=torch.Generator().manual_seed(0))
    return Stimuli(images, tuple(f"s{k}" for k in range(n_stimuli)), torch.arange(n_stimuli))


@pytest.fixture
def network():
    """With batch norm and dropout, so that its mode matters."""
    torch.manual_seed(0)
    return NiN(n_features=12)


def test_cached_maps_are_the_layers_own_in_eval_mode_whatever_the_batches(network):
    shown = stimuli()
    preprocess = Preprocessing(mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])
    network.train()
    trunk = Trunk(network, "pool2").train()
    found = cached(trunk, shown, preprocess, batch_size=2)
    assert network.training
    assert network.conv1[1].training
    with torch.no_grad(), record_layers(network.eval(), ["pool2"]) as patterns:
        network(preprocess(shown.images))
        torch.testing.assert_close(found.images, patterns["pool2"])
    assert found.ids == shown.ids
    assert found.labels.tolist() == [0, 1, 2, 3, 4]
    assert cached(trunk, shown._replace(labels=None)).labels is None


def test_a_trunk_is_frozen(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trunk = Trunk(network, "pool2")
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    maps = trunk.train()(stimuli().images)
    assert not maps.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_vectors_become_maps_of_one_pixel():
    torch.manual_seed(0)
    network = MnistCNN().eval()
    images = stimuli(size=28, channels=1).images
    maps = Trunk(network, "fc")(images)
    assert maps.shape == (5, 200, 1, 1)
    torch.testing.assert_close(Trunk(network, "")(images)[:, :, 0, 0], network(images))


def test_a_head_is_the_averaged_trunk_at_first_and_then_learns(network):
    maps = cached(Trunk(network, "pool2"), stimuli()).images
    head = LinearHead(192)
    torch.testing.assert_close(head(maps), maps.mean((2, 3)))
    head(maps).square().sum().backward()
    assert head.embedding.weight.grad.abs().sum() > 0
    assert [name for name, _ in head.named_children()] == ["average", "embedding"]


def test_what_makes_no_trunk_or_head_is_refused(network):
    with pytest.raises(ValueError, match=r"layer 'pool9' is not in the trunk's network; did you mean 'pool3'"):
        Trunk(network, "pool9")
    tokens = nn.Sequential(nn.Flatten(2), nn.Flatten())
    with pytest.raises(ValueError, match=r"layer '0' gives shape \(5, 3, 1024\), expected .*; take another layer"):
        Trunk(tokens, "0")(stimuli().images)
    with pytest.raises(ValueError, match=r"linear_head was made for 12 features, got maps of 192; set its in_channels"):
        LinearHead(12)(torch.rand(2, 192, 4, 4))
