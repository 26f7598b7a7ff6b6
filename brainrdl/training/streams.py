"""Batches of an epoch: the same order for every method of one seed, on the device where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from brainrdl.randomness import Draw
from brainrdl.stimuli import Stimuli, check_stimuli, check_unique

Augment = Callable[[Tensor, np.random.Generator], Tensor]


class Stream(Protocol):
    """Batches of stimuli, a pure function of the draw."""

    n_batches: int

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
    has them, else the index. Each batch of `batch_size` is shared out to `world_size` processes. Raises
    ValueError for fewer images than a batch, and as `check_stimuli`.
    """
    if not isinstance(data, (Stimuli, Sized)):
        raise ValueError(f"{what}: expected Stimuli or a Dataset with a length, got {type(data).__name__}")
    n_stimuli = len(data.ids) if isinstance(data, Stimuli) else len(data)
    if n_stimuli < batch_size:
        raise ValueError(
            f"{what}: {n_stimuli} images are fewer than a batch of {batch_size}; lower batch_size or give more images"
        )
    if isinstance(data, Stimuli):
        return _InMemory(check_stimuli(data, what), batch_size, device, augment, rank, world_size)
    return _FromDataset(data, batch_size, device, augment, rank, world_size, what)


def _rows(n_stimuli: int, batch_size: int, draw: Draw, rank: int, world_size: int) -> list[np.ndarray]:
    """This process's rows of every batch; a last batch too small for every process is left out."""
    order = draw.generator("order").permutation(n_stimuli)
    batches = [order[start : start + batch_size] for start in range(0, n_stimuli, batch_size)]
    return [batch[rank::world_size] for batch in batches if len(batch) >= world_size]


class _InMemory:
    """Stimuli kept on the device where they take at most half of its free memory."""

    def __init__(
        self, data: Stimuli, batch_size: int, device: torch.device, augment: Augment | None, rank: int, world_size: int
    ) -> None:
        if device.type == "cuda" and data.images.nbytes * 2 < torch.cuda.mem_get_info(device)[0]:
            data = data.to(device)
        elif device.type == "mps":
            data = data.to(device)
        self.data, self.batch_size, self.device, self.augment = data, batch_size, device, augment
        self.rank, self.world_size = rank, world_size
        self.n_batches = len(_rows(len(data.ids), batch_size, Draw(0), rank, world_size))

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
        check_unique(self.ids, what)
        self.n_batches = len(_rows(len(self.ids), batch_size, Draw(0), rank, world_size))

    def batches(self, draw: Draw) -> Iterator[Stimuli]:
        """The batches of an epoch."""
        rows = _rows(len(self.ids), self.batch_size, draw, self.rank, self.world_size)
        loader: DataLoader[Any] = DataLoader(self.data, batch_sampler=[batch.tolist() for batch in rows])
        for step, (batch, items) in enumerate(zip(rows, loader, strict=True)):
            images, labels = items if isinstance(items, (tuple, list)) else (items, None)
            if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
                raise ValueError(
                    f"{self.what}: expected items (image, label) with float images (channels, height, width) in 0…1, "
                    f"got {type(images).__name__}; add torchvision.transforms.ToTensor() to the data set"
                )
            stimuli = Stimuli(images, tuple(self.ids[row] for row in batch), labels)
            if not torch.isfinite(images).all():
                check_stimuli(stimuli, self.what)
            yield _augmented(stimuli.to(self.device), self.augment, draw._replace(step=step, rank=self.rank))


def _augmented(stimuli: Stimuli, augment: Augment | None, draw: Draw) -> Stimuli:
    if augment is None:
        return stimuli
    return stimuli._replace(images=augment(stimuli.images, draw.generator("augment")))
