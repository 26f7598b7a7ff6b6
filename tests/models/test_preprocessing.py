"""Preprocessing against torchvision's and against its own definition."""

import pytest
import torch
from torchvision.transforms import functional as reference

from brainrdl.models import Preprocessing


@pytest.fixture
def colour():
    return torch.rand(5, 3, 20, 30, generator=torch.Generator().manual_seed(0))


def test_nothing_asked_is_the_identity(colour):
    assert Preprocessing()(colour) is colour
    assert Preprocessing(size=(20, 30), channels=3)(colour) is colour


def test_grey_is_torchvisions(colour):
    torch.testing.assert_close(Preprocessing(channels=1)(colour), reference.rgb_to_grayscale(colour))


def test_a_grey_image_is_repeated_in_colour(colour):
    grey = colour[:, :1]
    assert torch.equal(Preprocessing(channels=3)(grey), torch.cat([grey, grey, grey], 1))


@pytest.mark.parametrize("size", [(7, 9), (20, 15), (64, 40)])
def test_resizing_is_torchvisions(colour, size):
    torch.testing.assert_close(Preprocessing(size=size)(colour), reference.resize(colour, list(size), antialias=True))


def test_normalisation_is_torchvisions(colour):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    torch.testing.assert_close(Preprocessing(mean=mean, std=std)(colour), reference.normalize(colour, mean, std))
    torch.testing.assert_close(Preprocessing(mean=mean)(colour), reference.normalize(colour, mean, [1, 1, 1]))


def test_global_contrast_gives_each_image_mean_0_and_deviation_1(colour):
    normalised = Preprocessing(global_contrast=True)(colour)
    torch.testing.assert_close(normalised.mean((1, 2, 3)), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(normalised.std((1, 2, 3), correction=0), torch.ones(5))
    # Brightness and contrast of an image leave no trace.
    torch.testing.assert_close(Preprocessing(global_contrast=True)(0.3 * colour + 0.2), normalised)


@pytest.mark.parametrize("level", [0.0, 0.1, 1 / 3, 1.0])
def test_a_flat_image_becomes_0(level):
    flat = Preprocessing(global_contrast=True)(torch.full((2, 3, 32, 32), level))
    assert flat.abs().max() < 0.01


def test_the_order_is_colour_size_contrast_normalisation(colour):
    all_at_once = Preprocessing(size=(8, 8), channels=1, mean=[0.5], std=[2.0], global_contrast=True)
    steps = [
        Preprocessing(channels=1),
        Preprocessing(size=(8, 8)),
        Preprocessing(global_contrast=True),
        Preprocessing(mean=[0.5], std=[2.0]),
    ]
    assert torch.equal(all_at_once(colour), torch.nn.Sequential(*steps)(colour))


def test_the_images_decide_the_type_and_nothing_is_a_weight(colour):
    preprocess = Preprocessing(channels=1, mean=[0.5], std=[0.25], global_contrast=True)
    assert preprocess(colour.double()).dtype == torch.float64
    assert not preprocess.state_dict()


def test_the_description_tells_every_setting():
    variants = [
        Preprocessing(),
        Preprocessing(size=(8, 9)),
        Preprocessing(size=(9, 8)),
        Preprocessing(channels=1),
        Preprocessing(mean=[0.5]),
        Preprocessing(mean=[0.25]),
        Preprocessing(std=[0.5]),
        Preprocessing(global_contrast=True),
    ]
    assert len({preprocess.describe() for preprocess in variants}) == len(variants)
    assert Preprocessing(size=[8, 9], mean=(1, 2.5, 3)).describe() == (
        "Preprocessing(size=(8, 9), channels=None, mean=(1.0, 2.5, 3.0), std=None, global_contrast=False)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 2}, "channels: expected 1 .grey. or 3 .colour., got 2"),
        ({"size": (8,)}, "size: expected .height, width. in pixels, got"),
        ({"size": (0, 8)}, "size: expected .height, width. in pixels, got"),
        ({"std": [0.5, 0.0, 1.0]}, "std: expected numbers above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**arguments)


def test_images_that_do_not_meet_the_settings_are_refused(colour):
    with pytest.raises(ValueError, match=r"expected images of 1 or 3 channels, got 4"):
        Preprocessing(channels=3)(torch.rand(2, 4, 8, 8))
    with pytest.raises(ValueError, match=r"mean: 1 numbers for images of 3 channels; give one a channel"):
        Preprocessing(mean=[0.5])(colour)
    with pytest.raises(ValueError, match=r"std: 3 numbers for images of 1 channels"):
        Preprocessing(channels=1, std=[1, 1, 1])(colour)
