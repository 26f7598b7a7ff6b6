"""Deformed images: a pure function of k, fields of the stated size and smoothness, honest sampling."""

import importlib

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from brainrdl.data import deformed
from brainrdl.stimuli import Stimuli


def drawn(n=5, shape=(1, 12, 10), seed=0):
    images = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))
    return Stimuli(images, tuple(f"s{k}" for k in range(n)), torch.arange(n) % 3)


def ramps(height=40, width=50):
    """One image whose channels are x, y and a smooth function of both: what is sampled tells where it was sampled."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return Stimuli(torch.stack([x / width, y / height, wave(x, y)])[None], ("ramps",))


def wave(x, y):
    return 0.5 + 0.4 * torch.sin(0.2 * x + 0.1 * y)


def fields(n, margin, **settings):
    """Displacements x and y in pixels, (n, 2, height, width), read off the ramps away from the border."""
    stimuli = ramps()
    read = deformed(stimuli, n, **settings).images.double()
    size = torch.tensor([50.0, 40.0]).double()[:, None, None]
    return ((read[:, :2] - stimuli.images[:, :2].double()) * size)[..., margin:-margin, margin:-margin]


def test_every_example_is_a_function_of_its_number_alone():
    stimuli = drawn()
    together = deformed(stimuli, 40, start=3, seed=7)
    for k in range(40):
        alone = deformed(stimuli, 1, start=3 + k, seed=7)
        assert torch.equal(alone.images[0], together.images[k])
        assert alone.ids == together.ids[k : k + 1] and alone.labels[0] == together.labels[k]
    later = deformed(stimuli, 12, start=20, seed=7)
    assert torch.equal(later.images, together.images[17:29])


def test_the_result_does_not_depend_on_how_the_work_is_cut(monkeypatch):
    stimuli = drawn()
    whole = deformed(stimuli, 23)
    monkeypatch.setattr(importlib.import_module("brainrdl.data.deformed"), "_CHUNK_PIXELS", 4 * 120)
    assert torch.equal(deformed(stimuli, 23).images, whole.images)


def test_examples_go_round_the_images_with_their_labels_and_ids_of_their_own():
    examples = deformed(drawn(), 12, start=4)
    assert examples.ids[:3] == ("s4~4", "s0~5", "s1~6") and len(set(examples.ids)) == 12
    assert examples.labels.tolist() == [(4 + k) % 5 % 3 for k in range(12)]
    assert deformed(drawn()._replace(labels=None), 3).labels is None


def test_seed_and_number_give_different_deformations():
    stimuli = drawn(n=1)
    images = [deformed(stimuli, 1, start, seed).images for start, seed in ((0, 0), (1, 0), (0, 1))]
    assert not torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_without_shift_and_displacement_an_image_stays_as_it_is():
    stimuli = drawn(shape=(3, 28, 28))
    torch.testing.assert_close(
        deformed(stimuli, 5, max_shift=0, displacement=0).images, stimuli.images, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 20, 9)])
def test_images_stay_in_0_to_1_and_the_input_as_it_was(shape):
    stimuli = drawn(shape=shape)
    stimuli = stimuli._replace(images=stimuli.images.round())  # edges as hard as can be
    before = stimuli.images.clone()
    images = deformed(stimuli, 50).images
    assert images.shape == (50, *shape) and images.min() == 0 and images.max() == 1
    assert torch.equal(stimuli.images, before)


def test_values_are_those_at_the_displaced_positions():
    stimuli = ramps()
    read = deformed(stimuli, 20, max_shift=2, displacement=1.5, smoothness=4).images[..., 8:-8, 8:-8]
    torch.testing.assert_close(read[:, 2], wave(50 * read[:, 0], 40 * read[:, 1]), atol=2e-3, rtol=0)


def test_outside_the_image_there_is_nothing():
    white = Stimuli(torch.ones(1, 1, 16, 16), ("white",))
    shifted = deformed(white, 50, max_shift=6, displacement=0).images
    assert ((shifted[:, :, 0] < 0.01) | (shifted[:, :, -1] < 0.01)).any(2).float().mean() > 0.5
    assert shifted[:, :, 7:9, 7:9].min() > 0.999


def test_shifts_are_uniform_and_the_same_for_the_whole_image():
    field = fields(400, 5, max_shift=3.0, displacement=0)
    assert field.std((2, 3)).max() < 1e-3
    shifts = field.mean((2, 3))
    for direction in shifts.T:
        assert kstest(direction.numpy(), "uniform", args=(-3, 6)).pvalue > 0.01
    assert abs(np.corrcoef(shifts.T.numpy())[0, 1]) < 0.1


@pytest.mark.parametrize(("displacement", "smoothness"), [(0.5, 2.0), (1.2, 4.0)])
def test_the_field_has_the_stated_size_and_a_gaussians_smoothness(displacement, smoothness):
    field = fields(600, 8, max_shift=0, displacement=displacement, smoothness=smoothness)
    torch.testing.assert_close(field.square().mean().sqrt().item(), displacement, rtol=0.03, atol=0)
    for lag in 1, 3, 6:
        # White noise smoothed by a Gaussian of s has the autocorrelation of one of s·√2.
        expected = np.exp(-(lag**2) / (4 * smoothness**2))
        for shifted, still in ((field[..., lag:], field[..., :-lag]), (field[..., lag:, :], field[..., :-lag, :])):
            assert ((shifted * still).mean() / displacement**2).item() == pytest.approx(expected, abs=0.05)


def test_the_defaults_scale_with_the_image():
    small, large = ramps(20, 25), ramps(40, 50)
    for name in "max_shift", "displacement":
        alone = {"max_shift": 0, "displacement": 0}
        del alone[name]
        moved = []
        for stimuli in small, large:
            read = deformed(stimuli, 200, **alone).images - stimuli.images
            moved.append((read[:, 0] * stimuli.images.shape[3])[..., 6:-6, 6:-6].std().item())
        assert moved[1] / moved[0] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n": 0}, "expected n of at least 1, .* got n=0"),
        ({"start": -1}, "got n=3, start=-1"),
        ({"max_shift": -1.0}, "max_shift=-1.0"),
        ({"displacement": -0.5}, "displacement=-0.5"),
        ({"smoothness": 0}, "smoothness of 0.01 to 10,000, got .*smoothness=0"),
        ({"max_shift": float("inf")}, "0 to 10,000 pixels .*max_shift=inf"),
        ({"displacement": float("nan")}, "displacement=nan"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        deformed(drawn(), **({"n": 3} | changed))


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (2, 1, 1, 8)])
def test_no_images_or_none_to_speak_of_are_refused(shape):
    ids = tuple(str(k) for k in range(shape[0]))
    with pytest.raises(ValueError, match=r"expected images of at least 2x2 pixels to deform, got shape"):
        deformed(Stimuli(torch.zeros(shape), ids), 3)
