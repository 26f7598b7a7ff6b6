"""From the settings of an experiment to its training, validation and test images."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt
from torch import Tensor

from brainrdl.data.folds import stratified_order
from brainrdl.data.image_folder import ImageFiles
from brainrdl.data.readers import read_contents
from brainrdl.data.spec import DataSpec, data_root, load_spec, source_lines
from brainrdl.randomness import Draw
from brainrdl.settings import plain
from brainrdl.stimuli import Stimuli, read_stimuli


class DataSettings(BaseModel):
    """What an experiment file says under `data`.

    spec: a built-in data spec's name, a YAML file, or a folder of images. train: how many images; null = all
    that are left. validation: how many. test: how many; null = the data set's own test set or, where it has none, all
    that are left. split_seed: which of the possible splits. flips: mirror training images at random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: str
    train: PositiveInt | None = None
    validation: NonNegativeInt
    test: PositiveInt | None = None
    split_seed: NonNegativeInt = 0
    flips: bool = False


class DataSplits(NamedTuple):
    """The images of an experiment, the same for every method and seed; in a split they stand in the data set's order.

    validation: empty where none was asked for. class_names: in the labels' order. name: of the data set.
    """

    train: Stimuli | ImageFiles
    validation: Stimuli | ImageFiles
    test: Stimuli | ImageFiles
    class_names: tuple[str, ...]
    name: str


def load_data(settings: DataSettings, root: Path | None = None) -> DataSplits:
    """Read the data set and split it, stratified by class; the split is a function of `settings` alone.

    With the same split_seed, fewer training images are a part of more, and the others stay as they are.
    root: where data sets are looked for; None is `data_root()`.
    Raises ValueError: the data are not there or not as their spec says, too few images, a class without an image
    in a split.
    """
    spec = load_spec(settings.spec)
    contents = read_contents(spec, data_root() if root is None else root)
    rows = _split(settings, contents.train, contents.test is not None, spec.name)
    train, validation = contents.train.subset(rows.train), contents.train.subset(rows.validation)
    if contents.test is None:
        test = contents.train.subset(rows.test)
    elif settings.test is None:
        test = contents.test
    else:
        order = _order(contents.test, settings)
        _check_enough(settings.test, len(order), f"{spec.name}: {settings.test} test", "its test set")
        test = contents.test.subset(order[: settings.test].sort().values)
    splits = DataSplits(train, validation, test, contents.classes, spec.name)
    _check_classes(splits)
    return splits


def first_of_each_class(data: DataSplits, n: int, where: str) -> Stimuli:
    """The first `n` test images of each class, sorted by class: the stimuli of figures.

    where: the setting that asks for them. Raises ValueError where a class has fewer.
    """
    labels = data.test.labels
    assert labels is not None
    rows = [torch.nonzero(labels == k)[:n, 0] for k in range(len(data.class_names))]
    short = [name for name, found in zip(data.class_names, rows, strict=True) if len(found) < n]
    if short:
        raise ValueError(
            f"{where}: {n} test images of each class are asked for, class '{short[0]}' has fewer; "
            "lower it, or keep more test images"
        )
    return read_stimuli(data.test.subset(torch.cat(rows)))


class Description(NamedTuple):
    """What `brainrdl check` tells of a data set; printed as text.

    images: how many, under "train" and "test", or under "all" where it has no test set of its own.
    shape: (channels, height, width). ids: the first and the last. All of it empty where the data set cannot be used;
    problem then says where it was looked for and what to do.
    """

    spec: DataSpec
    images: dict[str, int]
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    problem: str | None

    @property
    def usable(self) -> bool:
        return self.problem is None

    def __str__(self) -> str:
        lines = {
            **source_lines("data set", self.spec.name, self.spec.title, self.spec.source),
            "images": ", ".join(f"{n} {split}" for split, n in self.images.items()).replace(
                " all", ", no test set apart"
            ),
            "size": f"{self.shape[0]} x {self.shape[1]} x {self.shape[2]} (channels, height, width)"
            if self.shape
            else "",
            "classes": f"{len(self.classes)}: {_some(self.classes, 10)}" if self.classes else "",
            "ids": " … ".join(self.ids),
            "usable": "yes" if self.usable else f"no. {self.problem}",
        }
        return "\n".join(f"{key:<10}{text}" for key, text in lines.items() if text)


def describe(spec: DataSpec, root: Path | None = None) -> Description:
    """Whether a data set can be used here and what is in it; every image that is kept in memory is read."""
    try:
        train, test, classes = read_contents(spec, data_root() if root is None else root)
    except ValueError as error:
        return Description(spec, {}, (), (), (), plain(str(error), 1200))
    images = {"all": len(train.ids)} if test is None else {"train": len(train.ids), "test": len(test.ids)}
    shape = (train.channels, *train.size) if isinstance(train, ImageFiles) else tuple(train.images.shape[1:])
    return Description(spec, images, shape, classes, (train.ids[0], (test or train).ids[-1]), None)


class _Rows(NamedTuple):
    train: Tensor
    validation: Tensor
    test: Tensor


def _split(settings: DataSettings, images: Stimuli | ImageFiles, own_test: bool, name: str) -> _Rows:
    """Rows of the set that train and validation, and without a test set of its own also test, are taken from."""
    n = len(images.ids)
    n_test = 0 if own_test else settings.test
    if n_test is None and settings.train is None:
        raise ValueError(f"{name} has no test set of its own; say how many images are for 'train', 'test' or both")
    asked = {"train": settings.train, "validation": settings.validation, "test": n_test}
    told = " + ".join(f"{number} {split}" for split, number in asked.items() if number)
    _check_enough(
        sum(number or 0 for number in asked.values()), n, f"{name}: {told}", "its training set" if own_test else "it"
    )
    order = _order(images, settings)
    # Test images are the last, validation images the first: neither moves when the number for training changes.
    beginning, end = settings.validation, n - (n_test or 0)
    middle = end if settings.train is None else beginning + settings.train
    cuts = order[beginning:middle], order[:beginning], order[middle if n_test is None else end :]
    return _Rows(*(rows.sort().values for rows in cuts))


def _order(images: Stimuli | ImageFiles, settings: DataSettings) -> Tensor:
    assert images.labels is not None  # every reader gives labels
    return stratified_order(images.labels, Draw(settings.split_seed).generator("split"))


def _check_enough(asked: int, n: int, what: str, where: str) -> None:
    if asked > n:
        raise ValueError(f"{what} images were asked for, but there are {n} in {where}; ask for fewer")


def _check_classes(splits: DataSplits) -> None:
    for split in "train", "validation", "test":
        images: Stimuli | ImageFiles = getattr(splits, split)
        if split == "validation" and not images.ids:
            continue
        assert images.labels is not None
        counts = torch.bincount(images.labels, minlength=len(splits.class_names))
        if not counts.all():
            empty = splits.class_names[int((counts == 0).nonzero()[0])]
            raise ValueError(
                f"{splits.name}: class '{empty}' has no image among the {len(images.ids)} for {split}; "
                f"ask for more (there are {len(splits.class_names)} classes), or add images of it"
            )


def _some(names: tuple[str, ...], n: int) -> str:
    return ", ".join(names[:n]) + (", …" if len(names) > n else "")
