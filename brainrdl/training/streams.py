"""Batches of an epoch: the same order for every method of one seed, on the device where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brainrdl.randomness import Draw, torch_seeded
from brainrdl.stimuli import Stimuli, check_stimuli, check_unique

Augment = Callable[[Tensor, np.random.Generator], Tensor]


class Stream(Protocol):
    """Batches of stimuli, a pure function of the draw.

    n_batches: of an epoch. largest_label: among the stimuli read so far, -1 where none has a label.
    """

    n_batches: int
    largest_label: int

    def batches(self, draw: Draw) -> Iterator[Stimuli]:
        """The batches of the epoch that `draw` says."""
        ...


def make_stream(
    data: Stimuli | Dataset[Any],
    batch_size: int,
    device: torch.device,
    what: str,
    augment: Augment | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Stream:
    """A stream over stimuli in memory or over a map-style `torch.utils.data.Dataset`.

    A data set's items are (image, label) or image, images float 0…1 of one size; ids are its `ids` where it
    has them, else the index. What it draws from torch (random transforms) is a function of the draw too. Each
    batch of `batch_size` is shared out to `world_size` processes. Raises ValueError for fewer images than a
    batch, a batch smaller than the processes, and as `check_stimuli`.
    """
    if not isinstance(data, (Stimuli, Sized)):
        raise ValueError(f"{what}: expected Stimuli or a Dataset with a length, got {type(data).__name__}")
    n_stimuli = len(data.ids) if isinstance(data, Stimuli) else len(data)
    if n_stimuli < batch_size:
        raise ValueError(
            f"{what}: {n_stimuli} images are fewer than a batch of {batch_size}; lower batch_size or give more images"
        )
    if batch_size < world_size:
        raise ValueError(
            f"{what}: a batch of {batch_size} cannot be shared by {world_size} processes; raise batch_size"
        )
    if isinstance(data, Stimuli):
        return _InMemory(check_stimuli(data, what), batch_size, device, augment, rank, world_size)
    return _FromDataset(data, batch_size, device, augment, rank, world_size, what)


def _rows(n_stimuli: int, batch_size: int, draw: Draw, rank: int, world_size: int) -> list[np.ndarray]:
    """This process's rows of every batch.

    A last batch with less than two images for each process is left out (where others have more): a single image
    forms no pair and has no batch statistics.
    """
    order = draw.generator("order").permutation(n_stimuli)
    batches = [order[start : start + batch_size] for start in range(0, n_stimuli, batch_size)]
    fewest = world_size * min(2, batch_size // world_size)
    return [batch[rank::world_size] for batch in batches if len(batch) >= fewest]


class _InMemory:
    """Stimuli kept on the device where they take at most half of its free memory."""

    def __init__(
        self, data: Stimuli, batch_size: int, device: torch.device, augment: Augment | None, rank: int, world_size: int
    ) -> None:
        if device.type == "mps" or (
            device.type == "cuda" and data.images.nbytes * 2 < torch.cuda.mem_get_info(device)[0]
        ):
            data = data.to(device)
        self.data, self.batch_size, self.device, self.augment = data, batch_size, device, augment
        self.rank, self.world_size = rank, world_size
        self.n_batches = len(_rows(len(data.ids), batch_size, Draw(0), rank, world_size))
        self.largest_label = -1 if data.labels is None else int(data.labels.max())

    def batches(self, draw: Draw) -> Iterator[Stimuli]:
        """The batches of an epoch; no synchronisation with the device."""
        batches = _rows(len(self.data.ids), self.batch_size, draw, self.rank, self.world_size)
        on_device = torch.from_numpy(np.concatenate(batches)).to(self.data.images.device)
        start = 0
        for step, batch in enumerate(batches):
            rows = on_device[start : start + len(batch)]
            start += len(batch)
            labels = None if self.data.labels is None else self.data.labels[rows]
            stimuli = Stimuli(self.data.images[rows], tuple(self.data.ids[row] for row in batch), labels)
            yield _augmented(stimuli.to(self.device), self.augment, draw._replace(step=step, rank=self.rank))


class _FromDataset:
    """Images read as they are needed."""

    def __init__(
        self,
        data: Dataset[Any],
        batch_size: int,
        device: torch.device,
        augment: Augment | None,
        rank: int,
        world_size: int,
        what: str,
    ) -> None:
        assert isinstance(data, Sized)
        self.data, self.batch_size, self.device, self.augment = data, batch_size, device, augment
        self.rank, self.world_size, self.what = rank, world_size, what
        self.ids = tuple(str(name) for name in getattr(data, "ids", range(len(data))))
        if len(self.ids) != len(data):
            raise ValueError(f"{what}: {len(data)} images but {len(self.ids)} ids; give each image one id")
        check_unique(self.ids, what)
        self.n_batches = len(_rows(len(self.ids), batch_size, Draw(0), rank, world_size))
        self.largest_label = -1

    def batches(self, draw: Draw) -> Iterator[Stimuli]:
        """The batches of an epoch."""
        for step, rows in enumerate(_rows(len(self.ids), self.batch_size, draw, self.rank, self.world_size)):
            now = draw._replace(step=step, rank=self.rank)
            with torch_seeded(now.torch_seed("reading")):
                items = [self.data[row] for row in rows.tolist()]
            stimuli = check_stimuli(_stacked(items, [self.ids[row] for row in rows], self.what), self.what)
            if stimuli.labels is not None:
                self.largest_label = max(self.largest_label, int(stimuli.labels.max()))
            yield _augmented(stimuli.to(self.device), self.augment, now)


def _stacked(items: Sequence[Any], ids: Sequence[str], what: str) -> Stimuli:
    """Items of a data set as one batch."""
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
    labels = [label for _, label in pairs]
    try:
        given = None if labels[0] is None else torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{what}: expected integer labels, got {labels[0]!r} for image '{ids[0]}'") from None
    return Stimuli(torch.stack(images), tuple(ids), given)


def _augmented(stimuli: Stimuli, augment: Augment | None, draw: Draw) -> Stimuli:
    if augment is None:
        return stimuli
    return stimuli._replace(images=augment(stimuli.images, draw.generator("augment")))
