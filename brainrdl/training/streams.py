"""Batches of an epoch: the same order for every method of one seed, on the device where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brainrdl.models.inference import on_device
from brainrdl.randomness import Draw, torch_seeded
from brainrdl.ranks import Share
from brainrdl.stimuli import Stimuli, check_stimuli, check_unique, read_stimuli, without_waiting

Augment = Callable[[Tensor, np.random.Generator], Tensor]


class Images(Protocol):
    """Images that are read by row.

    largest_label: among those read so far, -1 where none has a label.
    """

    ids: tuple[str, ...]
    largest_label: int

    def read(self, batches: Sequence[np.ndarray], draws: Sequence[Draw]) -> Iterator[Stimuli]:
        """The images at the rows of each batch, what is random about them a function of the batch's draw."""
        ...


def open_images(
    data: Stimuli | Dataset[Any],
    what: str,
    device: torch.device,
    augment: Augment | None = None,
    has_task: bool = True,
) -> Images:
    """Stimuli in memory, or a map-style `torch.utils.data.Dataset` read as it is needed.

    A data set's items are (image, label) or image, images float 0…1 of one size; ids are its `ids` where it
    has them, else the index. What it draws from torch (random transforms) is a function of the draw too.
    has_task: False leaves labels out (-1 may stand for none) and draws apart from the task's images.
    Raises ValueError as `check_stimuli`.
    """
    if isinstance(data, Stimuli):
        return _InMemory(data, what, device, augment, has_task)
    if not isinstance(data, Sized):
        raise ValueError(f"{what}: expected Stimuli or a Dataset with a length, got {type(data).__name__}")
    return _FromDataset(data, what, device, augment, has_task)


