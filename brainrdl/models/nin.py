"""The "Network in Network" of the CIFAR-100 experiment (Table 4, McClure & Kriegeskorte 2016)."""

from __future__ import annotations

from torch import Tensor, nn


class NiN(nn.Module):
    """Three convolutional layers, each followed by two of 1x1 kernels, batch-normalised; after Lin et al. (2013).

    in_channels: of the images. n_features: of the last 1x1 layer; Table 4 reads the classes from them.
    n_classes: where given, a linear readout n_features -> n_classes is added (as the paper does for RDL).
    conv3_kernel: 5 as printed in Table 4, 3 as in Lin et al.'s network. dropout: after conv2 and conv3.

    Padding keeps the size; the pooling layers halve it: 32, 16, 8. pool3 averages over all that is left (8x8).
    Layers to record: conv1, mlpconv1_1, mlpconv1_2, pool1, the same with 2 and 3 (after BN and ReLU, dropout
    included), readout. (n_stimuli, in_channels, height, width) -> (n_stimuli, n_features or n_classes).
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_features: int = 100,
        n_classes: int | None = None,
        conv3_kernel: int = 5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if conv3_kernel % 2 != 1:
            raise ValueError(f"conv3_kernel: expected an odd number, for padding to keep the size; got {conv3_kernel}")
        self.conv1 = _block(in_channels, 192, 5)
        self.mlpconv1_1 = _block(192, 160, 1)
        self.mlpconv1_2 = _block(160, 96, 1)
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = _block(96, 192, 5, dropout)
        self.mlpconv2_1 = _block(192, 192, 1)
        self.mlpconv2_2 = _block(192, 192, 1)
        # A border of zeros is no part of the average.
        self.pool2 = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
        self.conv3 = _block(192, 192, conv3_kernel, dropout)
        self.mlpconv3_1 = _block(192, 192, 1)
        self.mlpconv3_2 = _block(192, n_features, 1)
        self.pool3 = nn.AdaptiveAvgPool2d(1)
        self.readout = None if n_classes is None else nn.Linear(n_features, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.pool1(self.mlpconv1_2(self.mlpconv1_1(self.conv1(images))))
        maps = self.pool2(self.mlpconv2_2(self.mlpconv2_1(self.conv2(maps))))
        maps = self.pool3(self.mlpconv3_2(self.mlpconv3_1(self.conv3(maps))))
        features: Tensor = maps.flatten(1)
        return features if self.readout is None else self.readout(features)


def _block(n_in: int, n_out: int, kernel: int, dropout: float | None = None) -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2), nn.BatchNorm2d(n_out), nn.ReLU())
    if dropout is not None:
        block.append(nn.Dropout(dropout))
    return block
