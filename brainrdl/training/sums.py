"""What the steps of an epoch came to: means of the loss terms, and whether they are sound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from brainrdl.discrepancy import MIN_MEASURED
from brainrdl.training.stage import N_PAIRS, N_WRONG, TASK, is_loss

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class EpochSums:
    """Loss terms of an epoch, gathered on the device and looked at every so many steps.

    stage, epoch: for messages.
    """

    def __init__(self, stage: str, epoch: int) -> None:
        self.stage, self.epoch = stage, epoch
        self.names: list[str] = []
        self.streams: list[str] = []
        self.waiting: list[Tensor] = []
        self.sizes: list[Mapping[str, int]] = []
        self.steps: list[int] = []
        self.seen: list[Tensor] = []
        self.n_seen = 0

    def add(
        self,
        terms: Mapping[str, Tensor],
        stream_of: Mapping[str, str],
        sizes: Mapping[str, int],
        step: int | None = None,
    ) -> None:
        """Keep the terms of one step, or of a part of it.

        stream_of: term -> its stream. sizes: stream -> how many images it gave. step: of the epoch; None = the next.
        """
        self.names = self.names or list(terms)
        self.streams = self.streams or [stream_of[name.removeprefix(N_PAIRS)] for name in self.names]
        self.waiting.append(torch.stack([terms[name].detach().float() for name in self.names]))
        self.sizes.append(sizes)
        self.steps.append(len(self.steps) if step is None else step)

    def look(self) -> dict[str, float]:
        """Bring what waits to the host; the newest terms, without the numbers of pairs.

        Raises FloatingPointError for a term that is not finite, ValueError for one with too few measured pairs.
        """
        rows = torch.stack(self.waiting).cpu().double()
        finite = torch.isfinite(rows)
        if not finite.all():
            row, column = (int(k) for k in (~finite).nonzero()[0])
            self._refuse(self.names[column], float(rows[row, column]), self.steps[self.n_seen + row])
        self._check_pairs(rows)
        self.seen.append(rows)
        self.n_seen += len(rows)
        self.waiting = []
        newest = dict(zip(self.names, rows[-1].tolist(), strict=True))
        return {name: value for name, value in newest.items() if not name.startswith(N_PAIRS)}

    def check_weights(self, parameters: Sequence[Tensor]) -> None:
        """Raise FloatingPointError where the last step has left a weight that is not finite."""
        norms = torch.stack(torch._foreach_norm([p.detach() for p in parameters]))
        if not torch.isfinite(norms).all():
            self._refuse("the weights", math.nan, self.steps[-1])

    def means(self, fabric: Fabric) -> tuple[dict[str, float], int]:
        """Per term the mean over the epoch's images of every process, the error as train_error; and their number.

        A term with a number of measured pairs counts where that is not 0: the mean is over those batches, NaN where
        there are none, and so is the mean number of pairs, which follows under its own name. Raises ValueError where
        no batch of any process had a pair for an objective whose turn must have come.
        """
        rows = torch.cat(self.seen)
        totals: dict[str, float] = {}
        weights: dict[str, float] = {}
        for k, name in enumerate(self.names):
            sizes = self._sizes(self.streams[k])
            counts = N_PAIRS + name.removeprefix(N_PAIRS)
            if counts in self.names:
                sizes = sizes * (rows[:, self.names.index(counts)] > 0)
            if is_loss(name) or name == counts:
                totals[name], weights[name] = float((rows[:, k] * sizes).sum()), float(sizes.sum())
        if N_WRONG in self.names:
            totals["train_error"] = float(rows[:, self.names.index(N_WRONG)].sum())
            weights["train_error"] = float(self._sizes("task").sum())
        n_images = float(self._sizes("task" if "task" in self.sizes[0] else "stimuli").sum())
        vector = torch.tensor([n_images, *totals.values(), *weights.values()], dtype=torch.float64)
        if fabric.world_size > 1:
            reduced = fabric.all_reduce(vector, reduce_op="sum")
            assert isinstance(reduced, Tensor)
            vector = reduced
        counted = dict(zip(totals, vector[1 + len(totals) :].tolist(), strict=True))
        n_pairs = {name: size for name, size in counted.items() if name.startswith(N_PAIRS)}
        self._check_measured(n_pairs, len(set(self.steps)))
        means = vector[1 : 1 + len(totals)] / vector[1 + len(totals) :]
        return dict(zip(totals, means.tolist(), strict=True)), int(vector[0])

    def _sizes(self, stream: str) -> Tensor:
        return torch.tensor([sizes[stream] for sizes in self.sizes], dtype=torch.float64)

    def _check_pairs(self, rows: Tensor) -> None:
        for k, name in enumerate(self.names):
            too_few = (rows[:, k] > 0) & (rows[:, k] < MIN_MEASURED)
            if name.startswith(N_PAIRS) and too_few.any():
                row = int(too_few.nonzero()[0, 0])
                size, step = self.sizes[self.n_seen + row][self.streams[k]], self.steps[self.n_seen + row]
                raise ValueError(
                    f"term '{name.removeprefix(N_PAIRS)}' has {int(rows[row, k])} measured pairs in a batch of "
                    f"{size} (stream '{self.streams[k]}', stage '{self.stage}', epoch {self.epoch}, step {step}), at "
                    f"least {MIN_MEASURED} are needed: raise the batch size or pairs, leave out stimuli of which "
                    "little was measured, or show the measured ones in a stream of their own (stream='stimuli')"
                )

    def _check_measured(self, sizes: Mapping[str, float], n_steps: int) -> None:
        """Raise ValueError where an objective had no measured pair in the epoch, and would have none in any.

        sizes: n_pairs/<term> -> images of the batches with pairs. Names take turns, and no more than there are terms:
        where the epoch has fewer steps, it is enough that some term of the stream had pairs.
        """
        stream_of = dict(zip(self.names, self.streams, strict=True))
        of_group: dict[tuple[str, str], dict[str, float]] = {}
        for name, size in sizes.items():
            term, stream = name.removeprefix(N_PAIRS), stream_of[name]
            everyone_had_a_turn = n_steps >= sum(stream_of[other] == stream for other in sizes)
            group = (stream, term.partition("/")[0] if everyone_had_a_turn else "")
            of_group.setdefault(group, {})[term] = size
        for (stream, _), terms in of_group.items():
            if not any(terms.values()):
                raise ValueError(
                    f"term '{next(iter(terms))}' had no measured pair in any of the {n_steps} batches of epoch "
                    f"{self.epoch} (stream '{stream}', stage '{self.stage}'), so there was nothing to learn: raise the "
                    "batch size or pairs, or give stimuli that were measured together"
                )

    def _refuse(self, name: str, value: float, step: int) -> None:
        kind, _, layer = name.partition("/")
        where = f" at layer '{layer}'" if layer else ""
        what = "loss term" if name == TASK or layer else ""
        raise FloatingPointError(
            f"{what} {kind}{where} became {value} in stage '{self.stage}', epoch {self.epoch}, step {step}: ".lstrip()
            + "lower the learning rate or alpha, clip the gradient, or warm alpha up"
        )
