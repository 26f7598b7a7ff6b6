"""Table 4 of McClure & Kriegeskorte (2016)."""

import pytest
import torch
from torch import nn

from brainrdl.layers import record_layers
from brainrdl.models import NiN


def test_the_defaults_are_table_4():
    network = NiN().eval()
    expected = {
        "conv1": (192, 32, 32),
        "mlpconv1_1": (160, 32, 32),
        "mlpconv1_2": (96, 32, 32),
        "pool1": (96, 16, 16),
        "conv2": (192, 16, 16),
        "mlpconv2_1": (192, 16, 16),
        "mlpconv2_2": (192, 16, 16),
        "pool2": (192, 8, 8),
        "conv3": (192, 8, 8),
        "mlpconv3_1": (192, 8, 8),
        "mlpconv3_2": (100, 8, 8),
        "pool3": (100, 1, 1),
    }
    with record_layers(network, expected) as patterns:
        outputs = network(torch.rand(2, 3, 32, 32))
        assert {layer: tuple(patterns[layer].shape[1:]) for layer in expected} == expected
        torch.testing.assert_close(outputs, patterns["mlpconv3_2"].mean((2, 3)))
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [module.kernel_size[0] for module in convolutions] == [5, 1, 1, 5, 1, 1, 5, 1, 1]


def test_each_convolution_is_followed_by_batch_norm_relu_and_where_the_table_says_dropout():
    kinds = {name: [type(part) for part in block] for name, block in NiN().named_children() if "conv" in name}
    plain = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds.pop("conv2") == kinds.pop("conv3") == [*plain, nn.Dropout]
    assert len(kinds) == 7 and all(block == plain for block in kinds.values())


def test_a_readout_is_added_where_classes_are_given():
    network = NiN(n_features=10, n_classes=100).eval()
    with record_layers(network, ["pool3", "readout"]) as patterns:
        outputs = network(torch.rand(2, 3, 32, 32))
        features = patterns["pool3"].flatten(1)
    assert outputs.shape == (2, 100)
    torch.testing.assert_close(outputs, network.readout(features))
    assert "readout" not in dict(NiN(n_features=10).named_children())


def test_the_border_is_no_part_of_the_average_pooling():
    pooled = NiN().pool2(torch.ones(1, 2, 16, 16))
    torch.testing.assert_close(pooled, torch.ones(1, 2, 8, 8))


def test_lin_et_als_variant_has_a_smaller_third_kernel():
    assert NiN(conv3_kernel=3).eval()(torch.rand(1, 3, 32, 32)).shape == (1, 100)
    with pytest.raises(ValueError, match=r"conv3_kernel: expected an odd number, .*; got 4"):
        NiN(conv3_kernel=4)


def test_as_many_weights_as_counted_by_hand():
    #        kernel² · in · out + bias and two of batch norm
    conv1 = 25 * 3 * 192 + 3 * 192 + 192 * 160 + 3 * 160 + 160 * 96 + 3 * 96
    conv2 = 25 * 96 * 192 + 3 * 192 + 2 * (192 * 192 + 3 * 192)
    conv3 = 25 * 192 * 192 + 3 * 192 + 192 * 192 + 3 * 192 + 192 * 100 + 3 * 100
    assert n_weights(NiN()) == conv1 + conv2 + conv3 == 1_577_196
    assert n_weights(NiN(n_classes=100)) == 1_577_196 + 100 * 100 + 100
    assert n_weights(NiN(n_features=10)) == 1_577_196 - 90 * (192 + 3)
    assert n_weights(NiN(conv3_kernel=3)) == 1_577_196 - 16 * 192 * 192


def n_weights(network):
    return sum(parameter.numel() for parameter in network.parameters())
