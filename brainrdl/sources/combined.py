"""Several sources as one: subjects, regions, and weighted means over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from brainrdl.pairs import Pairs
from brainrdl.sources.base import TeacherRDMSource
from brainrdl.stimuli import Stimuli, Targets


class CombinedTeacher:
    """The names of several sources, and weighted means over some of them.

    sources: a mapping, whose keys stand before the names ("2008/IT"), or a sequence, which leaves them as they are.
    names: further names -> {member: weight > 0}, members as they are named here. With w the weight and p the
        member's own weight of the pair (an inverse variance; 1 where it has none), over the members that measured it:
        value = Σ w p v / Σ w p, and its weight, where any member has one, (Σ w p)² / Σ w² p, its inverse variance.
    scales: member -> what its values are divided by before the mean, for members in different units; others stay as
        they are. `dissimilarity` is then "rescaled", with which discrepancy 'mse' is refused.

    A combined name covers what any of its members covers; a pair that none has measured is NaN. `dissimilarity`
    is the sources' common one, `unbiased` where all of them are. Raises ValueError for clashing or unknown names,
    weights and scales that are not above 0, and sources of different measures without scales.
    """

    def __init__(
        self,
        sources: Mapping[str, TeacherRDMSource] | Sequence[TeacherRDMSource],
        names: Mapping[str, Mapping[str, float]] | None = None,
        *,
        scales: Mapping[str, float] | None = None,
    ) -> None:
        keyed = (
            [(f"{k}/", s) for k, s in sources.items()] if isinstance(sources, Mapping) else [("", s) for s in sources]
        )
        if not keyed:
            raise ValueError("no sources to combine; give at least one")
        self._sources = keyed
        self.sources = tuple(source for _, source in keyed)
        self._combined = {name: dict(members) for name, members in (names or {}).items()}
        self._scales = dict(scales or {})
        members = [prefix + name for prefix, source in keyed for name in source.names]
        self.names = (*members, *self._combined)
        twice = [name for name, n in Counter(self.names).items() if n > 1]
        if twice:
            raise ValueError(
                f"the name '{twice[0]}' occurs twice; give the sources as a mapping, whose keys stand before names"
            )
        known = dict.fromkeys(members)
        for name, weights in self._combined.items():
            _check_positive(weights, known, f"combined name '{name}'")
            if not weights:
                raise ValueError(f"combined name '{name}' has no members; it may have: {', '.join(members)}")
        _check_positive(self._scales, known, "scales")
        measures = sorted({source.dissimilarity for _, source in keyed})
        if len(measures) > 1 and not scales:
            raise ValueError(
                f"the sources are in different measures: {', '.join(measures)}; combine sources of one measure, or "
                "give scales"
            )
        self.dissimilarity = "rescaled" if scales else measures[0]
        told = [getattr(source, "unbiased", None) for _, source in keyed]
        if any(unbiased is not None for unbiased in told):  # networks alone have no such property, and nor have they
            self.unbiased = all(told)

    def covers(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        """As the sources; a combined name covers what any of its members covers."""
        covered = {
            prefix + name: known for prefix, source in self._sources for name, known in source.covers(ids).items()
        }
        for name, members in self._combined.items():
            covered[name] = torch.stack([covered[member] for member in members]).any(0)
        return covered

    def targets(self, stimuli: Stimuli, pairs: Pairs) -> Mapping[str, Targets]:
        """As the sources; for combined names the weighted mean over the members that measured the pair."""
        targets = {
            prefix + name: target
            for prefix, source in self._sources
            for name, target in source.targets(stimuli, pairs).items()
        }
        for name, members in self._combined.items():
            targets[name] = self._mean({member: targets[member] for member in members}, members)
        return targets

    def _mean(self, targets: Mapping[str, Targets], weights: Mapping[str, float]) -> Targets:
        values = torch.stack([target.values / self._scales.get(m, 1.0) for m, target in targets.items()])
        # A precision has the unit of one over the square of the values.
        precision = torch.stack(
            [torch.ones_like(v) if w is None else w * self._scales.get(m, 1.0) ** 2 for m, (v, w) in targets.items()]
        )
        missing = values.isnan()
        precision = precision.masked_fill(missing, 0)
        weight = values.new_tensor([weights[member] for member in targets])[:, None]
        total = (weight * precision).sum(0)  # (n_pairs,)
        mean = (weight * precision * values.masked_fill(missing, 0)).sum(0) / total  # 0 / 0 where none measured it
        if all(target.weights is None for target in targets.values()):
            return Targets(mean)
        variance = (weight.square() * precision).sum(0) / total.square()
        return Targets(mean, (1 / variance).masked_fill(total == 0, 0))


def _check_positive(numbers: Mapping[str, float], members: Collection[str], what: str) -> None:
    for member, number in numbers.items():
        if member not in members:
            raise ValueError(f"{what}: no source has '{member}'; they have: {', '.join(members)}")
        if not 0 < number < float("inf"):
            raise ValueError(f"{what}: expected a number above 0 for '{member}', got {number}")
