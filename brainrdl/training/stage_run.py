"""A stage that is being run, and how far its epoch is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from brainrdl.objectives.base import Stage
from brainrdl.stimuli import Stimuli
from brainrdl.training.stage import StageModule
from brainrdl.training.stimulus_stream import CoveredStimuli, coverage
from brainrdl.training.streams import Augment, Stream, make_stream, open_images
from brainrdl.training.sums import EpochSums


class StageStreams(NamedTuple):
    """What a stage reads: the task's images, stimuli with brain data; None where it does not."""

    task: Stream | None
    stimuli: CoveredStimuli | None

    @property
    def n_steps(self) -> int:
        """Of an epoch."""
        leading = self.task or self.stimuli
        assert leading is not None
        return leading.n_batches


@dataclass(frozen=True)
class StageRun:
    """A stage that is set up.

    index: which. first: the number of its first epoch. wrapped, fabric_optimizer: as Fabric has them.
    """

    stage: Stage
    index: int
    first: int
    module: StageModule
    wrapped: Any
    optimizer: torch.optim.Optimizer
    fabric_optimizer: Any
    streams: StageStreams


class Epoch(NamedTuple):
    """How far an epoch is: what its steps came to, how many are done, and seconds."""

    sums: EpochSums
    n_done: int
    seconds: float


def open_streams(
    stages: Sequence[Stage],
    task: Stimuli | Dataset[Any] | None,
    stimuli: Stimuli | Dataset[Any] | None,
    batch_size: int,
    stimulus_batch_size: int,
    augment: Augment | None,
    device: torch.device,
    rank: int,
    world_size: int,
) -> list[StageStreams]:
    """What each stage reads, checked against what its teachers cover."""
    of_task = of_stimuli = None
    if task is not None:
        of_task = make_stream(task, batch_size, device, "training images", augment, rank, world_size)
    if stimuli is not None:
        of_stimuli = open_images(stimuli, "stimuli", device, augment, has_task=False)
    streams = []
    for stage in stages:
        reading = {stream: [o for o in stage.objectives if o.stream == stream] for stream in ("task", "stimuli")}
        if of_task is not None:
            coverage(reading["task"], of_task.images.ids, "training images", fewest=1)
        shown = None
        if of_stimuli is not None and reading["stimuli"]:
            shown = CoveredStimuli(of_stimuli, reading["stimuli"], stimulus_batch_size, rank, world_size)
        streams.append(StageStreams(of_task if stage.task_weight != 0 or reading["task"] else None, shown))
    return streams
