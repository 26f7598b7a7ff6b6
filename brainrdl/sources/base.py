"""What every teacher answers, in one form: how dissimilar are these pairs?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from brainrdl.pairs import Pairs
from brainrdl.stimuli import Stimuli, Targets


@runtime_checkable
class TeacherRDMSource(Protocol):
    """A network, a file of RDMs or measured patterns: dissimilarities by stimulus id, never by position.

    names: the RDMs it can give (layers of a network, ROIs, "sub-01/IT").
    dissimilarity: the measure its values are in, a name of `brainrdl.dissimilarity`.
    """

    names: tuple[str, ...]
    dissimilarity: str

    def covers(self, ids: Sequence[str]) -> Mapping[str, Tensor]:
        """Per name: (n_stimuli,) bool, which of the stimuli it knows anything about."""
        ...

    def targets(self, stimuli: Stimuli, pairs: Pairs) -> Mapping[str, Targets]:
        """Per name: the dissimilarities at the pairs (rows of `stimuli`), without gradient, NaN = not measured.

        On the device of the stimuli's images.
        """
        ...


def sources_in(source: object) -> Iterator[object]:
    """A source and all that it is made of: what it names under `source` (a control), or under `sources` (several)."""
    yield source
    for part in (getattr(source, "source", None), *getattr(source, "sources", ())):
        if part is not None:
            yield from sources_in(part)
