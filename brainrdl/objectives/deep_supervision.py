"""Deep supervision: classifiers on inner layers (Lee et al. 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from brainrdl.layers import as_patterns
from brainrdl.objectives.base import Stage, at_least_float32
from brainrdl.objectives.method import AlphaSettings, MethodContext
from brainrdl.randomness import Draw
from brainrdl.stimuli import Stimuli


class DeepSupervision(nn.Module):
    """A linear softmax classifier on each of the student's layers, its cross-entropy an auxiliary term.

    layers: student layers (module paths), or {layer: weight}.

    `prepare` makes the classifiers, as wide as the layers and with as many classes as the student has outputs.
    A call returns {"deep_supervision/<layer>": term}. Raises ValueError for stimuli without labels.
    """

    stream = "task"

    def __init__(self, layers: Sequence[str] | Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1.0)
        if isinstance(layers, str) or not self.weights:
            raise ValueError(f"deep supervision: expected a list of at least one student layer, got {layers!r}")
        self.layers = (*self.weights, "")
        self.classifiers = nn.ModuleList()

    def prepare(self, patterns: Mapping[str, Tensor], stimuli: Stimuli) -> None:
        """Make one classifier a layer, on the device of the patterns."""
        n_classes = patterns[""].shape[1]
        flat = [as_patterns(layer, patterns[layer], len(stimuli.ids)) for layer in self.weights]
        self.classifiers = nn.ModuleList(nn.Linear(f.shape[1], n_classes, device=f.device) for f in flat)

    def forward(
        self, patterns: Mapping[str, Tensor], stimuli: Stimuli, draw: Draw | None = None
    ) -> Mapping[str, Tensor]:
        """The classifiers' cross-entropies on this batch, each with its weight."""
        if stimuli.labels is None:
            raise ValueError("deep supervision needs labels; these stimuli have none")
        if not self.classifiers:
            raise ValueError("deep supervision has no classifiers yet; call prepare(patterns, stimuli) first")
        terms = {}
        for (layer, weight), classifier in zip(self.weights.items(), self.classifiers, strict=True):
            flat = as_patterns(layer, patterns[layer], len(stimuli.ids))
            loss = functional.cross_entropy(at_least_float32(classifier(flat)), stimuli.labels)
            terms[f"deep_supervision/{layer}"] = weight * loss
        return terms


class DeepSupervisionSettings(AlphaSettings):
    """The task and, with weight alpha, linear classifiers on inner layers.

    layers: a list of student layers (module paths), or {layer: weight}.
    """

    needs_teacher: ClassVar[bool] = False
    asks_teacher: ClassVar[bool] = False
    method: Literal["deep_supervision"] = "deep_supervision"
    layers: list[str] | dict[str, float] = Field(min_length=1)
    decay: Literal["linear", "lee", "constant"] = "lee"

    def student_layers(self) -> tuple[str, ...]:
        """The classified layers."""
        return tuple(self.layers)

    def stages(self, context: MethodContext) -> list[Stage]:
        """One stage."""
        return [context.stage(DeepSupervision(self.layers), self.alpha_schedule())]
