"""What the settings of every method have in common, and what a method is given to make its stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from brainrdl.objectives.base import Objective, Optimizer, Stage
from brainrdl.reductions import Reducer
from brainrdl.schedule import Schedule, constant, lee_decay, linear_decay, warm_up
from brainrdl.sources.network import NetworkTeacher


@dataclass(frozen=True)
class MethodContext:
    """What an experiment has for a method.

    epochs, optimizer, learning_rate: of the main stage. teacher: makes the source for a measure; it records
    every layer that the method's `teacher_layers` name. teacher_network: to copy weights from.
    """

    epochs: int
    optimizer: Optimizer
    learning_rate: Schedule
    teacher: Callable[[str], NetworkTeacher]
    teacher_network: Callable[[], nn.Module]

    def stage(
        self,
        objective: Objective | Sequence[Objective] | None = None,
        alpha: Schedule | Sequence[Schedule] | float = 1.0,
        **others: Any,
    ) -> Stage:
        """A stage with the experiment's optimizer and, unless given, its epochs."""
        others.setdefault("epochs", self.epochs)
        return Stage(objective, alpha, optimizer=self.optimizer, learning_rate=self.learning_rate, **others)


class MethodSettings(BaseModel):
    """What an experiment file can say of any method.

    method: which method; left out, the label says it. data: "train", or "deformed" for training on the teacher's
    deformed images (a control). n_train: with so many of the training images, those of the split with `data.train` as
    large; null = all of them. training: settings of the experiment's `training` that are different for this method.
    student: settings of the experiment's `student` that are different for this method.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    needs_teacher: ClassVar[bool] = True
    asks_teacher: ClassVar[bool] = True  # about images, as against its weights alone

    method: str
    data: Literal["train", "deformed"] = "train"
    n_train: int | None = Field(None, ge=1)
    training: dict[str, Any] = Field(default_factory=dict)
    student: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _images_of_one_kind(self) -> MethodSettings:
        if self.n_train is not None and self.data == "deformed":
            raise ValueError("n_train counts the student's own images; with data: deformed, leave it out")
        return self

    def teacher_layers(self) -> tuple[str, ...]:
        """The layers of the teacher that the method looks at."""
        return ()

    def student_layers(self) -> tuple[str, ...]:
        """The layers of the student that the method looks at."""
        return ()

    def reducers(self) -> list[Reducer]:
        """What makes the patterns of student layers smaller."""
        return []

    def stages(self, context: MethodContext) -> list[Stage]:
        """The stages, the last one with the task."""
        raise TypeError(f"{type(self).__name__} does not say what its stages are")


class AlphaSettings(MethodSettings):
    """Settings of a method with an auxiliary term beside the task.

    alpha: its weight at the start. decay: "linear" (the paper's for RDL), "lee" (as printed for deep
    supervision) or "constant". warm_up: over how many epochs alpha is reached.
    """

    alpha: float = Field(1.0, ge=0, le=1e9, allow_inf_nan=False)
    decay: Literal["linear", "lee", "constant"] = "linear"
    warm_up: float = Field(0.0, ge=0, allow_inf_nan=False)

    def alpha_schedule(self) -> Schedule:
        """The schedule that these settings say."""
        schedule = {"linear": linear_decay, "lee": lee_decay, "constant": constant}[self.decay](self.alpha)
        return warm_up(schedule, self.warm_up) if self.warm_up else schedule
