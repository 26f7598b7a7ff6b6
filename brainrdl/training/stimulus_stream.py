"""Batches of stimuli that have brain data, each from what one name of the teacher covers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from brainrdl.discrepancy import MIN_MEASURED
from brainrdl.objectives.base import Objective
from brainrdl.randomness import Draw
from brainrdl.rdms import explain_missing
from brainrdl.stimuli import Stimuli
from brainrdl.training.streams import Images, read_shares, split_order


class Covered(NamedTuple):
    """names: those of the teachers with this coverage. rows: (n_covered,) rows of the images."""

    names: tuple[str, ...]
    rows: np.ndarray


class CoveredStimuli:
    """The stimulus stream: every batch is drawn from the coverage of one name, names in turn.

    Step t of a stage takes name t modulo n_names. Each name's stimuli are gone through in random order, without
    replacement, as often as is needed; names with the same coverage (a shared set of stimuli) count as one. What no
    name covers is never drawn. All of it is a function of the draw and the step. Several processes share each batch.

    objectives: those that read the stream; an objective without `covers` takes any stimulus. batch_size: where a name
    covers less, all that it covers. A last batch of less than half of that, or of 3 a process, is left out: it would
    make few pairs, and each time it is others; where all pairs are drawn across processes, 3 in all with 1 a process
    are enough. n_batches: of an epoch that this stream leads, one pass over the stimuli of the name that has most.
    Raises ValueError where a batch cannot have so many stimuli, naming ids of both sides.
    """

    def __init__(
        self,
        images: Images,
        objectives: Iterable[Objective],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        what: str = "stimuli",
    ) -> None:
        objectives = list(objectives)
        across = all(getattr(objective, "across_ranks", False) for objective in objectives)
        # 3 stimuli are 3 pairs.
        self._fewest = max(MIN_MEASURED, world_size) if across else MIN_MEASURED * world_size
        if batch_size < self._fewest:
            raise ValueError(
                f"{what}: expected a batch of at least {self._fewest} ({1 if across else 3} stimuli a process), got "
                f"{batch_size}; raise stimulus_batch_size"
            )
        self.images, self.batch_size, self.rank, self.world_size = images, batch_size, rank, world_size
        self.covered = coverage(objectives, images.ids, what, self._fewest)
        self._n_batches = [len(self._split(group.rows)) for group in self.covered]
        self.n_batches = len(self.covered) * max(self._n_batches)

    def batches(self, draw: Draw, n_steps: int | None = None, first: int = 0) -> Iterator[Stimuli]:
        """The batches of the epoch that `draw` says, from number `first` on.

        n_steps: of each epoch where another stream leads.
        """
        n_steps = n_steps or self.n_batches
        orders: dict[tuple[int, int], list[np.ndarray]] = {}
        batches = []
        for t in range(draw.epoch * n_steps, (draw.epoch + 1) * n_steps):
            position, group = divmod(t, len(self.covered))
            epoch, k = divmod(position, self._n_batches[group])
            if (group, epoch) not in orders:
                generator = draw._replace(epoch=epoch).generator(f"stimuli {group}")
                orders[group, epoch] = self._split(generator.permutation(self.covered[group].rows))
            batches.append(orders[group, epoch][k])
        draws = [draw._replace(step=k, rank=self.rank) for k in range(n_steps)]
        return read_shares(self.images, batches[first:], draws[first:], self.rank, self.world_size)

    def _split(self, order: np.ndarray) -> list[np.ndarray]:
        batch_size = min(self.batch_size, len(order))
        return split_order(order, batch_size, max(self._fewest, (batch_size + 1) // 2))


def coverage(objectives: Iterable[Objective], ids: Sequence[str], what: str, fewest: int) -> list[Covered]:
    """What the names of the objectives' teachers cover of the images, equal coverages as one.

    Raises ValueError for a name that covers less than `fewest` of them.
    """
    names: dict[bytes, list[str]] = {}
    for objective in objectives:
        for name, covered in _covers(objective, ids).items():
            mask = covered.cpu().numpy().astype(bool)
            if mask.sum() < fewest:
                raise ValueError(_too_few(objective, name, int(mask.sum()), ids, what, fewest))
            names.setdefault(mask.tobytes(), []).append(name)
    return [Covered(tuple(of_mask), np.flatnonzero(np.frombuffer(mask, bool))) for mask, of_mask in names.items()]


def _covers(objective: Objective, ids: Sequence[str]) -> Any:
    if hasattr(objective, "covers"):
        return objective.covers(ids)
    return {type(objective).__name__: torch.ones(len(ids), dtype=torch.bool)}


def _too_few(objective: Objective, name: str, n_covered: int, ids: Sequence[str], what: str, fewest: int) -> str:
    known = tuple(getattr(getattr(objective, "teacher", None), "ids", ()))
    theirs = f", the teacher's {_examples(known)}" if known else ""
    alike = explain_missing(ids, known) or "name stimuli alike in both, or give the images that were measured"
    return (
        f"{what}: the teacher's '{name}' covers {n_covered} of {len(ids)} images, expected at least {fewest}; ids of "
        f"the images are {_examples(ids)}{theirs}. {alike}"
    )


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(f"'{one}'" for one in ids[:3]) + (", …" if len(ids) > 3 else "")
