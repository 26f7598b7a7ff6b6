"""Finetuning: training on the task from the teacher's weights."""

from __future__ import annotations

from typing import ClassVar, Literal

from brainrdl.objectives.base import Stage
from brainrdl.objectives.method import MethodContext, MethodSettings


class FinetuningSettings(MethodSettings):
    """The student starts from the teacher's weights, where name and shape fit; the rest starts as in baseline."""

    asks_teacher: ClassVar[bool] = False
    method: Literal["finetuning"] = "finetuning"

    def stages(self, context: MethodContext) -> list[Stage]:
        """One stage that starts from other weights."""
        return [context.stage(initial_weights=context.teacher_network().state_dict())]
