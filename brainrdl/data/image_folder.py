"""Images of one's own, one folder a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brainrdl.data.spec import DataSpec
from brainrdl.stimuli import Stimuli

if TYPE_CHECKING:
    from PIL import Image


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Images that are read when they are needed: for folders larger than memory.

    files: one an image. ids, labels: as in `Stimuli`; labels that are all -1 say that there is no task, and `read`
    gives none. size: (height, width) to which each is brought: scaled until it covers them, then cut around its
    centre. channels: 1 grey, 3 colour.
    Item k is (image, label): (channels, height, width) float32, 0…1, and the class index. Raises ValueError naming the
    file that cannot be read.
    """

    def __init__(
        self, files: Sequence[Path], ids: Sequence[str], labels: Tensor, size: tuple[int, int], channels: int
    ) -> None:
        self.files = tuple(files)
        self.ids = tuple(ids)
        self.labels = labels
        self.size = size
        self.channels = channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return _read_image(self.files[k], self.size, self.channels), int(self.labels[k])

    def subset(self, rows: Tensor) -> ImageFiles:
        """The images at `rows` (int64 indices), in that order; nothing is read."""
        chosen = rows.tolist()
        files, ids = [self.files[row] for row in chosen], [self.ids[row] for row in chosen]
        return ImageFiles(files, ids, self.labels[rows], self.size, self.channels)

    def read(self) -> Stimuli:
        """All of them in memory; `files.subset(rows).read()` gives a batch."""
        try:
            images = torch.empty(len(self), self.channels, *self.size)
        except RuntimeError:  # torch's, where there is no memory, or a number is too large
            height, width = self.size
            gib = len(self) * self.channels * height * width * 4 / 2**30
            raise ValueError(
                f"{len(self)} images of {height}x{width} pixels take {gib:.3g} GiB, more memory than there is; lower "
                "size (or max_gib) in their spec"
            ) from None

        def fill(k: int) -> None:
            images[k] = self[k][0]

        with ThreadPoolExecutor() as pool:
            list(pool.map(fill, range(len(self))))
        # Stimuli of a brain data set have no task.
        no_task = len(self) > 0 and bool((self.labels < 0).all())
        return Stimuli(images, self.ids, None if no_task else self.labels)


class Folder(NamedTuple):
    """What an image folder holds. test: None where there is no folder of that name. classes: the subfolders' names."""

    train: ImageFiles
    test: ImageFiles | None
    classes: tuple[str, ...]


def find_images(spec: DataSpec, folder: Path) -> Folder:
    """The images of class/..., or of train/class/... and test/class/...; sorted, nothing but their sizes is read.

    Raises ValueError: no such folder, no class, an empty class, classes that differ between train and test, images
    of different sizes where the spec gives none.
    """
    if not folder.is_dir():
        raise ValueError(f"{spec.name}: no folder {folder}; set 'folder' in its spec to where the class folders are")
    inside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    # A class may be called "train": only the two names together, and nothing else, are the splits.
    if not {"train", "test"} <= set(inside):
        found, classes = _class_images(spec, folder)
        return Folder(_image_files(spec, folder, found, _size(spec, found)), None, classes)
    if len(inside) > 2:
        others = ", ".join(name for name in inside if name not in ("train", "test"))
        raise ValueError(
            f"{spec.name}: {folder} holds train and test beside other folders ({others}); expected train and test "
            "alone, or class folders alone"
        )
    train, classes = _class_images(spec, folder / "train")
    test, test_classes = _class_images(spec, folder / "test")
    if test_classes != classes:
        differing = ", ".join(sorted(set(classes) ^ set(test_classes)))
        raise ValueError(
            f"{spec.name}: train and test in {folder} must have the same class folders; not so: {differing}"
        )
    size = _size(spec, train + test)
    return Folder(_image_files(spec, folder, train, size), _image_files(spec, folder, test, size), classes)


class _Found(NamedTuple):
    file: Path
    label: int


def _class_images(spec: DataSpec, folder: Path) -> tuple[list[_Found], tuple[str, ...]]:
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    try:
        classes, index = find_classes(folder)
    except FileNotFoundError:
        raise ValueError(
            f"{spec.name}: {folder} holds no class folders; expected {folder.name}/CLASS/IMAGE.png"
        ) from None
    found = [_Found(Path(file), label) for file, label in make_dataset(folder, index, IMG_EXTENSIONS, allow_empty=True)]
    filled = {image.label for image in found}
    for name, label in index.items():
        if label not in filled:
            raise ValueError(
                f"{spec.name}: class folder {folder / name} holds no image ({', '.join(IMG_EXTENSIONS)}); "
                "fill or remove it"
            )
    return found, tuple(classes)


def _image_files(spec: DataSpec, folder: Path, found: list[_Found], size: tuple[int, int]) -> ImageFiles:
    ids = [f"{spec.name}/{image.file.relative_to(folder).as_posix()}" for image in found]
    labels = torch.tensor([image.label for image in found])
    return ImageFiles([image.file for image in found], ids, labels, size, spec.channels)


def _size(spec: DataSpec, found: list[_Found]) -> tuple[int, int]:
    if spec.size is not None:
        return spec.size
    first, *others = (image.file for image in found)
    height, width = _pixels(first)
    for file in others:
        if _pixels(file) != (height, width):
            raise ValueError(
                f"{spec.name}: images differ in size ({first.name} has {height}x{width}, {file.name} "
                f"{'x'.join(map(str, _pixels(file)))}); set size: [HEIGHT, WIDTH] in its spec"
            )
    return height, width


def _pixels(file: Path) -> tuple[int, int]:
    with open_image(file) as image:
        width, height = image.size
    return height, width


# What images come in. Pillow reads many more, by their content, whatever a file's name: each of them is code that a
# file from elsewhere could break.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def open_image(file: Path) -> Image.Image:
    """The image of a file. Raises ValueError naming it: no image, or more pixels than Pillow takes for harmless."""
    from PIL import Image

    if not file.is_file():  # a pipe is waited for, a device read without end
        raise ValueError(f"image {file} is no file; remove it")
    try:
        image = Image.open(file, formats=FORMATS)
    except Exception as error:
        raise unreadable(file, error) from error
    n_pixels, largest = math.prod(image.size), Image.MAX_IMAGE_PIXELS
    if largest is not None and n_pixels > largest:  # Pillow itself only warns up to twice as many
        image.close()
        raise ValueError(f"image {file} has {n_pixels:,} pixels, expected at most {largest:,}; make it smaller")
    return image


_LARGE = 16_000_000  # pixels; only one image with more is in memory at a time
_one_at_a_time = Lock()


def _read_image(file: Path, size: tuple[int, int], channels: int) -> Tensor:
    from PIL.Image import Resampling
    from PIL.ImageOps import fit

    height, width = size
    with open_image(file) as opened, _one_at_a_time if math.prod(opened.size) > _LARGE else nullcontext():
        if opened.mode.startswith(("I", "F")):
            raise ValueError(f"image {file} has more than 8 bits a channel (mode {opened.mode}); save it with 8 bits")
        try:
            image = opened.convert("L" if channels == 1 else "RGB")
        except Exception as error:
            raise unreadable(file, error) from error
        values = torch.from_numpy(np.array(fit(image, (width, height), Resampling.BILINEAR)))
    return values.reshape(height, width, channels).permute(2, 0, 1).float() / 255


def unreadable(file: Path, error: Exception) -> ValueError:
    """What to raise where an image's pixels cannot be read. error: what Pillow said of it."""
    return ValueError(f"image {file} cannot be read ({error or type(error).__name__}); repair or remove it")
