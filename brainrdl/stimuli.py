"""What everyone passes around: a batch of stimuli, and the dissimilarities asked of a teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from brainrdl.ranks import Share


class Stimuli(NamedTuple):
    """Images with their identity, raw until they meet a network.

    images: (n_stimuli, channels, height, width), float, 0…1.
    ids: which stimulus each row is; stable across runs, files and machines.
    labels: (n_stimuli,) int64 class index; None where the stimuli have no task.
    share: of a batch that several processes share, which part of it this is; else None.
    """

    images: Tensor
    ids: tuple[str, ...]
    labels: Tensor | None = None
    share: Share | None = None

    def subset(self, rows: Tensor) -> Stimuli:
        """The stimuli at `rows` (int64 indices), in that order."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        on_device = without_waiting(rows, self.images.device)
        labels = None if self.labels is None else self.labels[on_device]
        return Stimuli(self.images[on_device], ids, labels)

    def to(self, device: torch.device | str) -> Stimuli:
        """The same stimuli with images and labels on `device`."""
        labels = None if self.labels is None else without_waiting(self.labels, device)
        return Stimuli(without_waiting(self.images, device), self.ids, labels, self.share)


class StoredStimuli(Protocol):
    """Stimuli whose images are read when they are needed, such as `brainrdl.data.ImageFiles`."""

    ids: tuple[str, ...]
    labels: Tensor

    def subset(self, rows: Tensor) -> StoredStimuli:
        """The stimuli at `rows`; nothing is read."""
        ...

    def read(self) -> Stimuli:
        """All of them in memory."""
        ...


def without_waiting(values: Tensor, device: torch.device | str) -> Tensor:
    """Numbers made on the processor, on `device`: the copy to CUDA waits in its queue, the program goes on.

    CUDA has read ordinary memory when the call returns, so the values may be changed or forgotten afterwards.
    """
    return values.to(device, non_blocking=torch.device(device).type == "cuda")


def read_stimuli(stimuli: Stimuli | StoredStimuli) -> Stimuli:
    """The stimuli in memory."""
    return stimuli if isinstance(stimuli, Stimuli) else stimuli.read()


def in_batches(stimuli: Stimuli | StoredStimuli, batch_size: int) -> Iterator[Stimuli]:
    """The stimuli in their order, `batch_size` at a time."""
    n_stimuli = len(stimuli.ids)
    for start in range(0, n_stimuli, batch_size):
        yield read_stimuli(stimuli.subset(torch.arange(start, min(start + batch_size, n_stimuli))))


class Targets(NamedTuple):
    """A teacher's dissimilarities at the asked pairs.

    values: (n_pairs,) dissimilarities; NaN = not measured; may be negative (crossnobis).
    weights: (n_pairs,) reliability, >= 0; None = all alike. A pair of weight 0 takes no part.
    """

    values: Tensor
    weights: Tensor | None = None


def check_stimuli(stimuli: Stimuli, what: str) -> Stimuli:
    """Return `stimuli` unchanged, or raise ValueError naming `what` and what is wrong with it.

    Checked: four-dimensional float images, as many ids (text, all different) and labels as images, no
    image with NaN or infinite values, no negative label.
    """
    images, ids, labels, _ = stimuli
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"{what}: expected float images of shape (n_stimuli, channels, height, width), "
            f"got {images.dtype} of shape {tuple(images.shape)}"
        )
    if len(ids) != len(images):
        raise ValueError(f"{what}: {len(images)} images but {len(ids)} ids; give each image one id")
    for one in ids:
        if not isinstance(one, str):
            raise ValueError(f"{what}: expected stimulus ids as text, got {one!r}; use str(...)")
    check_unique(ids, what)
    finite = torch.isfinite(images).flatten(1).all(1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise ValueError(
            f"{what}: {int((~finite).sum())} of {len(images)} images hold NaN or infinite values, "
            f"the first is '{ids[first]}'; repair or leave out these images"
        )
    if labels is not None:
        if labels.shape != (len(images),) or labels.is_floating_point():
            raise ValueError(
                f"{what}: expected one integer label an image, got {labels.dtype} of shape {tuple(labels.shape)} "
                f"for {len(images)} images"
            )
        if len(labels) and int(labels.min()) < 0:
            raise ValueError(f"{what}: a label is negative ({int(labels.min())}); classes are counted from 0")
    return stimuli


def check_unique(ids: Sequence[str], what: str) -> None:
    """Raise ValueError where an id stands twice: values are looked up by id, never by position."""
    if len(set(ids)) != len(ids):
        repeated, count = Counter(ids).most_common(1)[0]
        raise ValueError(f"{what}: stimulus id '{repeated}' occurs {count} times; ids must be different")
