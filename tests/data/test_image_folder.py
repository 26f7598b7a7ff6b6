"""Images of one's own: what is found in a folder, how it is read, what is refused."""

import os
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from brainrdl.data import ImageFiles, load_spec
from brainrdl.data.image_folder import open_image
from brainrdl.data.readers import read_contents
from brainrdl.data.spec import DataSpec


def save(file, size=(6, 8), seed=0, mode="RGB"):
    """A random image of size (height, width)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = size if mode == "L" else (*size, len(mode))
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8), mode).save(file)


@pytest.fixture
def pets(tmp_path):
    for seed, name in enumerate(["dog/b.png", "dog/a.png", "cat/tom.png", "cat/old/felix.png", "emu/x.bmp"]):
        save(tmp_path / "pets" / name, seed=seed)
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "pets"


def spec(folder, **changed):
    return DataSpec(**{"name": "pets", "format": "image_folder", "folder": str(folder)} | changed)


def read(folder, **changed):
    return read_contents(spec(folder, **changed), folder)


def test_the_images_are_those_of_torchvisions_image_folder(pets):
    contents = read(pets)
    reference = ImageFolder(pets)
    assert contents.classes == tuple(reference.classes) == ("cat", "dog", "emu")
    assert contents.train.labels.tolist() == reference.targets
    expected = torch.stack([pil_to_tensor(image) for image, _ in reference]) / 255
    assert torch.equal(contents.train.images, expected)
    assert contents.train.images.dtype == torch.float32 and contents.train.images.shape == (5, 3, 6, 8)
    ids = ("pets/cat/tom.png", "pets/cat/old/felix.png", "pets/dog/a.png", "pets/dog/b.png", "pets/emu/x.bmp")
    assert contents.train.ids == ids and contents.test is None


def test_grey_is_pils(pets):
    grey = read(pets, channels=1).train.images
    with Image.open(pets / "cat" / "tom.png") as image:
        assert torch.equal(grey[0], pil_to_tensor(image.convert("L")) / 255)


def test_train_and_test_folders_are_the_splits(tmp_path):
    for split, n in (("train", 3), ("test", 2)):
        for name in "cat", "dog":
            for k in range(n):
                save(tmp_path / split / name / f"{k}.png", seed=k)
    contents = read(tmp_path)
    assert contents.classes == ("cat", "dog")
    assert contents.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and contents.test.labels.tolist() == [0, 0, 1, 1]
    assert contents.test.ids[-1] == "pets/test/dog/1.png" and contents.train.ids[0] == "pets/train/cat/0.png"


def test_a_class_may_be_called_train(tmp_path):
    for name in "bus", "train":
        save(tmp_path / name / "1.png")
    assert read(tmp_path).classes == ("bus", "train")


def test_images_are_scaled_until_they_cover_the_size_and_cut_around_the_centre(tmp_path):
    # Red, green and blue thirds side by side: only the middle third is left of a square.
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    for third in range(3):
        pixels[:, 20 * third : 20 * third + 20, third] = 255
    (tmp_path / "c").mkdir()
    Image.fromarray(pixels).save(tmp_path / "c" / "thirds.png")
    image = read(tmp_path, size=(10, 10)).train.images[0]
    assert image.shape == (3, 10, 10)
    assert (image[1, :, 1:-1] == 1).all() and (image[[0, 2], :, 1:-1] == 0).all()


def test_resizing_without_a_cut_is_pils_antialiased_bilinear(pets):
    with Image.open(pets / "dog" / "a.png") as image:
        expected = pil_to_tensor(image.resize((4, 3), Image.Resampling.BILINEAR)) / 255
    assert torch.equal(read(pets, size=(3, 4)).train.images[2], expected)


def test_a_folder_above_the_limit_stays_on_disk_and_gives_the_same_images(pets):
    files, kept = read(pets, max_gib=0).train, read(pets).train
    assert isinstance(files, ImageFiles) and len(files) == 5
    assert files.ids == kept.ids and torch.equal(files.labels, kept.labels)
    for k in range(5):
        image, label = files[k]
        assert torch.equal(image, kept.images[k]) and label == kept.labels[k]
    rows = torch.tensor([4, 1])
    part = files.subset(rows)
    assert part.ids == kept.subset(rows).ids and torch.equal(part.read().images, kept.subset(rows).images)
    assert torch.equal(part.read().labels, kept.labels[rows])
    images, labels = next(iter(DataLoader(files, batch_size=5)))
    assert torch.equal(images, kept.images) and torch.equal(labels, kept.labels)
    assert pickle.loads(pickle.dumps(files)).ids == files.ids


def test_the_limit_counts_the_images_of_all_splits(tmp_path):
    for split in "train", "test":
        save(tmp_path / split / "c" / "1.png", size=(64, 64))
    gib = 2 * 3 * 64 * 64 * 4 / 2**30
    assert not isinstance(read(tmp_path, max_gib=gib).train, ImageFiles)
    assert isinstance(read(tmp_path, max_gib=0.99 * gib).train, ImageFiles)


def test_a_folder_itself_serves_as_spec(pets, tmp_path):
    assert read_contents(load_spec(pets), tmp_path).train.ids[0] == "pets/cat/tom.png"


def test_images_of_different_sizes_need_a_size(pets):
    save(pets / "emu" / "y.png", size=(9, 8))
    with pytest.raises(
        ValueError, match=r"pets: images differ in size .tom.png has 6x8, y.png 9x8.; set size: .HEIGHT"
    ):
        read(pets)
    assert read(pets, size=(6, 8)).train.images.shape == (6, 3, 6, 8)


def test_a_folder_that_is_not_there_or_holds_no_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"pets: no folder {tmp_path / 'none'}; set 'folder' in its spec"):
        read(tmp_path / "none")
    save(tmp_path / "flat" / "1.png")
    with pytest.raises(ValueError, match=r"pets: .*flat holds no class folders; expected flat/CLASS/IMAGE.png"):
        read(tmp_path / "flat")


def test_an_empty_class_is_refused_by_name(pets):
    (pets / "fox").mkdir()
    (pets / "fox" / "readme.txt").write_text("to be filled")
    with pytest.raises(ValueError, match=r"pets: class folder .*fox holds no image .*; fill or remove it"):
        read(pets)


def test_train_and_test_that_do_not_fit_are_refused(tmp_path):
    for name in "train/cat/1.png", "train/dog/1.png", "test/cat/1.png":
        save(tmp_path / name)
    with pytest.raises(ValueError, match=r"pets: train and test in .* must have the same class folders; not so: dog"):
        read(tmp_path)
    save(tmp_path / "val/cat/1.png")
    with pytest.raises(
        ValueError, match=r"holds train and test beside other folders .val.; expected train and test alone"
    ):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image at all"])
@pytest.mark.parametrize("size", [None, (6, 8)])
def test_a_file_that_is_no_image_is_refused_by_name(content, size, pets):
    (pets / "dog" / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"image .*dog.a.png cannot be read .*; repair or remove it"):
        read(pets, size=size)


def test_a_truncated_image_is_refused_by_name(pets):
    save(pets / "dog" / "a.png", size=(60, 80))
    whole = (pets / "dog" / "a.png").read_bytes()
    (pets / "dog" / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"image .*dog.a.png cannot be read .*; repair or remove it"):
        read(pets, size=(6, 8))


def test_images_of_more_than_8_bits_are_refused(pets):
    Image.fromarray(np.full((6, 8), 40000, dtype=np.uint16)).save(pets / "dog" / "deep.png")
    with pytest.raises(
        ValueError, match=r"image .*deep.png has more than 8 bits a channel .mode I;16.; save it with 8"
    ):
        read(pets)


def test_images_without_a_task_have_no_labels_when_read(pets):
    files = read(pets, max_gib=0).train
    without = ImageFiles(files.files, files.ids, torch.full((5,), -1), files.size, files.channels)
    assert without.read().labels is None
    assert without.subset(torch.tensor([1, 3])).read().labels is None
    assert files.read().labels is not None


def png_that_says(width, height):
    """A PNG of a few bytes whose heading claims so many pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    heading = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", heading) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_500, 50_000])  # Pillow warns of the one and refuses the other
