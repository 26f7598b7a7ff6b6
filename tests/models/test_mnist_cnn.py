"""Table 1 of McClure & Kriegeskorte (2016)."""

import pytest
import torch

from brainrdl.layers import record_layers
from brainrdl.models import MnistCNN


def test_the_defaults_are_table_1():
    network = MnistCNN().eval()
    layers = ["conv1", "pool1", "conv2", "pool2", "fc", "dropout", "readout"]
    assert [name for name, _ in network.named_children()] == layers
    with record_layers(network, layers) as patterns:
        network(torch.rand(3, 1, 28, 28))
        shapes = {layer: tuple(patterns[layer].shape[1:]) for layer in layers}
    assert shapes == {
        "conv1": (32, 24, 24),
        "pool1": (32, 8, 8),
        "conv2": (64, 4, 4),
        "pool2": (64, 2, 2),
        "fc": (200,),
        "dropout": (200,),
        "readout": (10,),
    }
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert n_parameters == (25 + 1) * 32 + (25 * 32 + 1) * 64 + (256 + 1) * 200 + (200 + 1) * 10


def test_fc_is_recorded_after_its_relu_and_before_dropout():
    torch.manual_seed(0)
    network = MnistCNN(dropout=0.5).train()
    with record_layers(network, ["fc", "dropout"]) as patterns:
        network(torch.rand(20, 1, 28, 28))
        fc, dropped = patterns["fc"], patterns["dropout"]
    assert (fc >= 0).all() and (fc == 0).any()
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * fc[kept])
    assert 0.4 < kept[fc > 0].float().mean() < 0.6


def test_small_images_take_smaller_kernels():
    network = MnistCNN(in_channels=3, n_classes=4, image_size=8, kernel_size=3, padding=1, pools=(2, 2), n_hidden=16)
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 8}, "images of 8x8 are too small for kernel_size 5, padding 0 and pools .3, 2."),
        ({"features": (32,)}, "expected two numbers each"),
        ({"pools": (2, 2, 2)}, "expected two numbers each"),
    ],
)
def test_arguments_that_make_no_network_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MnistCNN(**arguments)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"made for images of shape \(1, 28, 28\), got \(3, 32, 32\); set its"):
        MnistCNN()(torch.rand(2, 3, 32, 32))
