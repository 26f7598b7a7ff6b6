"""The task alone."""

from __future__ import annotations

from typing import ClassVar, Literal

from brainrdl.objectives.base import Stage
from brainrdl.objectives.method import MethodContext, MethodSettings


class BaselineSettings(MethodSettings):
    """Training on the task without any auxiliary term."""

    needs_teacher: ClassVar[bool] = False
    asks_teacher: ClassVar[bool] = False
    method: Literal["baseline"] = "baseline"

    def stages(self, context: MethodContext) -> list[Stage]:
        """One stage."""
        return [context.stage()]