class Stream:
    """Batches of labelled images in random order, a pure function of the draw. n_batches: of an epoch.

    Of several processes each reads its share of every batch, and knows which (`Stimuli.share`).
    """

    def __init__(self, images: Images, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.images, self.batch_size, self.rank, self.world_size = images, batch_size, rank, world_size
        self.n_batches = len(self._rows(np.arange(len(images.ids))))

    def batches(self, draw: Draw, first: int = 0) -> Iterator[Stimuli]:
        """The batches of the epoch that `draw` says, from number `first` on; no synchronisation with the device."""
        batches = self._rows(draw.generator("order").permutation(len(self.images.ids)))
        draws = [draw._replace(step=step, rank=self.rank) for step in range(len(batches))]
        return read_shares(self.images, batches[first:], draws[first:], self.rank, self.world_size)

    def _rows(self, order: np.ndarray) -> list[np.ndarray]:
        # A single image forms no pair and has no batch statistics.
        return split_order(order, self.batch_size, self.world_size * min(2, self.batch_size // self.world_size))


def make_stream(
    data: Stimuli | Dataset[Any],
    batch_size: int,
    device: torch.device,
    what: str,
    augment: Augment | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Stream:
    """The stream of a task's images; `data` as in `open_images`.

    Each batch of `batch_size` is shared out to `world_size` processes. Raises ValueError for fewer images than a
    batch, a batch smaller than the processes, and as `check_stimuli`.
    """
    images = open_images(data, what, device, augment)
    n_images = len(images.ids)
    if n_images < batch_size:
        raise ValueError(
            f"{what}: {n_images} images are fewer than a batch of {batch_size}; lower batch_size or give more images"
        )
    if batch_size < world_size:
        raise ValueError(
            f"{what}: a batch of {batch_size} cannot be shared by {world_size} processes; raise batch_size"
        )
    return Stream(images, batch_size, rank, world_size)


def split_order(order: np.ndarray, batch_size: int, fewest: int) -> list[np.ndarray]:
    """The rows of every batch; a last one of less than `fewest` is left out."""
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batch for batch in batches if len(batch) >= fewest]


def read_shares(
    images: Images, batches: Sequence[np.ndarray], draws: Sequence[Draw], rank: int, world_size: int
) -> Iterator[Stimuli]:
    """This process's share of every batch; a process alone reads them whole."""
    if world_size == 1:
        return images.read(batches, draws)
    read = images.read([batch[rank::world_size] for batch in batches], draws)
    return (
        stimuli._replace(share=Share(images.ids, batch, rank, world_size))
        for batch, stimuli in zip(batches, read, strict=True)
    )


class _InMemory:
    """Stimuli kept on the device where they take at most half of its free memory."""

    def __init__(self, data: Stimuli, what: str, device: torch.device, augment: Augment | None, has_task: bool) -> None:
        data = check_stimuli(data if has_task else data._replace(labels=None), what)
        data = read_stimuli(on_device(data, device))
        self.data, self.device, self.augment = data, device, augment
        self.purpose = "augment" if has_task else "augment stimuli"
        self.ids = data.ids
        self.largest_label = -1 if data.labels is None else int(data.labels.max())

    def read(self, batches: Sequence[np.ndarray], draws: Sequence[Draw]) -> Iterator[Stimuli]:
        """All rows go to the device at once."""
        if not batches:
            return
        all_rows = without_waiting(torch.from_numpy(np.concatenate(batches)), self.data.images.device)
        start = 0
        for batch, draw in zip(batches, draws, strict=True):
            rows = all_rows[start : start + len(batch)]
            start += len(batch)
            labels = None if self.data.labels is None else self.data.labels[rows]
            stimuli = Stimuli(self.data.images[rows], tuple(map(self.ids.__getitem__, batch.tolist())), labels)
            yield _augmented(stimuli.to(self.device), self.augment, draw, self.purpose)


class _FromDataset:
    """Images read as they are needed."""

    def __init__(
        self, data: Dataset[Any], what: str, device: torch.device, augment: Augment | None, has_task: bool
    ) -> None:
        assert isinstance(data, Sized)
        self.data, self.device, self.augment, self.what, self.has_task = data, device, augment, what, has_task
        self.purposes = ("reading", "augment") if has_task else ("reading stimuli", "augment stimuli")
        self.ids = tuple(str(name) for name in getattr(data, "ids", range(len(data))))
        if len(self.ids) != len(data):
            raise ValueError(f"{what}: {len(data)} images but {len(self.ids)} ids; give each image one id")
        check_unique(self.ids, what)
        self.largest_label = -1

    def read(self, batches: Sequence[np.ndarray], draws: Sequence[Draw]) -> Iterator[Stimuli]:
        """One item after the other."""
        reading, augment = self.purposes
        for rows, draw in zip(batches, draws, strict=True):
            with torch_seeded(draw.torch_seed(reading)):
                items = [self.data[row] for row in rows.tolist()]
            stimuli = _stacked(items, [self.ids[row] for row in rows], self.what, self.has_task)
            if stimuli.labels is not None:
                self.largest_label = max(self.largest_label, int(stimuli.labels.max()))
            yield _augmented(stimuli.to(self.device), self.augment, draw, augment)


def _stacked(items: Sequence[Any], ids: Sequence[str], what: str, has_task: bool) -> Stimuli:
    """Items of a data set as one batch, checked; without a task labels are not looked at."""
    pairs = [(*item, None)[:2] if isinstance(item, (tuple, list)) else (item, None) for item in items]
    images = [pair[0] for pair in pairs]
    for image, name in zip(images, ids, strict=True):
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
            got = f"{image.dtype} of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(
                f"{what}: expected items (image, label) with float images (channels, height, width) in 0…1, got {got} "
                f"as image '{name}'; add torchvision.transforms.ToTensor() to the data set"
            )
        if image.shape != images[0].shape:
            raise ValueError(
                f"{what}: image '{name}' has shape {tuple(image.shape)}, image '{ids[0]}' {tuple(images[0].shape)}; "
                "give all images one size"
            )
    labels = [label if has_task else None for _, label in pairs]
    try:
        given = None if labels[0] is None else torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{what}: expected integer labels, got {labels[0]!r} for image '{ids[0]}'") from None
    return check_stimuli(Stimuli(torch.stack(images), tuple(ids), given), what)


def _augmented(stimuli: Stimuli, augment: Augment | None, draw: Draw, purpose: str) -> Stimuli:
    if augment is None:
        return stimuli
    return stimuli._replace(images=augment(stimuli.images, draw.generator(purpose)))
