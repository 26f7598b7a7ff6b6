"""Deformed copies of images without end, in the manner of InfiMNIST (Loosli, Canu & Bottou 2007)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from brainrdl.randomness import Draw
from brainrdl.stimuli import Stimuli

# Defaults in shares of the shorter side: digits of 28 and of 8 pixels stay legible, and neighbouring values made no
# clear difference to networks trained on deformed digits.
_MAX_SHIFT, _DISPLACEMENT, _SMOOTHNESS = 0.05, 0.05, 0.15

# Pixels deformed in one go: what they need stays far below the result.
_CHUNK_PIXELS = 1 << 21


def deformed(
    stimuli: Stimuli,
    n: int,
    start: int = 0,
    seed: int = 0,
    max_shift: float | None = None,
    displacement: float | None = None,
    smoothness: float | None = None,
) -> Stimuli:
    """Examples start … start + n - 1 of an endless series of shifted and elastically deformed images.

    Example k is image k mod n_stimuli, sampled bicubically at x + s + u(x), with zeros outside the image: s a
    shift drawn uniformly from ±max_shift in both directions, u a smooth random field, white noise smoothed by
    a Gaussian. It is a function of (stimuli, seed, k) alone, whatever else is asked for with it.

    max_shift, displacement (root mean square of u in each direction), smoothness (standard deviation of the
    Gaussian): in pixels; None scales with the image (0.05, 0.05 and 0.15 of its shorter side).
    Returns n stimuli with ids "ID~k" and the labels of their originals. Source of the idea: Loosli et al. (2007).
    Raises ValueError for no images, or a number that is negative or of more than 10,000 pixels.
    """
    n_images, channels, height, width = stimuli.images.shape
    side = min(height, width)
    max_shift = _MAX_SHIFT * side if max_shift is None else max_shift
    displacement = _DISPLACEMENT * side if displacement is None else displacement
    smoothness = _SMOOTHNESS * side if smoothness is None else smoothness
    if not n_images or side < 2:
        raise ValueError(f"expected images of at least 2x2 pixels to deform, got shape {tuple(stimuli.images.shape)}")
    possible = all(0 <= pixels <= 10_000 for pixels in (max_shift, displacement, smoothness)) and smoothness >= 0.01
    if n < 1 or start < 0 or not possible:
        raise ValueError(
            "expected n of at least 1, start of at least 0, max_shift and displacement of 0 to 10,000 pixels and "
            f"smoothness of 0.01 to 10,000, got n={n}, start={start}, max_shift={max_shift}, "
            f"displacement={displacement}, smoothness={smoothness}"
        )
    down, across = _smoothing(height, smoothness), _smoothing(width, smoothness)
    # In pixels, first across (x), then down (y), as grid_sample wants them.
    identity = np.stack(np.meshgrid(np.arange(width), np.arange(height)), dtype=np.float32)
    half = np.array([width - 1, height - 1], dtype=np.float32)[:, None, None] / 2

    images = stimuli.images.new_empty(n, channels, height, width)
    originals = torch.arange(start, start + n) % n_images
    chunk = max(1, _CHUNK_PIXELS // (height * width))
    for first in range(0, n, chunk):
        some = slice(first, min(n, first + chunk))
        positions = np.empty((some.stop - first, 2, height, width), dtype=np.float32)
        for row, k in enumerate(range(start + first, start + some.stop)):
            generator = Draw(seed, step=k).generator("deformation")
            shift = generator.uniform(-max_shift, max_shift, size=(2, 1, 1)).astype(np.float32)
            noise = generator.standard_normal((2, height, width), dtype=np.float32)
            positions[row] = identity + shift + displacement * (down @ noise @ across.T)
        grid = torch.from_numpy(positions / half - 1).permute(0, 2, 3, 1).to(images)  # (n_chunk, height, width, 2)
        picked = stimuli.images[originals[some].to(images.device)]
        # Bilinear sampling blurs images of few pixels, so that a network trained on them errs more on sharp ones.
        sampled = grid_sample(picked, grid, mode="bicubic", padding_mode="zeros", align_corners=True)
        images[some] = sampled.clamp_(0, 1)  # cubic interpolation overshoots at edges

    ids = tuple(f"{stimuli.ids[row]}~{start + k}" for k, row in enumerate(originals.tolist()))
    labels: Tensor | None = None if stimuli.labels is None else stimuli.labels[originals.to(stimuli.labels.device)]
    return Stimuli(images, ids, labels)


def _smoothing(n_pixels: int, smoothness: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(n_pixels, n_pixels) Gaussian smoothing; rows of unit length: white noise keeps its variance at the edges."""
    pixel = np.arange(n_pixels)
    kernel = np.exp(-((pixel[:, None] - pixel) ** 2) / (2 * smoothness**2))
    unit: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = (
        kernel / np.linalg.norm(kernel, axis=1, keepdims=True)
    ).astype(np.float32)
    return unit
