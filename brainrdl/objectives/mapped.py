"""What objectives share that compare each of some student layers with a teacher's layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from brainrdl.layers import as_patterns
from brainrdl.objectives.base import at_least_float32
from brainrdl.objectives.method import AlphaSettings
from brainrdl.randomness import Draw
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli


def check_mapping(what: str, layers: Mapping[str, str], teacher: NetworkTeacher) -> dict[str, str]:
    """Return student layer -> teacher layer, or raise ValueError where it is empty or the teacher lacks a layer.

    what: the objective, for the message.
    """
    if not layers:
        raise ValueError(f"{what}: map at least one student layer to a teacher layer")
    for layer, name in layers.items():
        if name not in teacher.names:
            raise ValueError(
                f"student layer '{layer}' is mapped to '{name}', which the teacher does not record; "
                f"it has: {', '.join(teacher.names)}"
            )
    return dict(layers)


class MappedObjective(nn.Module):
    """Terms that compare a student layer's patterns of a whole batch with a teacher layer's, of any width.

    A kind of it says its name, which the terms begin with, and what `compare` gives. There are no parameters, and in
    one's own loop no `prepare` is needed.
    """

    name: ClassVar[str]
    min_stimuli: int = 2  # of which there is something to compare
    stream = "task"

    def __init__(self, teacher: NetworkTeacher, layers: Mapping[str, str]) -> None:
        super().__init__()
        self.teacher = teacher
        self.mapping = check_mapping(self.name, layers, teacher)
        self.layers = tuple(self.mapping)

    def compare(self, student: Tensor, teacher: Tensor) -> Mapping[str, Tensor]:
        """What follows "<name>/<layer>" in a term's name -> its value, a scalar.

        student, teacher: (n_stimuli, n_units) in the same precision, float32 or better; each has its own n_units.
        """
        raise TypeError(f"{type(self).__name__} does not say how patterns are compared")

    def prepare(self, patterns: Mapping[str, Tensor], stimuli: Stimuli) -> None:
        """Check that the layers can be compared and that a full batch has enough stimuli for it."""
        self._both(patterns, stimuli)
        if len(stimuli.ids) < self.min_stimuli:
            raise ValueError(
                f"{self.name} needs batches of at least {self.min_stimuli} stimuli, got {len(stimuli.ids)}; "
                "raise the batch size"
            )

    def forward(
        self, patterns: Mapping[str, Tensor], stimuli: Stimuli, draw: Draw | None = None
    ) -> Mapping[str, Tensor]:
        """The terms of this batch."""
        return {
            f"{self.name}/{layer or 'output'}{part}": term
            for layer, (student, teacher) in self._both(patterns, stimuli).items()
            for part, term in self.compare(student, teacher).items()
        }

    def _both(self, patterns: Mapping[str, Tensor], stimuli: Stimuli) -> dict[str, tuple[Tensor, Tensor]]:
        n_stimuli, wanted = len(stimuli.ids), self.teacher.patterns(stimuli)
        both = {}
        for layer, name in self.mapping.items():
            student = at_least_float32(as_patterns(layer, patterns[layer], n_stimuli))
            both[layer] = student, as_patterns(name, wanted[name], n_stimuli).to(student.dtype)
        return both


class MappedSettings(AlphaSettings):
    """Settings of a method that compares student layers with teacher layers.

    layers: student layer -> teacher layer (module paths).
    """

    layers: dict[str, str] = Field(min_length=1)
    decay: Literal["linear", "lee", "constant"] = "constant"

    def student_layers(self) -> tuple[str, ...]:
        """The layers that are compared."""
        return tuple(self.layers)

    def teacher_layers(self) -> tuple[str, ...]:
        """The layers they are compared with."""
        return tuple(self.layers.values())


def centred(patterns: Tensor) -> Tensor:
    """The patterns without their mean over stimuli, (n_stimuli, n_units).

    Subtracting the first one before the mean makes equal patterns exactly zero, whatever their size.
    """
    shifted = patterns - patterns[:1].detach()  # what is the same for all stimuli cancels, and so does its gradient
    return shifted - shifted.mean(0)
