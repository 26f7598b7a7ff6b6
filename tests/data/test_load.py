"""Splits of an experiment, and what `brainrdl check` tells of a data set."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from sklearn.datasets import load_digits

from brainrdl.data import DataSettings, ImageFiles, describe, load_data, load_spec


def digits(**settings):
    return load_data(DataSettings(spec="digits", **({"train": 200, "validation": 300} | settings)))


def write_images(folder, numbers):
    """Grey 4 x 4 images, so many a class folder."""
    generator = np.random.default_rng(0)
    for name, n in numbers.items():
        (folder / name).mkdir(parents=True)
        for k in range(n):
            Image.fromarray(generator.integers(0, 256, size=(4, 4), dtype=np.uint8)).save(folder / name / f"{k}.png")
    return folder


def test_the_splits_are_apart_stratified_and_of_the_sizes_asked_for():
    splits = digits()
    assert [len(split.ids) for split in splits[:3]] == [200, 300, 1297]
    assert len({*splits.train.ids, *splits.validation.ids, *splits.test.ids}) == 1797
    for split in splits[:3]:
        share = split.labels.bincount() / len(split.ids)
        torch.testing.assert_close(share, torch.full((10,), 0.1), atol=0.01, rtol=0)
        assert list(split.ids) == sorted(split.ids)
    assert splits.class_names == tuple("0123456789") and splits.name == "digits"


def test_images_ids_and_labels_stay_together():
    reference = load_digits()
    for split in digits()[:3]:
        rows = [int(name.removeprefix("digits/")) for name in split.ids]
        assert np.array_equal(split.images[:, 0].numpy() * 16, reference.images[rows])
        assert np.array_equal(split.labels.numpy(), reference.target[rows])


def test_the_split_is_a_function_of_the_settings():
    assert digits().train.ids == digits().train.ids
    assert digits().train.ids != digits(split_seed=1).train.ids
    assert digits(flips=True).train.ids == digits().train.ids


def test_fewer_training_images_are_a_part_of_more_and_the_others_stay():
    small, large = digits(train=100, test=400), digits(train=None, test=400)
    assert set(small.train.ids) < set(large.train.ids)
    assert small.validation.ids == large.validation.ids and small.test.ids == large.test.ids
    assert len(large.train.ids) == 1797 - 300 - 400


def test_the_rest_is_for_training_or_for_test():
    assert len(digits(test=None).test.ids) == 1297
    assert len(digits(train=None, test=97).train.ids) == 1400
    assert len(digits(validation=0).validation.ids) == 0
    assert digits(validation=0).validation.images.shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": None}, "digits has no test set of its own; say how many images are for 'train', 'test' or both"),
        (
            {"train": 1600},
            "digits: 1600 train . 300 validation images were asked for, but there are 1797 in it; ask for",
        ),
        ({"test": 1298}, "digits: 200 train . 300 validation . 1298 test images were asked for, but there are 1797"),
        ({"train": 9}, "digits: class '.' has no image among the 9 for train; ask for more .there are 10 classes."),
        ({"validation": 5}, "digits: class '.' has no image among the 5 for validation"),
        ({"train": 1490, "validation": 300}, "digits: class '.' has no image among the 7 for test"),
        ({"train": None, "validation": 300, "test": 1497}, "has no image among the 0 for train"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        digits(**settings)


@pytest.mark.parametrize(
    "wrong", [{"train": 0}, {"validation": -1}, {"test": 0}, {"split_seed": -1}, {"shuffle": True}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DataSettings(**({"spec": "digits", "validation": 10} | wrong))


def test_a_data_set_with_a_test_set_of_its_own_keeps_it(tmp_path):
    write_images(tmp_path / "train", {"cat": 30, "dog": 20})
    write_images(tmp_path / "test", {"cat": 12, "dog": 8})
    splits = load_data(DataSettings(spec=str(tmp_path), validation=10))
    assert [len(split.ids) for split in splits[:3]] == [40, 10, 20]
    assert splits.validation.labels.bincount().tolist() == [6, 4]
    assert all("/test/" in name for name in splits.test.ids)
    fewer = load_data(DataSettings(spec=str(tmp_path), train=5, validation=10, test=5))
    assert [len(split.ids) for split in fewer[:3]] == [5, 10, 5]
    assert fewer.test.labels.bincount().tolist() == [3, 2] and set(fewer.test.ids) < set(splits.test.ids)
    with pytest.raises(
        ValueError, match=r"21 test images were asked for, but there are 20 in its test set; ask for fewer"
    ):
        load_data(DataSettings(spec=str(tmp_path), validation=10, test=21))
    with pytest.raises(ValueError, match=r"51 validation images were asked for, but there are 50 in its training set"):
        load_data(DataSettings(spec=str(tmp_path), validation=51))


def test_images_that_stay_on_disk_are_split_alike(tmp_path):
    write_images(tmp_path / "images", {"cat": 10, "dog": 10})
    spec = tmp_path / "pets.yaml"
    text = "name: pets\nformat: image_folder\nfolder: images\nchannels: 1\n"
    settings = DataSettings(spec=str(spec), validation=6, test=4)
    spec.write_text(text)
    kept = load_data(settings)
    spec.write_text(text + "max_gib: 0\n")
    on_disk = load_data(settings)
    for name in "train", "validation", "test":
        files, stimuli = getattr(on_disk, name), getattr(kept, name)
        assert isinstance(files, ImageFiles) and files.ids == stimuli.ids
        assert torch.equal(files.read().images, stimuli.images) and torch.equal(files.labels, stimuli.labels)


def test_a_class_that_is_too_small_for_every_split_is_refused_by_name(tmp_path):
    write_images(tmp_path, {"cat": 20, "rare": 2})
    with pytest.raises(ValueError, match=r"class 'rare' has no image among the .* add images of it"):
        load_data(DataSettings(spec=str(tmp_path), validation=4, test=4))


def test_the_data_root_is_the_environments(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINRDL_DATA", str(tmp_path))
    write_images(tmp_path / "my_images", {"cat": 4, "dog": 4})
    splits = load_data(DataSettings(spec="image_folder", validation=2, test=2))
    assert splits.train.images.shape == (4, 3, 64, 64) and splits.name == "my_images"


def test_a_description_tells_what_is_there():
    told = describe(load_spec("digits"))
    assert told.usable and told.images == {"all": 1797} and told.shape == (1, 8, 8) and len(told.classes) == 10
    text = str(told)
    for part in "CC BY 4.0", "1797, no test set apart", "1 x 8 x 8", "digits/0000 … digits/1796", "usable    yes":
        assert part in text


def test_a_description_tells_both_splits_and_classes(tmp_path):
    for split, n in (("train", 3), ("test", 2)):
        write_images(tmp_path / split, {f"class{k:02d}": n for k in range(12)})
    told = describe(load_spec(tmp_path))
    assert told.images == {"train": 36, "test": 24} and told.shape == (3, 4, 4)
    assert "36 train, 24 test" in str(told) and "12: class00, class01" in str(told) and "class09, …" in str(told)
    assert told.ids == (f"{tmp_path.name}/train/class00/0.png", f"{tmp_path.name}/test/class11/1.png")
    spec = load_spec(tmp_path).model_copy(update={"max_gib": 0})
    assert describe(spec)[1:] == told[1:]


def test_a_description_shows_no_control_characters(tmp_path):
    spec = load_spec("mnist").model_copy(update={"folder": "a\tb\x1b[2J"})
    assert "a\\tb\\x1b[2J" in str(describe(spec, tmp_path))


def test_a_description_tells_where_missing_data_were_looked_for(tmp_path):
    told = describe(load_spec("mnist"), tmp_path)
    assert not told.usable and told.images == {}
    assert f"usable    no. mnist: not found in {tmp_path / 'MNIST' / 'raw'}" in str(told)
    assert "download it" in str(told) and "LeCun" in str(told)


def test_real_mnist_is_split_as_in_the_paper(real_data):
    real_data("MNIST/raw")
    splits = load_data(DataSettings(spec="mnist", validation=10000))
    assert [len(split.ids) for split in splits[:3]] == [50000, 10000, 10000]
    assert all(name.startswith("mnist/test/") for name in splits.test.ids)
    share = splits.train.labels.bincount() / 50000 - splits.validation.labels.bincount() / 10000
    assert share.abs().max() < 2e-4
