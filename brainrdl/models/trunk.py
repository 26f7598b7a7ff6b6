"""A frozen network up to one of its layers, whose activations are computed once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brainrdl.layers import check_layers, evaluating, record_layers
from brainrdl.stimuli import Stimuli, StoredStimuli, in_batches


class Trunk(nn.Module):
    """What one layer of a network gives, in eval mode and without gradient, whatever mode the trunk is in.

    The network is frozen: none of its parameters asks for a gradient.
    network: with the weights it shall have. layer: module path; "" is the network's output.
    (n_stimuli, channels, height, width) -> (n_stimuli, features, height, width); a layer without a place for height and
    width gives 1x1 maps.
    Raises ValueError where the network has no such layer, or it gives neither vectors nor maps.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        check_layers(network, [layer], "trunk's network")
        self.network = network.requires_grad_(False)
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        with evaluating(self.network), record_layers(self.network, [self.layer]) as patterns:
            self.network(images)
            maps = patterns[self.layer]
        if maps.ndim not in (2, 4):
            raise ValueError(
                f"layer '{self.layer}' gives shape {tuple(maps.shape)}, expected (n_stimuli, n_units) or "
                "(n_stimuli, channels, height, width); take another layer for the trunk"
            )
        return maps if maps.ndim == 4 else maps[:, :, None, None]


def cached(
    trunk: Trunk, stimuli: Stimuli | StoredStimuli, preprocess: nn.Module | None = None, batch_size: int = 32
) -> Stimuli:
    """The stimuli with the trunk's activations in the place of their images, on the CPU.

    A head trained on them is the network above the trunk, at a small part of the cost. Augmentation of the images must
    come before. preprocess: from images of 0…1 to the network's input; None takes them as they are.
    Returns images (n_stimuli, features, height, width), in units of the layer and no longer in 0…1.
    """
    first = next(trunk.parameters(), None)
    parts = []
    for batch in in_batches(stimuli, batch_size):
        images = batch.images if first is None else batch.images.to(first.device)
        parts.append(batch._replace(images=trunk(images if preprocess is None else preprocess(images)).cpu()))
    labels = [part.labels for part in parts if part.labels is not None]
    return Stimuli(
        torch.cat([part.images for part in parts]),
        tuple(name for part in parts for name in part.ids),
        torch.cat(labels) if labels else None,
    )


class LinearHead(nn.Module):
    """The average over the maps, then a square linear layer that is the identity at first.

    Untrained, its patterns are the trunk's own, so training departs from a representation that is already good; how far
    it goes is the number and size of the steps. It has no bias and no readout.
    in_channels: features of the trunk.
    Layers to record: average, embedding. (n_stimuli, in_channels, height, width) -> (n_stimuli, in_channels).
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.embedding = nn.Linear(in_channels, in_channels, bias=False)
        nn.init.eye_(self.embedding.weight)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[1] != self.embedding.in_features:
            raise ValueError(
                f"linear_head was made for {self.embedding.in_features} features, got maps of {maps.shape[1]}; set its "
                "in_channels to the trunk layer's features"
            )
        embedding: Tensor = self.embedding(self.average(maps))
        return embedding
