"""A small network for small colour images, to be trained from random weights on few stimuli."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three convolutional layers, each followed by max-pooling, an average over what is left, and a linear embedding.

    There is no batch normalisation: with few stimuli its statistics are noise, and a stimulus' pattern would depend
    on the others in its batch.

    in_channels, image_size: of the (square) images. features: of the convolutions, 5x5 with stride 2, then 3x3.
    n_units: of the embedding. n_classes: where given, a linear readout n_units -> n_classes is added, after a ReLU.

    Layers to record: conv1 (after the ReLU), pool1, the same with 2 and 3, embedding (linear), readout.
    (n_stimuli, in_channels, image_size, image_size) -> (n_stimuli, n_units or n_classes).
    Raises ValueError where nothing of the image is left after the pooling layers.
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int | None = None,
        image_size: int = 64,
        features: Sequence[int] = (32, 64, 128),
        n_units: int = 128,
    ) -> None:
        super().__init__()
        if len(features) != 3:
            raise ValueError(f"features: expected three numbers, one a convolutional layer, got {features}")
        if image_size < 16:
            raise ValueError(f"images of {image_size}x{image_size} are too small: a stride and three pools need 16x16")
        self.image_shape = (in_channels, image_size, image_size)
        self.conv1 = nn.Sequential(nn.Conv2d(in_channels, features[0], 5, stride=2, padding=2), nn.ReLU())
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Sequential(nn.Conv2d(features[0], features[1], 3, padding=1), nn.ReLU())
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Sequential(nn.Conv2d(features[1], features[2], 3, padding=1), nn.ReLU())
        self.pool3 = nn.MaxPool2d(2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.embedding = nn.Linear(features[2], n_units)
        self.readout = None if n_classes is None else nn.Sequential(nn.ReLU(), nn.Linear(n_units, n_classes))

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != self.image_shape:
            raise ValueError(
                f"small_cnn was made for images of shape {self.image_shape}, got {tuple(images.shape[1:])}; set its "
                "image_size and in_channels, or the preprocessing's size and channels"
            )
        maps = self.pool3(self.conv3(self.pool2(self.conv2(self.pool1(self.conv1(images))))))
        embedding: Tensor = self.embedding(self.average(maps).flatten(1))
        return embedding if self.readout is None else self.readout(embedding)
