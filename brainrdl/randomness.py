"""Every random draw is a function of (seed, purpose, epoch, step, rank): nothing to save, nothing to lose."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch


class Draw(NamedTuple):
    """Where in a training a random number is wanted.

    seed: of the run. epoch, step: counted from 0, the epoch within its stage, the step within the epoch.
    rank: which of several processes draws; 0 where all must draw the same. stage: counted backwards, 0 the
    last, so that methods with a first stage share the draws of the main one. part: of a batch that is worked through
    in parts.
    """

    seed: int
    epoch: int = 0
    step: int = 0
    rank: int = 0
    stage: int = 0
    part: int = 0

    def generator(self, purpose: str) -> np.random.Generator:
        """A NumPy generator for `purpose` ("pairs", "order", …), independent of every other purpose's."""
        return np.random.default_rng(self._sequence(purpose))

    def torch_seed(self, purpose: str) -> int:
        """A seed for `torch.manual_seed`, for what draws from torch itself (dropout, initial weights)."""
        return int(self._sequence(purpose).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _sequence(self, purpose: str) -> np.random.SeedSequence:
        return np.random.SeedSequence(
            [self.seed, zlib.crc32(purpose.encode()), self.stage, self.epoch, self.step, self.rank]
            + [self.part] * (self.part > 0)  # the first part draws as a whole batch does
        )


@contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block; the caller's random state is back afterwards, on CPU and CUDA."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seed_torch(seed)
        yield


def seed_torch(seed: int) -> None:
    """Seed what torch draws from in this process.

    `torch.manual_seed` also queues a call, with a stack trace, for every kind of device that is not in use: some
    milliseconds, and a queue that grows with every training step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def from_torch() -> np.random.Generator:
    """A generator seeded from torch's global one, for use in one's own loop: `torch.manual_seed` governs it."""
    return np.random.default_rng(int(torch.randint(2**62, ())))
