"""What an experiment file says, with every default."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from brainrdl.data import DataSettings
from brainrdl.objectives.base import Optimizer, adamw, sgd
from brainrdl.objectives.method import MethodSettings
from brainrdl.objectives.methods import METHODS
from brainrdl.schedule import Schedule, constant, halving, linear_decay, warm_up
from brainrdl.settings import read_yaml, validate

_FOLDER_NAME = r"\w[\w.+-]*"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PreprocessSettings(_Settings):
    """How raw images (0…1) become a network's input; see `brainrdl.models.Preprocessing`."""

    size: tuple[int, int] | None = None
    channels: Literal[1, 3] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    global_contrast: bool = False


class NetworkSettings(_Settings):
    """network: a name as in `brainrdl.models.build_network`. arguments: of its callable. weights: a file."""

    network: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    preprocess: PreprocessSettings = Field(default_factory=PreprocessSettings)


class TrainingSettings(_Settings):
    """How a network is trained.

    schedule: of the learning rate: "linear" to zero, "halving" every `halve_every` epochs, or "constant"; reached
    over `warm_up` epochs. clip: largest norm of the gradient. keep: "last", or "best" by validation error.
    patience: stop after so many epochs without a lower validation error; null = never. precision: as in Lightning
    Fabric: "32-true", "bf16-mixed" or "16-mixed". compile: torch.compile.
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
    keep: Literal["last", "best"] = "last"
    patience: int | None = Field(None, ge=1)
    precision: str = "32-true"
    compile: bool = False

    def make_optimizer(self) -> Optimizer:
        """The optimizer that these settings say."""
        if self.optimizer == "sgd":
            return sgd(self.learning_rate, self.momentum, self.weight_decay)
        return adamw(self.learning_rate, self.weight_decay)

    def learning_rate_schedule(self) -> Schedule:
        """What the learning rate is multiplied by."""
        schedules = {"linear": linear_decay(1.0), "constant": constant(1.0), "halving": halving(1.0, self.halve_every)}
        return warm_up(schedules[self.schedule], self.warm_up) if self.warm_up else schedules[self.schedule]


class DeformedSettings(_Settings):
    """The teacher's images, made from the student's training images in the manner of InfiMNIST.

    The first `validation` examples validate, the next `train` train (as in the paper). source: which images are
    deformed; "train+validation" is the paper's way, in which the teacher has seen what the student is chosen on.
    The other fields are those of `brainrdl.data.deformed`; null takes its default.
    """

    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    source: Literal["train", "train+validation"] = "train"
    seed: int = 0
    max_shift: float | None = Field(None, ge=0)
    displacement: float | None = Field(None, ge=0)
    smoothness: float | None = Field(None, gt=0)


class TeacherSettings(NetworkSettings):
    """The teacher: weights from a file, or trained first, on `data` or on `deformed` images of the student's data."""

    data: DataSettings | None = None
    deformed: DeformedSettings | None = None
    training: TrainingSettings | None = None
    seed: int = Field(1000, ge=0)

    @model_validator(mode="after")
    def _one_origin(self) -> TeacherSettings:
        if (self.weights is None) != (self.training is not None):
            raise ValueError("a teacher needs either weights (a file) or training (to be trained first)")
        if self.data is not None and self.deformed is not None:
            raise ValueError("a teacher learns from either data or deformed, not from both")
        return self


class AnalysisSettings(_Settings):
    """What is kept for the report.

    layers: of the student, for its RDMs. teacher_layers: of the teacher; null takes those of `layers` that it has.
    n_per_class: figure stimuli of each class, from the test images. every: RDMs also after every so many epochs;
    0 = only before and after training. test_every: test error after every so many epochs, and after the last.
    """

    layers: list[str] = Field(default_factory=list)
    teacher_layers: list[str] | None = None
    dissimilarity: Literal["euclidean", "sqeuclidean", "correlation", "cosine"] = "euclidean"
    n_per_class: int = Field(default=10, ge=2)
    every: int = Field(default=0, ge=0)
    test_every: int = Field(default=1, ge=1)


