"""What experiment files of every kind say of networks and of training."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from brainrdl.objectives.base import Optimizer, adamw, sgd
from brainrdl.schedule import Schedule, constant, halving, linear_decay, warm_up
from brainrdl.settings import Side

_FOLDER_NAME = r"\w[\w.+-]*"


class Settings(BaseModel):
    """A part of an experiment file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PreprocessSettings(Settings):
    """How raw images (0…1) become a network's input, as `brainrdl.models.Preprocessing` does it; null = as they are.

    channels: 1 (grey) or 3 (colour); colour becomes grey, grey is repeated. size: (height, width) in pixels.
    global_contrast: each image minus its mean, divided by its standard deviation. mean, std: subtracted, then divided
    by; one number a channel.
    """

    size: tuple[Side, Side] | None = None
    channels: Literal[1, 3] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    global_contrast: bool = False


class NetworkSettings(Settings):
    """A network.

    network: "mnist_cnn", "nin", "small_cnn", "efficientnet_lite0", "linear_head", "torchvision:NAME", "timm:NAME", or
    "package.module:callable" (which runs code and needs --allow-code). arguments: of its callable. weights: a file
    (.safetensors, or a state dict of torch), or "pretrained" for efficientnet_lite0; null = initial weights, drawn.
    preprocess: how images become its input.
    """

    network: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    preprocess: PreprocessSettings = Field(default_factory=PreprocessSettings)


class TrainingSettings(Settings):
    """How a network is trained.

    epochs: passes through the training images; of a method with a first stage, those that come after it. batch_size:
    images a step. optimizer: "sgd" or "adamw". learning_rate: at its highest. momentum: of "sgd". weight_decay: of
    either optimizer. halve_every: epochs; of the schedule "halving". warm_up: epochs over which the learning rate is
    reached; 0 = at once.
    schedule: of the learning rate: "linear" to zero, "halving" every `halve_every` epochs, or "constant".
    clip: largest norm of the gradient; null = not clipped. accumulate: in how many parts a batch is worked through, one
    after the other, for less memory; pairs are drawn, and batch normalisation is computed, within each part.
    checkpoint_activations: parts of the network (module paths) that are computed again in backward, for less memory and
    more time; results stay the same. keep: "last", or "best" by validation error.
    patience: stop after so many epochs without a lower validation error; null = never. precision: as in Lightning
    Fabric: "32-true", "bf16-mixed" or "16-mixed". compile: torch.compile. channels_last: networks and images lie in
    memory as torch.channels_last. tf32: on CUDA, training steps multiply matrices in TensorFloat-32, as torch's
    convolutions do by default; evaluations and RDMs do not. threads: of the processor; another number rounds otherwise,
    so it is part of what determines a result. More trainings at a time use a processor better than more threads do.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(100, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(0.05, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    schedule: Literal["linear", "halving", "constant"] = "linear"
    halve_every: int = Field(25, ge=1)
    warm_up: float = Field(0.0, ge=0, allow_inf_nan=False)
    clip: float | None = Field(None, gt=0)
    accumulate: int = Field(1, ge=1)
    checkpoint_activations: list[str] = Field(default_factory=list)
    keep: Literal["last", "best"] = "last"
    patience: int | None = Field(None, ge=1)
    precision: str = "32-true"
    compile: bool = False
    channels_last: bool = False
    tf32: bool = False
    threads: int = Field(1, ge=1, le=256)

    def make_optimizer(self) -> Optimizer:
        """The optimizer that these settings say."""
        if self.optimizer == "sgd":
            return sgd(self.learning_rate, self.momentum, self.weight_decay)
        return adamw(self.learning_rate, self.weight_decay)

    def learning_rate_schedule(self) -> Schedule:
        """What the learning rate is multiplied by."""
        schedules = {"linear": linear_decay(1.0), "constant": constant(1.0), "halving": halving(1.0, self.halve_every)}
        return warm_up(schedules[self.schedule], self.warm_up) if self.warm_up else schedules[self.schedule]


def check_names(name: str, labels: Iterable[str], seeds: list[int], teachers: Iterable[str] = ()) -> None:
    """Raise ValueError where the experiment or a method cannot be a folder, or seeds are not different numbers.

    teachers: names of files.
    """
    for teacher in teachers:
        if not re.fullmatch(_FOLDER_NAME, teacher):
            raise ValueError(f"teacher '{teacher}' cannot be a file's name; use letters, digits, _ . + -")
    if not re.fullmatch(_FOLDER_NAME, name):
        raise ValueError(f"name '{name}' cannot be a folder's name; use letters, digits, _ . + -")
    if len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**31:
        raise ValueError(f"seeds: expected different numbers from 0 to {2**31 - 1}, got {seeds}")
    for label in labels:
        if not re.fullmatch(_FOLDER_NAME, label) or label in ("teacher", "report"):
            raise ValueError(f"method '{label}' cannot be a folder's name; use letters, digits, _ . + -")


def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings `above` in place of those `below` that have the same keys."""
    return {**below, **above}
