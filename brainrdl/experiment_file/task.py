"""What the file of an experiment with a task and a network as teacher says, with every default."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from brainrdl.data import DataSettings
from brainrdl.experiment_file.reading import RawExperiment
from brainrdl.experiment_file.settings import NetworkSettings, Settings, TrainingSettings, check_names, over
from brainrdl.objectives.method import MethodSettings
from brainrdl.objectives.methods import METHODS
from brainrdl.settings import validate


class DeformedSettings(Settings):
    """The teacher's images, made from the student's training images in the manner of InfiMNIST.

    As in the paper, the first examples validate and the next ones train. Of the last three fields null scales with the
    image, as in `brainrdl.data.deformed`.

    train, validation: how many examples. source: which images are deformed; "train+validation" is the paper's way, in
    which the teacher has seen what the student is chosen on. seed: of the deformations. max_shift: largest shift, in
    pixels. displacement: of the smooth field, root mean square in pixels. smoothness: of that field, in pixels.
    """

    train: int = Field(ge=1)
    validation: int = Field(ge=1)
    source: Literal["train", "train+validation"] = "train"
    seed: int = 0
    max_shift: float | None = Field(None, ge=0, le=10_000)
    displacement: float | None = Field(None, ge=0, le=10_000)
    smoothness: float | None = Field(None, ge=0.01, le=10_000)


class TeacherSettings(NetworkSettings):
    """The teacher: weights from a file, or trained first.

    data: what it learns from, where that is another data set than the student's. deformed: it learns from deformed
    images of the student's data. training: how it is trained; null where it has weights. seed: of its training.
    """

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


class AnalysisSettings(Settings):
    """What is kept for the report.

    layers: of the student, for its RDMs. teacher_layers: of the teacher; null takes those of `layers` that it has.
    dissimilarity: of these RDMs. n_per_class: figure stimuli of each class, from the test images. every: RDMs also
    after every so many epochs, or, as a list, after these (1 = the first); 0 = only before and after training.
    test_every: test error after every so many epochs, and after the last.
    """

    layers: list[str] = Field(default_factory=list)
    teacher_layers: list[str] | None = None
    dissimilarity: Literal["euclidean", "sqeuclidean", "correlation", "cosine"] = "euclidean"
    n_per_class: int = Field(default=10, ge=2)
    every: Annotated[int, Field(ge=0)] | list[Annotated[int, Field(ge=1)]] = 0
    test_every: int = Field(default=1, ge=1)


class PublishedSettings(Settings):
    """Published results, which the report puts beside one's own; nothing that is run depends on them.

    source: where they were published. test_error_percent: label of a method, or `teacher` -> its test error
    in per cent.
    """

    source: str = Field(min_length=1)
    test_error_percent: dict[str, Annotated[float, Field(ge=0, le=100)]] = Field(min_length=1)


Values = Annotated[list[Any], Field(min_length=1)]


class SearchSettings(Settings):
    """How settings are searched by validation error, with as many trials for every method (`brainrdl run --search`).

    trials: of each method, drawn without replacement from all combinations of its values. epochs: of a trial, as a
    share of the full number; all that counts epochs (warm-ups, hint epochs, halvings) is shortened alike, but not the
    decay "lee", which is a factor an epoch. seed: of the trials' trainings, and of what is drawn. every: for every
    method, key.path of the method's settings -> values. methods: label -> the same for one method, in place of `every`
    where it has the same key; a method with no values in either is not searched. data: settings of the experiment's
    `data` that are different in the search.
    """

    trials: int = Field(8, ge=1)
    epochs: float = Field(0.25, gt=0, le=1)
    seed: int = Field(100, ge=0, lt=2**31)
    every: dict[str, Values] = Field(default_factory=dict)
    methods: dict[str, dict[str, Values]] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)

    def space(self, label: str) -> dict[str, list[Any]]:
        """The values that are tried for a method, by key.path of its settings."""
        return {**self.every, **self.methods.get(label, {})}


class Experiment(Settings):
    """A whole experiment: every method × every seed, on the same data, with the same teacher.

    name: of the experiment, and of its folder. data: the images and how they are split. student: the network that
    learns. teacher: the network that it is pulled towards; null where no method needs one. training: how the student is
    trained. methods: label -> its settings; the label is the method's name unless `method` says it. seeds: of initial
    weights, order and all that is drawn; every method is trained with each. analysis: what is kept for the report.
    published: results that the report puts beside one's own. search: where settings come from that were not known
    before; what it found stands in the other settings.
    """

    name: str
    data: DataSettings
    student: NetworkSettings
    teacher: TeacherSettings | None = None
    training: TrainingSettings
    methods: dict[str, SerializeAsAny[MethodSettings]] = Field(min_length=1)
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    analysis: AnalysisSettings = Field(default_factory=AnalysisSettings)
    published: PublishedSettings | None = None
    search: SearchSettings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        check_names(self.name, self.methods, self.seeds)
        for label, method in self.methods.items():
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
        return NetworkSettings.model_validate(over(self.student.model_dump(), self.methods[label].student))

    def training_of(self, label: str) -> TrainingSettings:
        """The training of a method, its own settings over the experiment's."""
        return TrainingSettings.model_validate(over(self.training.model_dump(), self.methods[label].training))


def task_experiment(raw: RawExperiment) -> Experiment:
    """The checked settings. Raises ValueError with file, field, what was expected and what came."""
    settings, file = dict(raw.settings), raw.file
    settings["methods"] = {label: read_method(label, given, file) for label, given in settings["methods"].items()}
    experiment = validate(Experiment, settings, file)
    for label, method in experiment.methods.items():  # the parts of settings that stand under a method
        for key, of_all, model in (
            ("training", experiment.training, TrainingSettings),
            ("student", experiment.student, NetworkSettings),
        ):
            validate(model, over(of_all.model_dump(), getattr(method, key)), file, f"methods.{label}.{key}")
    return experiment


def read_method(label: str, settings: Any, file: str) -> MethodSettings:
    """The settings of one method; its kind is `method`, or the label where that is a method's name."""
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise ValueError(f"{file}: methods.{label}: expected settings, got {settings!r}")
    kind = settings.get("method", label)
    if not isinstance(kind, str) or kind not in METHODS:
        close = get_close_matches(str(kind), METHODS, n=1)
        nearest = f"did you mean '{close[0]}'? " if close else ""
        raise ValueError(f"{file}: methods.{label}: unknown method '{kind}'; {nearest}known: {', '.join(METHODS)}")
    return validate(METHODS[kind], {**settings, "method": kind}, file, f"methods.{label}")
