"""From raw images, 0…1, to what one network takes: colour, size, contrast, normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

# ITU-R BT.601 luma, rounded as in torchvision's rgb_to_grayscale.
_LUMA = (0.2989, 0.587, 0.114)

# In images of 0…1 a standard deviation below this is rounding error of a flat image, not contrast.
_FLAT = 1e-4


class Preprocessing(nn.Module):
    """Images of 0…1 -> a network's input, on the images' device; an identity where nothing is asked.

    In this order: channels, 1 or 3 (grey is repeated; colour becomes grey by ITU-R luma, as in torchvision);
    size, (height, width), antialiased bilinear; global_contrast, each image minus its mean and divided by its
    standard deviation over all channels and pixels (a flat image becomes 0); minus `mean`, divided by `std`,
    one number a channel.
    (n_stimuli, 1 or 3, height, width) -> (n_stimuli, channels, *size).
    Raises ValueError where a setting makes no sense, or the images' channels do not meet it.
    """

    def __init__(
        self,
        size: Sequence[int] | None = None,
        channels: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        global_contrast: bool = False,
    ) -> None:
        super().__init__()
        if channels not in (None, 1, 3):
            raise ValueError(f"preprocessing channels: expected 1 (grey) or 3 (colour), got {channels}")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"preprocessing size: expected (height, width) in pixels, got {size}")
        if std is not None and min(std) <= 0:
            raise ValueError(f"preprocessing std: expected numbers above 0, got {list(std)}")
        self.size = None if size is None else (size[0], size[1])
        self.channels = channels
        self.mean = None if mean is None else tuple(float(value) for value in mean)
        self.std = None if std is None else tuple(float(value) for value in std)
        self.global_contrast = global_contrast

    def forward(self, images: Tensor) -> Tensor:
        if self.channels is not None:
            images = _with_channels(images, self.channels)
        if self.size is not None and images.shape[-2:] != self.size:
            images = interpolate(images, self.size, mode="bilinear", antialias=True)
        if self.global_contrast:
            centred = images - images.mean((1, 2, 3), keepdim=True)
            images = centred / centred.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=_FLAT)
        if self.mean is not None:
            images = images - _per_channel("mean", self.mean, images)
        if self.std is not None:
            images = images / _per_channel("std", self.std, images)
        return images

    def extra_repr(self) -> str:
        return (
            f"size={self.size}, channels={self.channels}, mean={self.mean}, std={self.std}, "
            f"global_contrast={self.global_contrast}"
        )

    def describe(self) -> str:
        """All that determines the result, as one line that stays the same; for fingerprints."""
        return f"Preprocessing({self.extra_repr()})"


def _with_channels(images: Tensor, channels: int) -> Tensor:
    found = images.shape[1]
    if found == channels:
        return images
    if (found, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1)
    if (found, channels) == (3, 1):
        luma = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)
        return (images * luma[:, None, None]).sum(1, keepdim=True)
    raise ValueError(f"preprocessing expected images of 1 or 3 channels, got {found}")


def _per_channel(name: str, values: tuple[float, ...], images: Tensor) -> Tensor:
    if len(values) != images.shape[1]:
        raise ValueError(
            f"preprocessing {name}: {len(values)} numbers for images of {images.shape[1]} channels; give one a channel"
        )
    return torch.tensor(values, dtype=images.dtype, device=images.device)[:, None, None]