@pytest.mark.parametrize("size", [None, (6, 8)])
def test_an_image_that_says_it_is_huge_is_refused_before_its_pixels_are_read(pets, side, size):
    (pets / "dog" / "a.png").write_bytes(png_that_says(side, side))
    with pytest.raises(ValueError, match=r"image .*dog.a.png (has [\d,]+ pixels, expected at most|cannot be read)"):
        read(pets, size=size)


def test_pixels_are_counted_also_where_pillow_only_warns(pets, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # of 6 x 8, of which Pillow would only warn
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(ValueError, match=r"a.png has 48 pixels, expected at most 40; make it smaller"),
    ):
        open_image(pets / "dog" / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_image(pets / "dog" / "a.png").size == (8, 6)


def test_reading_images_leaves_pythons_warnings_as_they_were(pets):
    before = list(warnings.filters)
    read(pets, size=(6, 8))
    assert warnings.filters == before


def test_what_is_no_file_is_not_waited_for(pets):
    os.mkfifo(pets / "dog" / "pipe.png")
    with pytest.raises(ValueError, match=r"image .*dog.pipe.png is no file; remove it"):
        read(pets, size=(6, 8))


def test_images_that_memory_cannot_hold_are_told(pets):
    files = read(pets, max_gib=0).train
    huge = ImageFiles(files.files * 10**6, files.ids * 10**6, files.labels, (4096, 4096), 3)
    with pytest.raises(
        ValueError, match=r"5000000 images of 4096x4096 pixels take 9.38e\+05 GiB, more memory than there"
    ):
        huge.read()
