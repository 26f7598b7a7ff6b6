"""What the steps of an epoch came to: means of the loss terms, and whether they are sound."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
        self.sized: list[str] = []
        self.sizes: list[Mapping[str, int]] = []
        self.steps: list[int] = []
        self.seen: list[Tensor] = []
        self.n_seen = 0
        self.n_steps = 0

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
        self.sized = self.sized or list(sizes)
        self.waiting.append(torch.stack([terms[name].detach().float() for name in self.names]))
        self.sizes.append(sizes)
        self.steps.append(self.n_steps if step is None else step)
        self.n_steps = self.steps[-1] + 1

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
            self._refuse("the weights", math.nan, self.n_steps - 1)

    def state(self, fabric: Fabric) -> dict[str, Any]:
        """What was looked at so far, of every process, for a checkpoint; all of them ask for it."""
        sizes = [[of_part[stream] for stream in self.sized] for of_part in self.sizes]
        columns = [torch.cat(self.seen), torch.tensor(sizes).reshape(len(sizes), -1), torch.tensor([self.steps]).T]
        own = torch.cat([column.double() for column in columns], 1)  # (n_parts, n_terms + n_streams + 1)
        rows = [own] if fabric.world_size == 1 else _of_all(own, fabric)
        return {"names": self.names, "streams": self.streams, "sized": self.sized, "rows": rows}

    def restore(self, state: Mapping[str, Any], rank: int, world_size: int) -> None:
        """Go on from `state`: with what this process had seen, or its part of it where they were more or fewer."""
        self.names, self.streams, self.sized = (list(state[key]) for key in ("names", "streams", "sized"))
        rows: list[Tensor] = state["rows"]
        own = torch.cat([rows[0][:0], *rows[rank::world_size]])
        self.seen, self.n_seen = [own[:, : len(self.names)]], len(own)
        sizes = own[:, len(self.names) : -1].long().tolist()
        self.sizes = [dict(zip(self.sized, of_part, strict=True)) for of_part in sizes]
        self.steps = own[:, -1].long().tolist()
        self.n_steps = max(int(of_process[:, -1].max()) + 1 for of_process in rows if len(of_process))

    def means(self, fabric: Fabric) -> tuple[dict[str, float], int]:
        """Per term the mean over the epoch's images of every process, the error as train_error; and their number.

        A term with a number of measured pairs counts where that is not 0: the mean is over those batches, NaN where
        there are none, and so is the mean number of pairs, which follows under its own name. Raises ValueError where
        no batch of any process had a pair for an objective whose turn must have come.
        """
        rows = torch.cat(self.seen)
        totals: dict[str, float] = {}
        weights: dict[str, float] = {}
        column = {name: k for k, name in enumerate(self.names)}
        of_stream = {stream: self._sizes(stream) for stream in dict.fromkeys(self.streams)}
        for k, name in enumerate(self.names):
            sizes = of_stream[self.streams[k]]
            counts = N_PAIRS + name.removeprefix(N_PAIRS)
            if counts in column:
                sizes = sizes * (rows[:, column[counts]] > 0)
            if is_loss(name) or name == counts:
                totals[name], weights[name] = float((rows[:, k] * sizes).sum()), float(sizes.sum())
        if N_WRONG in column:
            totals["train_error"] = float(rows[:, column[N_WRONG]].sum())
            weights["train_error"] = float(self._sizes("task").sum())
        n_images = float(self._sizes("task" if "task" in self.sized else "stimuli").sum())
        vector = torch.tensor([n_images, *totals.values(), *weights.values()], dtype=torch.float64)
        if fabric.world_size > 1:
            reduced = fabric.all_reduce(vector, reduce_op="sum")
            assert isinstance(reduced, Tensor)
            vector = reduced
        counted = dict(zip(totals, vector[1 + len(totals) :].tolist(), strict=True))
        n_pairs = {name: size for name, size in counted.items() if name.startswith(N_PAIRS)}
        self._check_measured(n_pairs, self.n_steps)
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
        n_terms = Counter(stream_of[name] for name in sizes)
        of_group: dict[tuple[str, str], dict[str, float]] = {}
        for name, size in sizes.items():
            term, stream = name.removeprefix(N_PAIRS), stream_of[name]
            group = (stream, term.partition("/")[0] if n_steps >= n_terms[stream] else "")
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


def _of_all(own: Tensor, fabric: Fabric) -> list[Tensor]:
    """The rows of every process, which may be of different number, on the processor."""
    counts = torch.zeros(fabric.world_size, dtype=torch.int64, device=fabric.device)
    counts[fabric.global_rank] = len(own)
    torch.distributed.all_reduce(counts)
    padded = own.new_zeros(int(counts.max()), own.shape[1], device=fabric.device)
    padded[: len(own)] = own.to(fabric.device)
    gathered = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(gathered, padded)
    return [rows[:n].cpu() for rows, n in zip(gathered, counts.tolist(), strict=True)]
