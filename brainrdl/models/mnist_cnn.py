"""The network of the MNIST experiment (Table 1, McClure & Kriegeskorte 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MnistCNN(nn.Module):
    """Two convolutional layers with max-pooling, one fully connected layer and a linear readout.

    The defaults are Table 1; its "FC 1500 200" does not follow from the layers above it, which give 256 inputs
    without padding: here the input size follows from the layers.

    in_channels, image_size: of the (square) images. kernel_size, padding: of both convolutions.
    features: of conv1 and conv2. pools: side (and stride) of both max-pooling windows. n_hidden: units of `fc`.

    Layers to record: conv1, conv2 (after the ReLU), pool1, pool2, fc (after the ReLU, before dropout), readout.
    (n_stimuli, in_channels, image_size, image_size) -> (n_stimuli, n_classes).
    Raises ValueError where nothing of the image is left after the pooling layers.
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 10,
        image_size: int = 28,
        kernel_size: int = 5,
        padding: int = 0,
        features: Sequence[int] = (32, 64),
        pools: Sequence[int] = (3, 2),
        n_hidden: int = 200,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if len(features) != 2 or len(pools) != 2:
            raise ValueError(
                f"expected two numbers each, for the two convolutional layers: features {features}, pools {pools}"
            )
        side = image_size
        for pool in pools:
            side = (side + 2 * padding - kernel_size + 1) // pool
        if side < 1:
            raise ValueError(
                f"images of {image_size}x{image_size} are too small for kernel_size {kernel_size}, padding {padding} "
                f"and pools {tuple(pools)}; take smaller kernels or pools, or more padding"
            )
        self.image_shape = (in_channels, image_size, image_size)
        self.conv1 = nn.Sequential(nn.Conv2d(in_channels, features[0], kernel_size, padding=padding), nn.ReLU())
        self.pool1 = nn.MaxPool2d(pools[0])
        self.conv2 = nn.Sequential(nn.Conv2d(features[0], features[1], kernel_size, padding=padding), nn.ReLU())
        self.pool2 = nn.MaxPool2d(pools[1])
        self.fc = nn.Sequential(nn.Linear(features[1] * side * side, n_hidden), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(n_hidden, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"mnist_cnn was made for images of shape {self.image_shape}, got {tuple(images.shape[1:])}; set its "
                "image_size and in_channels, or the preprocessing's size and channels"
            )
        maps = self.pool2(self.conv2(self.pool1(self.conv1(images))))
        logits: Tensor = self.readout(self.dropout(self.fc(maps.flatten(1))))
        return logits
