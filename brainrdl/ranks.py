"""A batch that several processes work on: each has its share, and what belongs to all of it can be gathered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Share:
    """Which part of a batch a process has: every `world_size`-th stimulus of it, from number `rank` on.

    names: ids of stimuli, rows: the batch's among them, in its order; None = all of them, in theirs.
    rank, world_size: which process, of how many.

    All processes know it without a word between them, since the order of stimuli is a function of the draw.
    """

    # No NamedTuple or dataclass: Fabric and DDP walk through those at every step, id by id.

    def __init__(self, names: Sequence[str], rows: np.ndarray | None, rank: int, world_size: int) -> None:
        self._names = names
        self._rows = np.arange(len(names)) if rows is None else rows
        self.rank, self.world_size = rank, world_size

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of the whole batch, in its order."""
        return tuple(self._names[row] for row in self._rows.tolist())

    @property
    def n_stimuli(self) -> int:
        """How many the whole batch has."""
        return len(self._rows)

    @property
    def weight(self) -> float:
        """Its size over the mean size of a share: what a mean over it counts in the mean over processes."""
        return len(self._rows[self.rank :: self.world_size]) * self.world_size / len(self._rows)

    def part(self, rows: slice) -> Share:
        """The share of a smaller batch: of these rows (a slice with a start and an end) of every process."""
        of_all = slice(rows.start * self.world_size, rows.stop * self.world_size)
        return Share(self._names, self._rows[of_all], self.rank, self.world_size)

    def gather(self, own: Tensor, rows: Tensor) -> Tensor:
        """(n_rows, …) the patterns at these rows of the whole batch, of which each process has its own, (n_own, …).

        rows: (n_rows,) int64, on the processor, sorted, each once; the same in every process. As `gather_rows`.
        """
        owners = self.owners(rows)
        picked = rows[owners == self.rank] // self.world_size
        if len(picked) < len(own):
            own = own.index_select(0, picked.to(own.device, non_blocking=own.is_cuda))
        return gather_rows(own, owners)

    def owners(self, rows: Tensor | None = None) -> Tensor:
        """(n_rows,) int64, on the processor: which process has these rows of the whole batch; None = of all."""
        return (torch.arange(self.n_stimuli) if rows is None else rows) % self.world_size


def gather_rows(own: Tensor, owners: Tensor) -> Tensor:
    """The rows of all processes, of which each gives its own: (n_rows, …) in every process.

    own: (n_own, …) those of this process, in their order. owners: (n_rows,) int64, whose turn it is at each row.
    The gradient of a process's own rows is multiplied by the number of processes and needs no communication: where all
    compute the same loss of the gathered rows, the mean over processes, which DDP takes of the parameters' gradients,
    is that loss's gradient. Raises ValueError where `own` has another number of rows than `owners` says.
    """
    rank = torch.distributed.get_rank()
    n_own = int((owners == rank).sum())
    if len(own) != n_own:
        raise ValueError(f"expected {n_own} rows of process {rank}, got {len(own)}; give each process its share")
    gathered: Tensor = _Gathered.apply(own, owners, rank, torch.distributed.get_world_size())
    return gathered


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, owners: Tensor, rank: int, world_size: int) -> Tensor:
        counts = torch.bincount(owners, minlength=world_size)
        largest = int(counts.max())
        padded = own.contiguous()
        if len(own) < largest:
            padded = torch.cat([own, own.new_zeros(largest - len(own), *own.shape[1:])])
        gathered = own.new_empty(world_size * largest, *own.shape[1:])
        gather = getattr(torch.distributed, "all_gather_single", None)  # its name since torch 2.14
        (gather or torch.distributed.all_gather_into_tensor)(gathered, padded)
        by_process = torch.argsort(owners, stable=True)
        first = counts.cumsum(0) - counts
        place = torch.empty_like(owners)
        of_row = owners[by_process]
        place[by_process] = of_row * largest + torch.arange(len(owners)) - first[of_row]
        ctx.own, ctx.world_size = torch.nonzero(owners == rank)[:, 0], world_size
        return gathered[place.to(own.device, non_blocking=own.is_cuda)]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        own = ctx.own.to(gradient.device, non_blocking=gradient.is_cuda)
        return gradient[own] * ctx.world_size, None, None, None
