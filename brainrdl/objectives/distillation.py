"""Knowledge distillation from a teacher's outputs (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from brainrdl.models.checks import are_probabilities, exchanged_classes
from brainrdl.notes import warn_result
from brainrdl.objectives.base import Stage, at_least_float32
from brainrdl.objectives.method import AlphaSettings, MethodContext
from brainrdl.randomness import Draw
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli


class Distillation(nn.Module):
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), averaged over the stimuli.

    teacher: a network for the same classes in the same order. temperature: T > 0; T² keeps the gradient's size.

    A call returns {"distillation/output": term}. Raises ValueError where the numbers of classes differ.
    """

    layers: tuple[str, ...] = ("",)
    stream = "task"

    def __init__(self, teacher: NetworkTeacher, temperature: float = 4.0) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(f"distillation: expected a temperature > 0, got {temperature}")
        self.teacher = teacher
        self.temperature = temperature

    def prepare(self, patterns: Mapping[str, Tensor], stimuli: Stimuli) -> None:
        """Check that student and teacher have as many classes; warn where they seem to be in another order."""
        scores = self.teacher.patterns(stimuli)[""]
        student, teacher = patterns[""].shape, scores.shape
        if student != teacher or len(student) != 2:
            raise ValueError(
                f"distillation compares class scores: the student gives shape {tuple(student)}, the teacher "
                f"{tuple(teacher)}; expected (n_stimuli, n_classes) with the same classes"
            )
        if are_probabilities(scores):
            warn_result(
                "distillation: the teacher's outputs are probabilities (each image's are 0 or more and sum to 1), of "
                "which the softmax is taken once more; let it give class scores, without a softmax of its own"
            )
        exchanged = {} if stimuli.labels is None else exchanged_classes(scores, stimuli.labels)
        if len(exchanged) > 1:
            label, other = next(iter(exchanged.items()))
            warn_result(
                f"distillation: the teacher gives images of {len(exchanged)} classes another class nearly always, "
                f"those with label {label} class {other}: its classes seem to stand in another order than the "
                "labels; put them in one order"
            )

    def forward(
        self, patterns: Mapping[str, Tensor], stimuli: Stimuli, draw: Draw | None = None
    ) -> Mapping[str, Tensor]:
        """The divergence on this batch."""
        scores = at_least_float32(patterns[""])
        student = functional.log_softmax(scores / self.temperature, dim=1)
        teacher = functional.log_softmax(self.teacher.patterns(stimuli)[""].to(scores.dtype) / self.temperature, dim=1)
        divergence = functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return {"distillation/output": self.temperature**2 * divergence}


class DistillationSettings(AlphaSettings):
    """The task and, with weight alpha, the teacher's softened outputs.

    temperature: what the class scores of both are divided by.
    """

    method: Literal["distillation"] = "distillation"
    temperature: float = Field(4.0, gt=0, allow_inf_nan=False)
    decay: Literal["linear", "lee", "constant"] = "constant"

    def stages(self, context: MethodContext) -> list[Stage]:
        """One stage."""
        return [context.stage(Distillation(context.teacher("euclidean"), self.temperature), self.alpha_schedule())]
