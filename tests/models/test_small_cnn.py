"""The small network for colour images."""

import pytest
import torch

from brainrdl.layers import record_layers
from brainrdl.models import SmallCNN, build_network


def test_its_layers_have_the_sizes_of_its_strides_and_pools():
    network = SmallCNN(n_classes=5)
    layers = ["conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "embedding", "readout"]
    with record_layers(network, layers) as patterns:
        output = network(torch.rand(3, 3, 64, 64))
        shapes = {layer: tuple(patterns[layer].shape[1:]) for layer in layers}
        assert (patterns["embedding"] < 0).any()
    assert [shapes[f"conv{k}"] for k in (1, 2, 3)] == [(32, 32, 32), (64, 16, 16), (128, 8, 8)]
    assert shapes["pool3"] == (128, 4, 4)
    assert shapes["embedding"] == (128,)
    assert output.shape == (3, 5)


def test_a_pattern_does_not_depend_on_the_other_stimuli():
    torch.manual_seed(0)
    network = build_network("small_cnn").train()
    images = torch.rand(4, 3, 64, 64)
    torch.testing.assert_close(network(images)[:1], network(images[:1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 15}, "images of 15x15 are too small: a stride and three pools need 16x16"),
        ({"features": (8, 8)}, "features: expected three numbers, one a convolutional layer"),
    ],
)
def test_arguments_that_make_no_network_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SmallCNN(**arguments)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"made for images of shape \(3, 64, 64\), got \(1, 28, 28\); set its"):
        SmallCNN()(torch.rand(2, 1, 28, 28))
