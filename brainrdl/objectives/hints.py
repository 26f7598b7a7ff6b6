"""Hints: inner layers learn to predict a teacher's (FitNets, Romero et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from brainrdl.layers import as_patterns
from brainrdl.objectives.base import Stage, at_least_float32
from brainrdl.objectives.mapped import check_mapping
from brainrdl.objectives.method import MethodContext, MethodSettings
from brainrdl.randomness import Draw
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli


class Hints(nn.Module):
    """A linear regression from each student layer to a teacher layer; half its mean squared error is a term.

    teacher: a network (dissimilarities alone cannot be predicted unit by unit).
    layers: student layer -> teacher layer.

    Romero et al. train with hints first and with the task afterwards: two stages. The error is the mean over
    units, where they print the sum, so that its size does not grow with the layer. `prepare` makes the
    regressors. A call returns {"hints/<student layer>": term}.
    """

    stream = "task"

    def __init__(self, teacher: NetworkTeacher, layers: Mapping[str, str]) -> None:
        super().__init__()
        self.teacher = teacher
        self.mapping = check_mapping("hints", layers, teacher)
        self.layers = tuple(self.mapping)
        self.regressors = nn.ModuleList()

    def prepare(self, patterns: Mapping[str, Tensor], stimuli: Stimuli) -> None:
        """Make one regressor a layer, on the device of the patterns."""
        wanted = self.teacher.patterns(stimuli)
        regressors = []
        for layer, name in self.mapping.items():
            flat = as_patterns(layer, patterns[layer], len(stimuli.ids))
            n_wanted = as_patterns(name, wanted[name], len(stimuli.ids)).shape[1]
            regressors.append(nn.Linear(flat.shape[1], n_wanted, device=flat.device))
        self.regressors = nn.ModuleList(regressors)

    def forward(
        self, patterns: Mapping[str, Tensor], stimuli: Stimuli, draw: Draw | None = None
    ) -> Mapping[str, Tensor]:
        """Half the mean squared error of each regression on this batch."""
        if not self.regressors:
            raise ValueError("hints have no regressors yet; call prepare(patterns, stimuli) first")
        wanted = self.teacher.patterns(stimuli)
        terms = {}
        for (layer, name), regressor in zip(self.mapping.items(), self.regressors, strict=True):
            predicted = at_least_float32(regressor(as_patterns(layer, patterns[layer], len(stimuli.ids))))
            target = as_patterns(name, wanted[name], len(stimuli.ids)).to(predicted.dtype)
            terms[f"hints/{layer}"] = functional.mse_loss(predicted, target) / 2
        return terms


class HintsSettings(MethodSettings):
    """First, layers learn to predict the teacher's; then the task.

    layers: student layer -> teacher layer (module paths). hint_epochs: epochs of the first stage.
    """

    method: Literal["hints"] = "hints"
    layers: dict[str, str] = Field(min_length=1)
    hint_epochs: int = Field(ge=1)

    def student_layers(self) -> tuple[str, ...]:
        """The layers that predict."""
        return tuple(self.layers)

    def teacher_layers(self) -> tuple[str, ...]:
        """The layers that are predicted."""
        return tuple(self.layers.values())

    def stages(self, context: MethodContext) -> list[Stage]:
        """Two stages: hints without the task, the task without hints."""
        hints = Hints(context.teacher("euclidean"), self.layers)
        return [context.stage(hints, epochs=self.hint_epochs, task_weight=0.0, name="hints"), context.stage()]
