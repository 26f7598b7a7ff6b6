"""What the networks of a task experiment are shown: the splits, the teacher's images, the figures' stimuli."""

from __future__ import annotations

import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from brainrdl.data import DataSplits, deformed, first_of_each_class, load_data
from brainrdl.experiment.same_images import image_digests, shared_images
from brainrdl.experiment_file import DeformedSettings, Experiment
from brainrdl.stimuli import Stimuli, in_batches, read_stimuli


class TaskData:
    """An experiment's images, read when they are first needed.

    for_search: test images are left alone; the validation images stand in their place.
    """

    def __init__(self, experiment: Experiment, for_search: bool = False) -> None:
        self.experiment = experiment
        self.for_search = for_search
        self._fewer: dict[int, DataSplits] = {}  # by how many training images

    @cached_property
    def splits(self) -> DataSplits:
        """The student's."""
        return self._load(self.experiment.data.train)

    @cached_property
    def of_teacher(self) -> DataSplits:
        """What the teacher learns from, and is tested on."""
        teacher = self.experiment.teacher
        assert teacher is not None
        if teacher.data is not None:
            return load_data(teacher.data)
        if teacher.deformed is not None:
            return _deformed_splits(self.splits, teacher.deformed)
        return self.splits

    @cached_property
    def figure_stimuli(self) -> Stimuli:
        """The first `n_per_class` test images of each class, sorted by class."""
        return first_of_each_class(self.splits, self.experiment.analysis.n_per_class, "analysis.n_per_class")

    def of_method(self, label: str) -> DataSplits:
        """What a method's students learn from, and are validated and tested on."""
        method = self.experiment.methods[label]
        if method.data == "deformed":
            return self.of_teacher._replace(validation=self.splits.validation, test=self.splits.test)
        n = method.n_train
        if n is None or n == len(self.splits.train.ids):
            return self.splits
        if n > len(self.splits.train.ids):
            raise ValueError(
                f"methods.{label}.n_train: {n} images are asked for, data.train has {len(self.splits.train.ids)}"
            )
        if n not in self._fewer:
            # Fewer training images are a part of more. Where the data set has no test set of its own, the others would
            # become test images.
            self._fewer[n] = self.splits._replace(train=self._load(n).train)
        return self._fewer[n]

    def first_images(self, of_teacher: bool = False) -> torch.Tensor:
        """Two images, to try a network with."""
        data = self.of_teacher if of_teacher else self.splits
        return read_stimuli(data.train.subset(torch.arange(2))).images

    def fingerprint(self) -> dict[str, Any]:
        """What determines the data: its settings, its content, and no path."""
        settings = self.experiment.data.model_dump(mode="json")
        settings["spec"] = Path(settings["spec"]).name
        return {**settings, "checksum": self._content[0]}

    def check_teacher(self) -> None:
        """Raise ValueError where a teacher with data of its own would learn from, or be chosen by, test images."""
        teacher = self.experiment.teacher
        if teacher is None or teacher.data is None:
            return
        seen = {*self.of_teacher.train.ids, *self.of_teacher.validation.ids} & set(self.splits.test.ids)
        if seen:
            raise ValueError(
                f"teacher.data: {len(seen)} of the experiment's {len(self.splits.test.ids)} test images would be seen "
                f"by the teacher as it learns (such as '{min(seen)}'), whose students are then tested on them; give it "
                "other images, such as the same numbers and split_seed as under data"
            )

    def notes(self) -> list[str]:
        """What is no mistake but should be known: the same image, to the pixel, on both sides of a split."""
        measured = [("validation", "training")]
        # In a search the validation images stand in the test images' place.
        measured += [] if self.for_search else [("test", "training"), ("test", "validation")]
        return shared_images(self._content[1], measured)

    @cached_property
    def _content(self) -> tuple[int, dict[str, dict[bytes, str]]]:
        """The checksum of all images, ids and labels; and split -> digest of an image -> its id."""
        checksum, digests = 0, {}
        for name, split in zip(("training", "validation", "test"), self.splits[:3], strict=True):
            checksum = zlib.crc32("\n".join(split.ids).encode(), checksum)
            of_split: dict[bytes, str] = {}
            for batch in in_batches(split, 1000):
                pixels = batch.images.contiguous().numpy()
                checksum = zlib.crc32(pixels.tobytes(), checksum)
                of_split.update(zip(image_digests(pixels), batch.ids, strict=True))
            assert split.labels is not None
            checksum = zlib.crc32(split.labels.numpy().tobytes(), checksum)
            digests[name] = of_split
        return checksum, digests

    def _load(self, n_train: int | None) -> DataSplits:
        splits = load_data(self.experiment.data.model_copy(update={"train": n_train}))
        return splits._replace(test=splits.validation) if self.for_search else splits


def _deformed_splits(data: DataSplits, settings: DeformedSettings) -> DataSplits:
    source = read_stimuli(data.train)
    if settings.source == "train+validation":
        other = read_stimuli(data.validation)
        assert source.labels is not None and other.labels is not None
        images, labels = torch.cat([source.images, other.images]), torch.cat([source.labels, other.labels])
        source = Stimuli(images, (*source.ids, *other.ids), labels)
    given = settings.model_dump(include={"seed", "max_shift", "displacement", "smoothness"}, exclude_none=True)
    validation = deformed(source, settings.validation, start=0, **given)
    train = deformed(source, settings.train, start=settings.validation, **given)
    return data._replace(train=train, validation=validation)
