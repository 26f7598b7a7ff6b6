"""Small pictures of stimuli: what they show, their file, and folders of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from brainrdl.data.thumbnails import load_thumbnails, make_thumbnails, save_thumbnails
from brainrdl.stimuli import Stimuli


def stimuli(channels=3, height=8, width=6, ids=("a/1", "ü")):
    images = torch.rand(len(ids), channels, height, width, generator=torch.Generator().manual_seed(0))
    return Stimuli(images, tuple(ids))


def test_small_images_are_kept_pixel_for_pixel():
    given = stimuli()
    pictures = make_thumbnails(given)
    assert list(pictures) == ["a/1", "ü"]
    expected = (given.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pictures["a/1"], expected)


def test_grey_images_have_three_equal_channels_and_large_ones_are_shrunk_in_proportion():
    picture = make_thumbnails(stimuli(channels=1, height=200, width=100))["ü"]
    assert picture.shape == (64, 32, 3)
    assert (picture[:, :, 0] == picture[:, :, 2]).all()
    assert picture.std() > 0


def test_what_is_brighter_than_white_is_white():
    given = stimuli()
    given.images[0, :, 0, 0], given.images[0, :, 0, 1] = 1.5, -0.5
    picture = make_thumbnails(given)["a/1"]
    assert picture[0, 0].tolist() == [255] * 3
    assert picture[0, 1].tolist() == [0] * 3


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="stimulus 'a/1' has 2 channels; a picture has 1"):
        make_thumbnails(stimuli(channels=2))


def test_a_file_gives_back_the_pictures_asked_for_in_that_order(tmp_path):
    pictures = {**make_thumbnails(stimuli()), **make_thumbnails(stimuli(1, 90, 30, ["<script>"]))}
    save_thumbnails(pictures, tmp_path / "thumbnails.npz")
    again = load_thumbnails(tmp_path / "thumbnails.npz", ["<script>", "not there", "a/1"])
    assert list(again) == ["<script>", "a/1"]
    for stimulus, picture in again.items():
        np.testing.assert_array_equal(picture, pictures[stimulus])


@pytest.mark.parametrize("damage", ["short", "empty", "other arrays", "pixels lost"])
def test_a_damaged_file_is_told(tmp_path, damage):
    path = tmp_path / "thumbnails.npz"
    save_thumbnails(make_thumbnails(stimuli()), path)
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other arrays":
        np.savez(path, images=np.zeros(3))
    else:
        arrays = dict(np.load(path))
        np.savez(path, **{**arrays, "pixels": arrays["pixels"][:-1]})
    with pytest.raises(ValueError, match=r"thumbnails\.npz"):
        load_thumbnails(path, ["ü"])


def test_in_a_folder_a_stimulus_is_the_file_of_that_name_with_or_without_its_suffix(tmp_path):
    (tmp_path / "faces").mkdir()
    colours = {"faces/anna.png": (255, 0, 0), "dog.JPG": (0, 255, 0), "notes.txt": None}
    for name, colour in colours.items():
        if colour is None:
            (tmp_path / name).write_text("no image")
        else:
            Image.new("RGB", (100, 50), colour).save(tmp_path / name)
    found = load_thumbnails(tmp_path, ["dog", "faces/anna.png", "cat", "notes"])
    assert list(found) == ["dog", "faces/anna.png"]
    assert found["faces/anna.png"].shape == (32, 64, 3)
    assert tuple(found["faces/anna.png"][0, 0]) == (255, 0, 0)


def test_in_a_folder_the_whole_name_comes_first_and_grey_images_have_three_channels(tmp_path):
    for name, grey in (("cat.jpg", 10), ("cat.jpg.png", 200), ("dog.png", 60), ("dog.bmp", 90)):
        Image.new("L", (9, 9), grey).save(tmp_path / name)
    found = load_thumbnails(tmp_path, ["cat.jpg", "cat.jpg.png", "cat", "dog", "dog.png"])
    assert {picture.shape for picture in found.values()} == {(9, 9, 3)}
    assert [int(picture.mean()) for picture in found.values()] == [10, 200, 10, 90, 60]


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"'.*nowhere' is not there; give a folder of images named by stimulus id"):
        load_thumbnails(tmp_path / "nowhere", ["a"])
    with pytest.raises(
        ValueError, match=r"has none of the 2 stimuli, the first is 'a'; name the images by stimulus id"
    ):
        load_thumbnails(tmp_path, ["a", "b"])
    Image.effect_noise((90, 90), 50).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-2000])  # its heading can be read
    with pytest.raises(ValueError, match=r"image .*a\.png cannot be read \(.*truncated.*\); repair or remove it"):
        load_thumbnails(tmp_path, ["a"])
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"image .*a\.png cannot be read .*; repair or remove it"):
        load_thumbnails(tmp_path, ["a"])
