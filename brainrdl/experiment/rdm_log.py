"""The RDMs of a student at logged epochs, kept while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from brainrdl.analysis.rdms import join_rdms, load_rdms, save_rdms
from brainrdl.run_folder import remedy_of

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


class RDMLog:
    """A file of RDMs, those of later epochs after those of earlier ones.

    make: (network, epoch) -> its RDMs, with the descriptor `epoch`. every: how often they are kept: after every so many
    epochs, or after the epochs of a list, counted from 1.
    """

    def __init__(self, file: Path, make: Callable[[nn.Module, int], RDMs], every: int | Sequence[int]) -> None:
        self.file, self.make, self.every = file, make, every

    def evaluate(self, network: nn.Module, epoch: int) -> dict[str, float]:
        """Keep the RDMs where they are wanted; no numbers.

        As one of the trainer's evaluations it comes before the checkpoint, which so is never ahead of the RDMs.
        """
        if self._wants(epoch):
            self.keep(network, epoch)
        return {}

    def keep(self, network: nn.Module, epoch: int) -> None:
        """Add the network's RDMs, in place of what was kept of this epoch or a later one."""
        rdms = self.make(network, epoch)
        if epoch >= 0:
            rdms = join_rdms([*self._before(rdms, epoch), rdms])
        save_rdms(rdms, self.file)

    def _before(self, rdms: RDMs, epoch: int) -> list[RDMs]:
        """What is kept of earlier epochs; none where none was wanted. Raises ValueError where it is not all there."""
        wanted = {-1, *filter(self._wants, range(epoch))}
        try:
            stored = load_rdms(self.file)
            own = stored.rdm_descriptors
            for name in ("network", "seed"):
                if {*map(str, own[name])} != {*map(str, rdms.rdm_descriptors[name])}:
                    raise ValueError(f"its RDMs have {name} {own[name][0]}, expected {rdms.rdm_descriptors[name][0]}")
            missing = sorted(wanted - {*map(int, own["epoch"])})
            if missing:
                raise ValueError(f"the RDMs of epoch {missing[0]} are missing")
        except (ValueError, KeyError) as error:
            found = str(error).removeprefix(f"{self.file}: ").split(";")[0]
            raise ValueError(f"{self.file}: {found}; {remedy_of(self.file.parent)}") from None
        return [stored.subset("epoch", sorted({int(k) for k in own["epoch"] if k < epoch}))]

    def _wants(self, epoch: int) -> bool:
        if isinstance(self.every, int):
            return self.every > 0 and (epoch + 1) % self.every == 0
        return epoch + 1 in self.every
