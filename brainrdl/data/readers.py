"""The formats of data sets, and one reader for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brainrdl.data.image_folder import ImageFiles, find_images
from brainrdl.data.spec import DataSpec
from brainrdl.restricted_files import load_dict
from brainrdl.stimuli import Stimuli, check_stimuli


class Contents(NamedTuple):
    """What a data set holds. test: its own test set; None where it has none. classes: names in the labels' order."""

    train: Stimuli | ImageFiles
    test: Stimuli | ImageFiles | None
    classes: tuple[str, ...]


def read_contents(spec: DataSpec, root: Path) -> Contents:
    """The images of a data set that lies in spec.folder under `root`; nothing is downloaded.

    Raises ValueError where it is not there (saying where it was looked for and how to get it), cannot be read, or is
    not what the spec says.
    """
    contents = READERS[spec.format](spec, root / Path(spec.folder).expanduser())
    for split in contents.train, contents.test:
        if isinstance(split, Stimuli):
            check_stimuli(split, spec.name)
            shape = (spec.channels, *(spec.size or split.images.shape[2:]))
            if split.images.shape[1:] != shape:
                raise ValueError(
                    f"{spec.name}: images have shape {tuple(split.images.shape[1:])}, but its spec's channels and size "
                    f"say {shape}; correct the spec"
                )
        if split is not None and split.labels is not None and int(split.labels.max()) >= len(contents.classes):
            raise ValueError(
                f"{spec.name}: found label {int(split.labels.max())}, but its spec names {len(contents.classes)} "
                "classes, counted from 0; correct 'classes'"
            )
    return contents


def stimuli_from_dataset(dataset: Dataset[Any], name: str) -> Stimuli:
    """Any map-style torch Dataset of (image, label) as stimuli in memory; ids are "NAME/00000" and so on.

    image: (channels, height, width) or (height, width), float 0…1 or uint8, or a PIL image.
    Raises ValueError, by position, for an item that is something else.
    """
    if not hasattr(dataset, "__len__"):
        raise ValueError(f"{name}: expected a map-style dataset with a length, got {type(dataset).__name__}")
    images: list[Tensor] = []
    labels: list[int] = []
    for k in range(len(cast(Sized, dataset))):
        item = dataset[k]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ValueError(f"{name}: item {k} is a {type(item).__name__}, expected (image, label)")
        image, label = item
        values = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
        if not isinstance(image, Tensor) and values.ndim == 3:
            values = values.permute(2, 0, 1)
        if values.ndim == 2:
            values = values[None]
        if values.ndim != 3 or (images and values.shape != images[0].shape):
            raise ValueError(
                f"{name}: image {k} has shape {tuple(values.shape)}, expected (channels, height, width), all alike"
            )
        if values.dtype == torch.uint8:
            values = values / 255
        images.append(values.float())
        labels.append(int(label))
    if not images:
        raise ValueError(f"{name}: the dataset is empty")
    ids = tuple(f"{name}/{k:05d}" for k in range(len(images)))
    return check_stimuli(Stimuli(torch.stack(images), ids, torch.tensor(labels)), name)


def _read_digits(spec: DataSpec, folder: Path) -> Contents:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    ids = tuple(f"{spec.name}/{k:04d}" for k in range(len(images)))
    return Contents(Stimuli(images, ids, torch.from_numpy(digits.target).long()), None, spec.classes or ())


_MNIST_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"


def _read_mnist(spec: DataSpec, folder: Path) -> Contents:
    return _read_torchvision(spec, folder, "MNIST", Path("MNIST", "raw"), f"the unpacked files {_MNIST_FILES}")


def _read_cifar10(spec: DataSpec, folder: Path) -> Contents:
    files = "the files data_batch_1 to data_batch_5, test_batch, batches.meta"
    return _read_torchvision(spec, folder, "CIFAR10", Path("cifar-10-batches-py"), files)


def _read_cifar100(spec: DataSpec, folder: Path) -> Contents:
    files = "the files train, test, meta"
    return _read_torchvision(spec, folder, "CIFAR100", Path("cifar-100-python"), files)


def _read_torchvision(spec: DataSpec, root: Path, kind: str, below: Path, files: str) -> Contents:
    import torchvision.datasets

    try:
        kind_of_set = getattr(torchvision.datasets, kind)
        if kind.startswith("CIFAR"):
            sets = [_unpickled(kind_of_set, root, listed) for listed in (kind_of_set.train_list, kind_of_set.test_list)]
        else:
            sets = [kind_of_set(root, train=train, download=False) for train in (True, False)]
    except Exception as error:
        # torchvision raises RuntimeError for missing files, and whatever parsing leads to for damaged ones.
        python = f"from torchvision.datasets import {kind}; {kind}({str(root)!r}, download=True)"
        raise ValueError(
            f"{spec.name}: not found in {root / below}, or damaged; expected there {files}. Set BRAINRDL_DATA to the "
            f'folder that holds {below.parts[0]}/, or download it: python -c "{python}"'
        ) from error
    splits = []
    for part, found in zip(("train", "test"), sets, strict=True):
        pixels = torch.as_tensor(found.data)  # MNIST (n, 28, 28), CIFAR (n, 32, 32, 3), uint8
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        images = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        ids = tuple(f"{spec.name}/{part}/{k:05d}" for k in range(len(images)))
        splits.append(Stimuli(images, ids, torch.as_tensor(found.targets).long()))
    return Contents(splits[0], splits[1], spec.classes or ())


class _Unpickled(NamedTuple):
    """data: (n, 32, 32, 3) uint8. targets: class indices."""

    data: np.ndarray
    targets: list[int]


def _unpickled(kind: Any, root: Path, listed: Sequence[tuple[str, str]]) -> _Unpickled:
    """The images in CIFAR's published pickles, whose code is not run; listed: torchvision's names and md5."""
    from torchvision.datasets.utils import check_integrity

    data, targets = [], []
    for name, md5 in listed:
        path = root / kind.base_folder / name
        if not check_integrity(path, md5):
            raise ValueError(f"{path}: missing, or its md5 is not {md5}")
        entry = load_dict(path)
        data.append(entry["data"])
        targets += entry["labels"] if "labels" in entry else entry["fine_labels"]
    return _Unpickled(np.vstack(data).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), targets)


def _read_image_folder(spec: DataSpec, folder: Path) -> Contents:
    found = find_images(spec, folder)
    parts = [part for part in (found.train, found.test) if part is not None]
    height, width = found.train.size
    gib = sum(len(part) for part in parts) * spec.channels * height * width * 4 / 2**30
    if gib > spec.max_gib:
        return Contents(found.train, found.test, found.classes)
    return Contents(found.train.read(), None if found.test is None else found.test.read(), found.classes)


READERS: dict[str, Callable[[DataSpec, Path], Contents]] = {
    "digits": _read_digits,
    "mnist": _read_mnist,
    "cifar10": _read_cifar10,
    "cifar100": _read_cifar100,
    "image_folder": _read_image_folder,
}
