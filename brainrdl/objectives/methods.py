"""The table of methods: a name in an experiment file, and the settings that go with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from brainrdl.objectives.base import Stage
from brainrdl.objectives.baseline import BaselineSettings
from brainrdl.objectives.cka import LinearCKASettings
from brainrdl.objectives.deep_supervision import DeepSupervisionSettings
from brainrdl.objectives.distillation import DistillationSettings
from brainrdl.objectives.finetuning import FinetuningSettings
from brainrdl.objectives.hints import HintsSettings
from brainrdl.objectives.method import MethodContext, MethodSettings
from brainrdl.objectives.rdl import RDLSettings
from brainrdl.objectives.rkd import RelationalDistillationSettings
from brainrdl.objectives.similarity_preserving import SimilarityPreservingSettings
from brainrdl.reductions import Reducer

Part = Annotated[
    BaselineSettings
    | FinetuningSettings
    | DeepSupervisionSettings
    | HintsSettings
    | DistillationSettings
    | RelationalDistillationSettings
    | SimilarityPreservingSettings
    | LinearCKASettings
    | RDLSettings,
    Field(discriminator="method"),
]


class CombinedSettings(MethodSettings):
    """Several methods in one training: first stages one after the other, then the task with every auxiliary term.

    parts: the methods, each with its name under `method` and its settings.
    With finetuning among them, the first of all stages starts from the teacher's weights.
    """

    method: Literal["combined"] = "combined"
    parts: list[Part] = Field(min_length=2)

    @model_validator(mode="after")
    def _one_training(self) -> CombinedSettings:
        for part in self.parts:
            for key in ("data", "n_train", "training", "student"):
                if getattr(part, key) != MethodSettings.model_fields[key].get_default(call_default_factory=True):
                    raise ValueError(
                        f"'{key}' stands in part '{part.method}', but the parts are one training; set it beside parts"
                    )
        return self

    def student_layers(self) -> tuple[str, ...]:
        """The layers of every part."""
        return tuple(layer for part in self.parts for layer in part.student_layers())

    def teacher_layers(self) -> tuple[str, ...]:
        """The layers of every part."""
        return tuple(layer for part in self.parts for layer in part.teacher_layers())

    def reducers(self) -> list[Reducer]:
        """Those of every part."""
        return [reducer for part in self.parts for reducer in part.reducers()]

    def stages(self, context: MethodContext) -> list[Stage]:
        """Every part's first stages, in order, then one main stage."""
        of_parts = [part.stages(context) for part in self.parts]
        last = [stages[-1] for stages in of_parts]
        weights = [stage.initial_weights for stage in last if stage.initial_weights is not None]
        main = context.stage(
            [objective for stage in last for objective in stage.objectives],
            [alpha for stage in last for alpha in stage.alphas],
        )
        first, *others = [*(stage for stages in of_parts for stage in stages[:-1]), main]
        return [replace(first, initial_weights=weights[0] if weights else None), *others]


METHODS: dict[str, type[MethodSettings]] = {
    "baseline": BaselineSettings,
    "finetuning": FinetuningSettings,
    "deep_supervision": DeepSupervisionSettings,
    "hints": HintsSettings,
    "distillation": DistillationSettings,
    "rkd": RelationalDistillationSettings,
    "similarity_preserving": SimilarityPreservingSettings,
    "cka": LinearCKASettings,
    "rdl": RDLSettings,
    "combined": CombinedSettings,
}
