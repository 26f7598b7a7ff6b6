"""Gradient accumulation: a batch that is worked through in parts, each small enough for the memory."""

from __future__ import annotations

from typing import NamedTuple

from brainrdl.discrepancy import MIN_MEASURED
from brainrdl.randomness import Draw
from brainrdl.stimuli import Stimuli

FEWEST = {"task": 2, "stimuli": MIN_MEASURED}  # a pair; the pairs of three stimuli


class BatchPart(NamedTuple):
    """A part of a step's batches.

    task, stimuli: of the streams. draw: where the training is. is_last: of its step. fractions: stream -> how much of
    the whole batch, over all processes, it is; empty where it is all of it.
    """

    task: Stimuli | None
    stimuli: Stimuli | None
    draw: Draw
    is_last: bool
    fractions: dict[str, float]

    @property
    def batches(self) -> tuple[Stimuli | None, Stimuli | None]:
        """Task and stimuli."""
        return self.task, self.stimuli

    @property
    def sizes(self) -> dict[str, int]:
        """stream -> how many images of this process."""
        both = {"task": self.task, "stimuli": self.stimuli}
        return {stream: len(batch.ids) for stream, batch in both.items() if batch is not None}


def check_parts(n_parts: int, batch_size: int, stimulus_batch_size: int | None, world_size: int) -> None:
    """Raise ValueError where batches cannot be worked through in so many parts in each process."""
    for name, size, fewest in (
        ("batch_size", batch_size, FEWEST["task"]),
        ("stimulus_batch_size", stimulus_batch_size, FEWEST["stimuli"]),
    ):
        if (
            not isinstance(n_parts, int)
            or n_parts < 1
            or (size is not None and n_parts > max(1, size // world_size // fewest))
        ):
            processes = "1 process" if world_size == 1 else f"{world_size} processes"
            raise ValueError(
                f"accumulate: expected at least 1 part, and {fewest} of each {name} in a part of a process, got "
                f"{n_parts} parts of {size} in {processes}; lower accumulate or raise {name}"
            )


def check_shared(batch_size: int, world_size: int) -> None:
    """Raise ValueError where a batch has fewer images than there are processes."""
    if batch_size < world_size:
        raise ValueError(
            f"batch_size: a batch of {batch_size} cannot be shared by {world_size} processes; raise it, or take fewer "
            "devices"
        )


def split_batches(task: Stimuli | None, stimuli: Stimuli | None, n_parts: int, draw: Draw) -> list[BatchPart]:
    """The batches of a step in `n_parts` parts of consecutive images, as equal as can be.

    Fewer where a part would have less than 2 images, or 3 stimuli with brain data, in some process; as many in every
    process. What a part draws depends on its number.
    """
    both = {"task": task, "stimuli": stimuli}
    fewest = {stream: _n_least(batch) for stream, batch in both.items() if batch is not None}
    n_parts = max(1, min([n_parts, *(n // FEWEST[stream] for stream, n in fewest.items())]))
    if n_parts == 1:
        return [BatchPart(task, stimuli, draw, True, {})]
    parts = []
    for k in range(n_parts):
        chosen: dict[str, Stimuli | None] = {"task": None, "stimuli": None}
        fractions = {}
        for stream, batch in both.items():
            if batch is not None:
                n = fewest[stream]
                # The last part takes what a process has more than another one.
                rows = slice(k * n // n_parts, (k + 1) * n // n_parts if k + 1 < n_parts else n + 1)
                chosen[stream], fractions[stream] = _rows_of(batch, rows)
        parts.append(BatchPart(**chosen, draw=draw._replace(part=k), is_last=k + 1 == n_parts, fractions=fractions))
    return parts


def _n_least(batch: Stimuli) -> int:
    """How many images of the batch each process has at least."""
    return len(batch.ids) if batch.share is None else batch.share.n_stimuli // batch.share.world_size


def _rows_of(batch: Stimuli, rows: slice) -> tuple[Stimuli, float]:
    """Some rows of each process, and how much of the whole batch they are."""
    labels = None if batch.labels is None else batch.labels[rows]
    share = None if batch.share is None else batch.share.part(rows)
    part = Stimuli(batch.images[rows], batch.ids[rows], labels, share)
    if share is None or batch.share is None:
        return part, len(part.ids) / len(batch.ids)
    return part, share.n_stimuli / batch.share.n_stimuli
