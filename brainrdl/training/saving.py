"""When a training saves its state, and when it ends because a signal asks it to: the same in every process."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from brainrdl.interruption import Interrupted, is_asked, postponed
from brainrdl.training.checkpoint import newest_checkpoint, previous_checkpoint, save_checkpoint
from brainrdl.training.devices import check_alike

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Due(NamedTuple):
    """save: the state is to be saved. end: and then the training ends."""

    save: bool
    end: bool


class Saving:
    """The checkpoints of a training.

    path: of the newest one; None = nothing is saved. steps: within an epoch one is written every so many steps.
    minutes: and one where the last is so long ago; None = none for either.
    """

    def __init__(self, fabric: Fabric, path: Path | None, steps: int | None, minutes: float | None) -> None:
        if (steps is not None and steps < 1) or (minutes is not None and not minutes > 0):
            raise ValueError(
                f"expected checkpoint_steps >= 1 and checkpoint_minutes > 0, got checkpoint_steps={steps}, "
                f"checkpoint_minutes={minutes}; None writes checkpoints at the ends of epochs alone"
            )
        self.fabric, self.path, self.steps, self.minutes = fabric, path, steps, minutes
        self._last_is_whole = self._goes_on = False
        self._saved = time.monotonic()

    def begin(self, resume: bool) -> dict[str, Any] | None:
        """What there is to go on from, the same in every process; None where there is nothing, or not to `resume`.

        A line on stderr says where the newest checkpoint is damaged. Raises ValueError as `newest_checkpoint`, and
        where processes see different ones.
        """
        found = newest_checkpoint(self.path) if resume and self.path is not None else None
        state = None if found is None else found.state
        check_alike(self.fabric, 0 if state is None else state["epoch"], f"the epoch of checkpoint {self.path}")
        check_alike(self.fabric, 0 if state is None else state.get("step", 0), f"the step of checkpoint {self.path}")
        if found is not None and found.note and self.fabric.is_global_zero:
            print(f"note: {found.note}", file=sys.stderr)
        self._goes_on = found is not None
        self._last_is_whole = found is not None and not found.note
        self._saved = time.monotonic()
        return state

    def after_step(self, n_done: int, n_steps: int, looks: bool) -> Due:
        """What is due after `n_done` of an epoch's steps. looks: all processes are looking at their losses anyway."""
        at_step = self.steps is not None and n_done % self.steps == 0 and n_done < n_steps
        late = self.minutes is not None and time.monotonic() > self._saved + 60 * self.minutes
        end = is_asked()
        if self.fabric.world_size > 1:
            if not (looks or at_step):
                return Due(False, False)
            end, late = self._any(end, late)
        save = end or at_step or (looks and late and n_done < n_steps)
        return Due(save and self.path is not None, end)

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint, in the first process; what there was before is kept until it is there."""
        self._saved = time.monotonic()
        if self.path is None or self.fabric.global_rank != 0:
            return
        with postponed():
            if not self._goes_on:
                previous_checkpoint(self.path).unlink(missing_ok=True)  # of another training
            save_checkpoint(self.path, state, keep_last=self._last_is_whole)
            self._last_is_whole = self._goes_on = True

    def end_if_asked(self) -> None:
        """Raise Interrupted where a signal has asked any process to end."""
        if self._any(is_asked())[0]:
            self.end()

    def end(self) -> None:
        """Raise Interrupted in every process, once what was to be saved is."""
        self.fabric.barrier()
        raise Interrupted

    def _any(self, *flags: bool) -> tuple[bool, ...]:
        """Which of the flags are set in any process."""
        if self.fabric.world_size == 1:
            return flags
        here = torch.tensor(flags, dtype=torch.int64, device=self.fabric.device)
        torch.distributed.all_reduce(here, torch.distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in here.tolist())
