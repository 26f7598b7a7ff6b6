"""What the file of an experiment with measured brains as teachers says, with every default."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from brainrdl.data import DataSettings
from brainrdl.experiment_file.reading import RawExperiment
from brainrdl.experiment_file.settings import NetworkSettings, Settings, TrainingSettings, check_names, over
from brainrdl.objectives.rdl import DiscrepancyName, RDLSettings
from brainrdl.settings import validate

Comparison = Literal["spearman", "rho-a", "tau-a", "corr", "cosine"]
Measure = Literal["euclidean", "sqeuclidean", "correlation", "cosine"]


class StimuliSettings(Settings):
    """The images that the networks learn from: those of a brain data spec.

    spec: a brain data spec: a built-in's name or a YAML file. categories: a column of its table; agreement is scored
    within and across its values and, as partial correlation, given them. also_within: further columns within whose
    values it is scored.
    """

    spec: str
    categories: str | None = None
    also_within: list[str] = Field(default_factory=list)


class MeasuredSettings(Settings):
    """RDMs of brains: a brain data spec that gives RDMs, or a file that `brainrdl rdms` or rsatoolbox wrote.

    spec: a brain data spec that gives RDMs. file: RDMs in HDF5; one of the two. select: rdm descriptor -> the value, or
    the values, that are wanted.
    """

    spec: str | None = None
    file: str | None = None
    select: dict[str, str | list[str]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_origin(self) -> MeasuredSettings:
        if (self.spec is None) == (self.file is None):
            raise ValueError("give either spec (a brain data spec) or file (RDMs in HDF5)")
        return self

    def same_origin(self, other: MeasuredSettings) -> bool:
        """Whether both are of the same data set or file."""
        return (self.spec, self.file) == (other.spec, other.file)


class BrainTeacherSettings(MeasuredSettings):
    """Measured RDMs as a teacher.

    average: over these rdm descriptors, as far as the RDMs have them. rescale: before averaging, as in rsatoolbox.
    name: the rdm descriptors that tell the RDMs apart, and are their names in a method's `layers`.
    weigh_by: pairs are weighed by their reliability over these descriptors; null = all alike.
    subject_folds: into so many groups the subjects are parted; each network is taught by the others' mean and scored
        on one group, which its teacher has not seen. Needed where the same subjects teach and score.
    """

    average: list[str] = Field(default_factory=lambda: ["subject", "session"])
    rescale: Literal["evidence", "setsize", "simple"] | None = None
    name: list[str] = Field(default_factory=lambda: ["roi"], min_length=1)
    weigh_by: list[str] | None = None
    subject_folds: int | None = Field(None, ge=2)


class ScoreSettings(MeasuredSettings):
    """What the networks' RDMs are compared with, subject by subject.

    images: "own", those that these subjects saw (the spec's stimuli), or "training", those of `stimuli`.
    layers: the students' layers that are scored. dissimilarity: of the students' RDMs. comparison: rsatoolbox's name of
    how RDMs are compared.
    """

    images: Literal["own", "training"] = "own"
    layers: list[str] = Field(min_length=1)
    dissimilarity: Measure = "correlation"
    comparison: Comparison = "spearman"

    @model_validator(mode="after")
    def _images_are_known(self) -> ScoreSettings:
        if self.spec is None and self.images == "own":
            raise ValueError("images 'own' are those of a spec; with file, set images: training")
        return self


class TrunkSettings(NetworkSettings):
    """A frozen network, whose activations are computed once and are the student's input.

    layer: up to which layer (module path) it goes.
    """

    layer: str


class StudentSettings(NetworkSettings):
    """The network that learns.

    trunk: what comes before it and does not learn. training: settings of the experiment's `training` that are different
    for this student.
    """

    trunk: TrunkSettings | None = None
    training: dict[str, Any] = Field(default_factory=dict)


class FoldSettings(Settings):
    """Which stimuli a network is scored on: those it has not learned from.

    n: folds of a split. splits: how many such splits. stratify: a column of the stimulus table, whose values are
    spread evenly. group: a column whose values stay together in one fold. seed: of the splits.
    """

    n: int = Field(default=5, ge=2)
    splits: int = Field(default=1, ge=1)
    stratify: str | None = None
    group: str | None = None
    seed: int = Field(default=0, ge=0)


class ChooseSettings(Settings):
    """What is chosen, for each network, by inner folds of its own training stimuli, before it is scored.

    inner: how many inner folds. epoch: when to stop, by the mean over the inner folds. grid: settings of the method
    ("alpha", "training.learning_rate") -> values to try; every combination is tried. by: agreement of the pulled layers
    with the teacher on pairs of inner held-out stimuli, "all" of them or those "within" a category.
    """

    inner: int = Field(4, ge=2)
    epoch: bool = True
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    by: Literal["all", "within"] = "all"

    @model_validator(mode="after")
    def _something_to_choose(self) -> ChooseSettings:
        if not self.epoch and not self.grid:
            raise ValueError("nothing to choose: set epoch: true or give a grid, or leave 'choose' out")
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{key}: expected at least one value to try")
            if key.split(".")[0] not in ("alpha", "training", "pairs", "discrepancy", "task_weight", "warm_up"):
                raise ValueError(f"grid.{key}: cannot be chosen; expected alpha, training.…, pairs, discrepancy, …")
        return self


class BrainTaskSettings(Settings):
    """What is learned beside, or without, the brain: one of the two.

    column: of the stimulus table, whose values are the classes. data: a data set of its own.
    """

    column: str | None = None
    data: DataSettings | None = None

    @model_validator(mode="after")
    def _one_task(self) -> BrainTaskSettings:
        if (self.column is None) == (self.data is None):
            raise ValueError("a task is either column (of the stimulus table) or data (a data set)")
        return self


class BrainMethod(RDLSettings):
    """One row of the table: what the networks learn. Nothing at all, without teacher and task_weight: untrained.

    teacher: a name of `teachers`; null = none. layers: student layer -> the teacher's name for it, or {name: weight}.
    dissimilarity: the student's measure. discrepancy: null goes by the teacher: "cosine" for unbiased (crossnobis)
    RDMs, else "correlation". control: in place of the teacher's RDMs: "shuffled" or "shuffled_within" (a column `by`)
    stimuli, a "random" RDM of the same values, a "category" model (column `by`), or the teacher's own means over
    categories, "category_means"; null = none. by: a column of the stimulus table, for the controls that need one.
    task_weight: of the task; 0 = no task. students: which of the students; null = all. choose: false: nothing is chosen
    for this method, it is trained as the file says.
    """

    layers: dict[str, str | dict[str, float]] = Field(default_factory=dict)
    dissimilarity: Measure = "correlation"
    # By the teacher: "cosine" for unbiased (crossnobis) RDMs, else "correlation".
    discrepancy: DiscrepancyName | None = None
    teacher: str | None = None
    control: Literal["shuffled", "shuffled_within", "random", "category", "category_means"] | None = None
    by: str | None = None
    task_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    students: list[str] | None = None
    choose: bool = True

    @model_validator(mode="after")
    def _whole(self) -> BrainMethod:
        if self.data != "train":
            raise ValueError("data: an experiment with stimuli has no deformed images; leave it out")
        if (self.teacher is None) != (not self.layers):
            raise ValueError("teacher and layers go together: layers says which layer is pulled towards which RDM")
        if self.control is not None and self.teacher is None:
            raise ValueError("a control takes the place of a teacher's RDMs; name the teacher, too")
        if (self.control in ("shuffled_within", "category", "category_means")) != (self.by is not None):
            raise ValueError(
                "by (a column of the stimulus table) goes with control shuffled_within, category or category_means"
            )
        return self

    @property
    def learns(self) -> bool:
        """Whether there is anything to train on."""
        return self.teacher is not None or self.task_weight > 0


class BrainExperiment(Settings):
    """Networks taught by measured brains: every method × student × seed × fold of stimuli.

    name: of the experiment, and of its folder. stimuli: the images that are learned from. students: name -> a network
    that learns. teachers: name -> measured RDMs. task: what is learned beside the brain; null = nothing. training: how
    students are trained. folds: which stimuli a network is scored on. choose: what inner folds choose; null = nothing.
    methods: label -> what is learned. score: what the networks are compared with. seeds: of initial weights, order and
    all that is drawn.
    stimulus_norm: whether batch normalisation uses its running statistics ("eval") or the batch's ("train") for stimuli
    with brain data.
    """

    name: str
    stimuli: StimuliSettings
    students: dict[str, StudentSettings] = Field(min_length=1)
    teachers: dict[str, BrainTeacherSettings] = Field(default_factory=dict)
    task: BrainTaskSettings | None = None
    training: TrainingSettings
    stimulus_norm: Literal["eval", "train"] = "eval"
    folds: FoldSettings = FoldSettings()
    choose: ChooseSettings | None = None
    methods: dict[str, BrainMethod] = Field(min_length=1)
    score: ScoreSettings
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> BrainExperiment:
        check_names(self.name, [*self.methods, *self.students], self.seeds, self.teachers)
        for label, method in self.methods.items():
            if method.teacher is not None and method.teacher not in self.teachers:
                raise ValueError(
                    f"method '{label}': no teacher '{method.teacher}'; there are: {', '.join(self.teachers) or 'none'}"
                )
            if method.task_weight > 0 and self.task is None:
                raise ValueError(f"method '{label}' has a task_weight, but the experiment has no task; add one")
            origin = None if method.teacher is None else self.teachers[method.teacher]
            if origin is not None and origin.subject_folds is not None and not origin.same_origin(self.score):
                raise ValueError(
                    f"teacher '{method.teacher}': subject_folds part the subjects that are scored, but score has other "
                    "data; leave it out"
                )
            for student in method.students or []:
                if student not in self.students:
                    raise ValueError(f"method '{label}': no student '{student}'; there are: {', '.join(self.students)}")
        return self

    def students_of(self, label: str) -> list[str]:
        """The students of a method."""
        chosen = self.methods[label].students
        return list(self.students) if chosen is None else chosen

    def student_of(self, label: str, student: str) -> StudentSettings:
        """A student, the method's own settings over its own."""
        return StudentSettings.model_validate(over(self.students[student].model_dump(), self.methods[label].student))

    def training_of(self, label: str, student: str, method: BrainMethod | None = None) -> TrainingSettings:
        """The training: the method's settings over the student's over the experiment's. method: as chosen."""
        own = (method or self.methods[label]).training
        settings = over(over(self.training.model_dump(), self.students[student].training), own)
        return TrainingSettings.model_validate(settings)


def brain_experiment(raw: RawExperiment) -> BrainExperiment:
    """The checked settings. Raises ValueError with file, field, what was expected and what came."""
    settings = dict(raw.settings)
    # A method is told by its own field before the experiment is looked at as a whole.
    settings["methods"] = {
        label: validate(BrainMethod, _mapping(given, raw.file, f"methods.{label}"), raw.file, f"methods.{label}")
        for label, given in settings["methods"].items()
    }
    experiment = validate(BrainExperiment, settings, raw.file)
    for name, student in experiment.students.items():
        below = experiment.training.model_dump()
        validate(TrainingSettings, over(below, student.training), raw.file, f"students.{name}.training")
    for label, method in experiment.methods.items():
        for name in experiment.students_of(label):
            below = over(experiment.training.model_dump(), experiment.students[name].training)
            validate(TrainingSettings, over(below, method.training), raw.file, f"methods.{label}.training")
            above = over(experiment.students[name].model_dump(), method.student)
            validate(StudentSettings, above, raw.file, f"methods.{label}.student")
    return experiment


def _mapping(given: Any, file: str, where: str) -> dict[str, Any]:
    if given is not None and not isinstance(given, dict):
        raise ValueError(f"{file}: {where}: expected settings, got {given!r}")
    return given or {}
