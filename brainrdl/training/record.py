"""What a training tells of itself, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol


class EpochRecord(NamedTuple):
    """What one epoch came to.

    history: stage, epoch, learning_rate, task, every auxiliary term, alpha, train_error, validation_error and
    what the evaluations gave; losses are means over the epoch's images, errors fractions. train_error is
    counted while learning (dropout on). Of a measured teacher, a term's mean is over the batches with measured pairs
    and n_pairs/<term> is the mean number of pairs in those; both are NaN where no batch had any.
    timing: seconds, images_per_second (of the task where there is one).
    """

    history: dict[str, Any]
    timing: dict[str, float]


class Progress(Protocol):
    """What shows a training to a person."""

    def step(self, stage: str, epoch: int, n_epochs: int, step: int, n_steps: int, values: Mapping[str, float]) -> None:
        """Called every so many steps, with the newest loss terms."""
        ...

    def epoch(self, record: EpochRecord, n_epochs: int) -> None:
        """Called at the end of an epoch."""
        ...
