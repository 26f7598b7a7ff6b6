"""Horizontal flips."""

import numpy as np
import torch

from brainrdl.data import horizontal_flips


def test_each_image_is_itself_or_its_mirror_image_about_half_the_time():
    images = torch.rand(400, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    flipped = horizontal_flips(images, np.random.default_rng(0))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == torch.from_numpy(images.numpy()[..., ::-1].copy())).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 160 < mirrored.sum() < 240
    assert torch.equal(images, before)


def test_the_generator_decides():
    images = torch.rand(20, 1, 3, 4)
    flips = [horizontal_flips(images, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(flips[0], flips[1]) and not torch.equal(flips[0], flips[2])