class Experiment(_Settings):
    """A whole experiment: every method × every seed, on the same data, with the same teacher."""

    name: str
    data: DataSettings
    student: NetworkSettings
    teacher: TeacherSettings | None = None
    training: TrainingSettings
    methods: dict[str, SerializeAsAny[MethodSettings]] = Field(min_length=1)
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    analysis: AnalysisSettings = Field(default_factory=AnalysisSettings)

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if not re.fullmatch(_FOLDER_NAME, self.name):
            raise ValueError(f"name '{self.name}' cannot be a folder's name; use letters, digits, _ . + -")
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0 or max(self.seeds) >= 2**31:
            raise ValueError("seeds must be different numbers from 0 to 2147483647")
        for label, method in self.methods.items():
            if not re.fullmatch(_FOLDER_NAME, label) or label in ("teacher", "report"):
                raise ValueError(f"method '{label}' cannot be a folder's name; use letters, digits, _ . + -")
            training = {**self.training.model_dump(), **method.training}
            if not self.data.validation and (training["keep"] == "best" or training["patience"] is not None):
                raise ValueError(
                    f"keep 'best' and patience (method '{label}') need validation images: data.validation > 0"
                )
            if method.needs_teacher and self.teacher is None:
                raise ValueError(f"method '{label}' needs a teacher; add one, or leave the method out")
            if method.data == "deformed" and (self.teacher is None or self.teacher.deformed is None):
                raise ValueError(f"method '{label}' trains on deformed images; say how under teacher.deformed")
        return self

    def student_of(self, label: str) -> NetworkSettings:
        """The student of a method, its own settings over the experiment's."""
        return NetworkSettings.model_validate(_over(self.student.model_dump(), self.methods[label].student))

    def training_of(self, label: str) -> TrainingSettings:
        """The training of a method, its own settings over the experiment's."""
        return TrainingSettings.model_validate(_over(self.training.model_dump(), self.methods[label].training))


def built_in_experiments() -> list[str]:
    """Names of the experiments that come with the package."""
    folder = resources.files("brainrdl") / "experiments"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_experiment(
    source: str | Path, changes: Iterable[str] = (), methods: Iterable[str] = (), seeds: Iterable[int] = ()
) -> Experiment:
    """Read an experiment: a file, or the name of a built-in one.

    changes: "key.path=value" (the value as YAML), over what the file says. methods, seeds: instead of the file's;
    methods must be labels of the file. Raises ValueError with file, field, what was expected and what came.
    """
    raw, file = _read(source)
    for change in changes:
        _change(raw, change, file)
    labels = list(methods)
    of_file = raw.get("methods")
    if not isinstance(of_file, dict) or not of_file:
        raise ValueError(f"{file}: methods: expected at least one 'label: settings', got {of_file!r}")
    for label in labels:
        if label not in of_file:
            raise ValueError(f"{file}: no method '{label}'; it has: {', '.join(map(str, of_file))}")
    chosen = {str(label): of_file[label] for label in labels or of_file}
    raw["methods"] = {label: read_method(label, settings, file) for label, settings in chosen.items()}
    if seeds := list(seeds):
        raw["seeds"] = seeds
    experiment = validate(Experiment, raw, file)
    for label, method in experiment.methods.items():  # the parts of settings that stand under a method
        for key, of_all, model in (
            ("training", experiment.training, TrainingSettings),
            ("student", experiment.student, NetworkSettings),
        ):
            validate(model, _over(of_all.model_dump(), getattr(method, key)), file, f"methods.{label}.{key}")
    return experiment


def read_method(label: str, settings: Any, file: str) -> MethodSettings:
    """The settings of one method; its kind is `method`, or the label where that is a method's name."""
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise ValueError(f"{file}: methods.{label}: expected settings, got {settings!r}")
    kind = settings.get("method", label)
    if kind not in METHODS:
        close = get_close_matches(str(kind), METHODS, n=1)
        nearest = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"{file}: methods.{label}: unknown method '{kind}'; {nearest}known: {', '.join(METHODS)}")
    return validate(METHODS[kind], {**settings, "method": kind}, file, f"methods.{label}")


def _read(source: str | Path) -> tuple[dict[str, Any], str]:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return read_yaml(path), str(path)
    if str(source) not in built_in_experiments():
        raise ValueError(
            f"no experiment '{source}': expected a YAML file or one of {', '.join(built_in_experiments())}"
        )
    with resources.as_file(resources.files("brainrdl") / "experiments" / f"{source}.yaml") as file:
        return read_yaml(file), f"{source}.yaml"


def _change(raw: dict[str, Any], change: str, file: str) -> None:
    path, equals, value = change.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ValueError(f"--set {change}: expected key.path=value, such as training.epochs=5")
    place = raw
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise ValueError(f"--set {change}: '{key}' in {file} holds a value, no settings")
    try:
        place[keys[-1]] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"--set {change}: '{value}' is no YAML value; quote it") from None


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    return {**below, **above}
