"""What an experiment with brains as teachers is made of: stimuli, measured RDMs, folds, and what a network is shown."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from brainrdl.data import DataSplits, data_root, load_data
from brainrdl.data.folds import Fold, stimulus_folds, subject_folds
from brainrdl.data.stimulus_set import StimulusSet
from brainrdl.experiment.common import build_seeded, make_preprocessing
from brainrdl.experiment.same_images import same_images
from brainrdl.experiment_file.brain import (
    BrainExperiment,
    BrainMethod,
    BrainTeacherSettings,
    MeasuredSettings,
    StudentSettings,
)
from brainrdl.fmri.read import read_rdms, read_stimuli
from brainrdl.fmri.spec import load_brain_spec
from brainrdl.models import Preprocessing
from brainrdl.models.trunk import Trunk, cached
from brainrdl.rdms import average_rdms, explain_missing, load_rdms, select_rdms, stimulus_ids, subset_stimuli
from brainrdl.sources import MeasuredRDMs, TeacherRDMSource
from brainrdl.sources.controls import make_control
from brainrdl.sources.weights import reliability_weights
from brainrdl.stimuli import Stimuli, StoredStimuli
from brainrdl.training.devices import torch_threads

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


class BrainFold(NamedTuple):
    """One network's stimuli and, where the same subjects teach and score, subjects.

    trained, held_out: stimulus ids. taught_by, scored_on: subjects; None = all there are.
    """

    split: int
    fold: int
    group: int | None
    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    taught_by: tuple[str, ...] | None = None
    scored_on: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """As a folder is called."""
        return f"split-{self.split}_fold-{self.fold}" + ("" if self.group is None else f"_subjects-{self.group}")


class BrainData:
    """The data of an experiment, each part read when it is first needed.

    Raises ValueError where specs, columns, RDMs and stimuli do not go together.
    """

    def __init__(self, experiment: BrainExperiment, allow_code: bool = False) -> None:
        self.experiment, self.allow_code = experiment, allow_code
        self._shown: dict[str, Stimuli] = {}
        self._measured: dict[str, RDMs] = {}

    @cached_property
    def stimuli(self) -> StimulusSet:
        """The images that networks learn from."""
        return read_stimuli(self.experiment.stimuli.spec)

    @cached_property
    def scored_stimuli(self) -> StimulusSet:
        """The images on which their RDMs are compared with the brains'."""
        score = self.experiment.score
        if score.images == "training":
            return self.stimuli
        assert score.spec is not None
        return read_stimuli(score.spec)

    @cached_property
    def categories(self) -> Mapping[str, str] | None:
        """id -> category; None where the experiment names no column."""
        column = self.experiment.stimuli.categories
        return None if column is None else self.column(column)

    def column(self, name: str) -> dict[str, str]:
        """id -> what stands in a column of the stimulus table."""
        table = self.stimuli.table
        if name not in table:
            raise ValueError(
                f"the stimuli of '{self.experiment.stimuli.spec}' have no column '{name}'; they have: "
                f"{', '.join(map(str, table))}"
            )
        return {str(stimulus): str(value) for stimulus, value in table[name].items()}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the task's classes where it is a column of the stimulus table."""
        task = self.experiment.task
        assert task is not None and task.column is not None
        return tuple(sorted(set(self.column(task.column).values())))

    @cached_property
    def task_data(self) -> DataSplits:
        """The task's images where it is a data set."""
        assert self.experiment.task is not None and self.experiment.task.data is not None
        return load_data(self.experiment.task.data)

    @cached_property
    def brain(self) -> RDMs:
        """The RDMs that networks are scored against: subject × roi."""
        rdms = measured_rdms(self.experiment.score, "score")
        for descriptor in ("subject", "roi"):
            if descriptor not in rdms.rdm_descriptors:
                known = ", ".join(name for name in rdms.rdm_descriptors if name != "index") or "none"
                raise ValueError(f"score: its RDMs have no descriptor '{descriptor}'; they have: {known}; add it")
        return average_rdms(rdms, over="session") if "session" in rdms.rdm_descriptors else rdms

    def teacher_rdms(self, name: str, fold: BrainFold | None = None) -> RDMs:
        """What a teacher averages: its RDMs of all subjects, or of those that teach in a fold."""
        if name not in self._measured:
            self._measured[name] = measured_rdms(self.experiment.teachers[name], f"teachers.{name}")
        rdms = self._measured[name]
        if fold is not None and fold.taught_by is not None:
            rdms = select_rdms(rdms, subject=list(fold.taught_by))
        return rdms

    def teacher(self, method: BrainMethod, fold: BrainFold, seed: int) -> TeacherRDMSource:
        """The source a method learns from in a fold: measured, or the control in its place."""
        assert method.teacher is not None
        settings = self.experiment.teachers[method.teacher]
        rdms = self.teacher_rdms(method.teacher, fold)
        # Nothing that is computed over pairs (weights, scales, means) may see what is held out.
        known = set(stimulus_ids(rdms))
        rdms = subset_stimuli(rdms, [stimulus for stimulus in fold.trained if stimulus in known])
        source: TeacherRDMSource = averaged_teacher(settings, rdms)
        if method.control is not None:
            categories = None if method.by is None else self.column(method.by)
            source = make_control(method.control, source, fold.trained, categories, seed)
        return source

    @cached_property
    def stimulus_splits(self) -> list[tuple[Fold, ...]]:
        """The folds of each split."""
        settings = self.experiment.folds
        ids = self.stimuli.images.ids
        groups = None if settings.group is None else self.column(settings.group)
        stratify = None if settings.stratify is None else self.column(settings.stratify)
        seeds = range(settings.seed, settings.seed + settings.splits)
        return [stimulus_folds(ids, settings.n, seed, groups, stratify) for seed in seeds]

    def folds(self, label: str) -> list[BrainFold]:
        """The folds of a method: of the stimuli and, where its teacher has any, of the subjects."""
        teacher = self.experiment.methods[label].teacher
        n_groups = None if teacher is None else self.experiment.teachers[teacher].subject_folds
        groups: Sequence[Fold | None] = [None]
        if teacher is not None and n_groups is not None:
            subjects = list(dict.fromkeys(map(str, self.teacher_rdms(teacher).rdm_descriptors["subject"])))
            try:
                groups = subject_folds(subjects, n_groups, self.experiment.folds.seed)
            except ValueError as error:
                raise ValueError(f"teachers.{teacher}.subject_folds: {error}") from None
        return [
            BrainFold(
                split,
                number,
                None if group is None else k,
                fold.trained,
                fold.held_out,
                None if group is None else group.trained,
                None if group is None else group.held_out,
            )
            for split, folds in enumerate(self.stimulus_splits)
            for number, fold in enumerate(folds)
            for k, group in enumerate(groups)
        ]

    # -- what networks are shown -----------------------------------------------------------------------------

    def shown(self, student: StudentSettings, stimuli: StoredStimuli | Stimuli, what: str) -> Stimuli:
        """The images as a student gets them: as they are, or the activations of its trunk, computed once."""
        trunk = student.trunk
        key = what if trunk is None else f"{what} {trunk.model_dump_json()}"
        if key not in self._shown:
            if trunk is None:
                self._shown[key] = stimuli if isinstance(stimuli, Stimuli) else stimuli.read()
            else:
                network = Trunk(build_seeded(trunk, 0, self.allow_code), trunk.layer)
                # Whoever asks first, alone or beside others, the same numbers are computed.
                with torch_threads(self.experiment.training.threads):
                    self._shown[key] = cached(network, stimuli, make_preprocessing(trunk))
        return self._shown[key]

    def training_images(self, student: StudentSettings) -> Stimuli:
        """All stimuli, as the student gets them; their labels the task's classes where it is a column, else none."""
        task = self.experiment.task
        shown = self.shown(student, self.stimuli.images, "training")
        labels = None
        if task is not None and task.column is not None:
            of = self.column(task.column)
            labels = torch.tensor([self.classes.index(of[stimulus]) for stimulus in shown.ids])
        return shown._replace(labels=labels)

    def scored_images(self, student: StudentSettings) -> Stimuli:
        """The images of the scored brains, as the student gets them."""
        own = self.experiment.score.images == "own"
        shown = self.shown(student, self.scored_stimuli.images, "scored" if own else "training")
        return shown._replace(labels=None)

    def preprocessing(self, student: StudentSettings) -> Preprocessing:
        """From what the student is shown to its input."""
        return make_preprocessing(student)

    # -- whether it all goes together ----------------------------------------------------------------------

    def check(self) -> None:
        """Raise ValueError where stimuli, teachers and scores do not meet by id."""
        ids = self.stimuli.images.ids
        for name, settings in self.experiment.teachers.items():
            self._check_meet(ids, stimulus_ids(self.teacher_rdms(name)), f"teacher '{name}'")
            if settings.subject_folds is not None and "subject" not in self.teacher_rdms(name).rdm_descriptors:
                raise ValueError(f"teacher '{name}': subject_folds needs RDMs with the descriptor 'subject'")
            averaged_teacher(settings, self.teacher_rdms(name))
            self._check_subjects(name, settings)
        self._check_meet(ids, stimulus_ids(self.brain), "score")
        self._check_meet(self.scored_stimuli.images.ids, stimulus_ids(self.brain), "score (its images)")
        for label, method in self.experiment.methods.items():
            self._check_layers(label, method)
            if method.by is not None:
                self.column(method.by)
        for column in (self.experiment.stimuli.categories, *self.experiment.stimuli.also_within):
            if column is not None:
                self.column(column)
        self._check_folds()

    def notes(self) -> list[str]:
        """What is no mistake but should be known: stimuli that take no part, images that a network has seen before."""
        told = []
        sets = {f"teacher '{name}'": stimulus_ids(self.teacher_rdms(name)) for name in self.experiment.teachers}
        shown = set(self.stimuli.images.ids)
        for what, ids in {**sets, "score": stimulus_ids(self.brain)}.items():
            known = set(ids)
            without_image = [one for one in ids if one not in shown]
            not_measured = [one for one in self.stimuli.images.ids if one not in known]
            hint = explain_missing(without_image, not_measured)
            for missing, words in (
                (without_image, "measured stimuli have no image among those shown"),
                (not_measured, "images were not measured"),
            ):
                if missing:
                    told.append(
                        f"{what}: {len(missing)} {words}, the first is '{missing[0]}'; they take no part"
                        + (f". {hint}" if hint else "")
                    )
        group = self.experiment.folds.group
        told += same_images(self.stimuli.images, None if group is None else self.column(group))
        students = self.experiment.students.values()
        pretrained = [s for s in students if "pretrained" in (s.weights, s.trunk.weights if s.trunk else None)]
        for name in dict.fromkeys(filter(None, (self.experiment.stimuli.spec, self.experiment.score.spec))):
            if pretrained and "ImageNet" in load_brain_spec(name).images_from:
                told.append(f"some images of '{name}' are from ImageNet: the pretrained network has seen them")
        return told

    def _check_subjects(self, name: str, settings: BrainTeacherSettings) -> None:
        """Whoever teaches is not scored on: a network would be praised for knowing that subject's noise."""
        if settings.subject_folds is not None:
            return
        teacher, score = self.teacher_rdms(name), self.experiment.score
        both: list[str] = []
        if settings.same_origin(score):
            taught = teacher.rdm_descriptors.get("subject", [])
            both = sorted({str(subject) for subject in taught} & set(map(str, self.brain.rdm_descriptors["subject"])))
        if both or _any_equal(teacher, measured_rdms(score, "score")):
            whose = f"{len(both)} subjects in common, the first is '{both[0]}'" if both else "an RDM in common"
            raise ValueError(
                f"teacher '{name}' ({settings.spec or settings.file}) and score have {whose}; set subject_folds of the "
                "teacher, or select different subjects"
            )

    def _check_layers(self, label: str, method: BrainMethod) -> None:
        if method.teacher is None:
            return
        names = averaged_teacher(self.experiment.teachers[method.teacher], self.teacher_rdms(method.teacher)).names
        for name in method.teacher_layers():
            if name not in names:
                raise ValueError(
                    f"methods.{label}.layers: teacher '{method.teacher}' has no RDM '{name}'; "
                    f"it has: {', '.join(names)}"
                )

    def _check_folds(self) -> None:
        """In every fold there is something to learn from, to choose by and to score."""
        measured = set(stimulus_ids(self.brain))
        teachers = {name: set(stimulus_ids(self.teacher_rdms(name))) for name in self.experiment.teachers}
        choose = self.experiment.choose
        for split, folds in enumerate(self.stimulus_splits):
            for number, fold in enumerate(folds):
                where = f"split {split}, fold {number}"
                held_out, trained = set(fold.held_out), set(fold.trained)
                counts = {f"{len(held_out)} stimuli held out in {where}, # are in the scored RDMs": held_out & measured}
                for name, known in teachers.items():
                    counts[f"{len(trained)} stimuli learned from in {where}, # are in teacher '{name}'"] = (
                        trained & known
                    )
                for told, these in counts.items():
                    if len(these) < 3:
                        told = told.replace("#", str(len(these)))
                        raise ValueError(f"folds: of the {told}, expected at least 3; take fewer folds")
                if choose is not None and len(fold.trained) < 3 * choose.inner:
                    raise ValueError(
                        f"choose.inner: {choose.inner} inner folds of the {len(fold.trained)} stimuli learned from in "
                        f"{where} hold out fewer than 3 each; take fewer"
                    )

    def _check_meet(self, ids: Sequence[str], known: Sequence[str], what: str) -> None:
        both = set(ids) & set(known)
        if len(both) < 3:
            raise ValueError(
                f"{what}: {len(both)} of its {len(known)} stimuli are among the {len(ids)} of "
                f"'{self.experiment.stimuli.spec}'; expected at least 3 with the same ids. "
                f"{explain_missing(ids, known)}"
            )

    def checksum(self, student: StudentSettings) -> dict[str, Any]:
        """What determines the data, and no path."""
        images = 0
        for shown in (self.training_images(student), self.scored_images(student)):
            images = zlib.crc32("\n".join(shown.ids).encode(), images)
            images = zlib.crc32(shown.images.contiguous().numpy().tobytes(), images)
        rdms = {name: _rdm_checksum(self.teacher_rdms(name)) for name in self.experiment.teachers}
        return {"images": images, "teachers": rdms, "score": _rdm_checksum(self.brain)}


def measured_rdms(settings: MeasuredSettings, where: str) -> RDMs:
    """The selected RDMs of a spec or a file; where: the field that they stand under, for messages."""
    try:
        if settings.file is not None:
            rdms = load_rdms(Path(settings.file))
        else:
            assert settings.spec is not None
            rdms = read_rdms(load_brain_spec(settings.spec), data_root())
        return select_rdms(rdms, **settings.select) if settings.select else rdms
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def averaged(settings: BrainTeacherSettings, rdms: RDMs) -> RDMs:
    """The mean over what the settings say, as far as the RDMs have it."""
    over = [name for name in settings.average if name in rdms.rdm_descriptors]
    return average_rdms(rdms, over, settings.rescale) if over else rdms


def averaged_teacher(settings: BrainTeacherSettings, rdms: RDMs) -> MeasuredRDMs:
    """One RDM a name: the mean over what the settings say."""
    weights = None if settings.weigh_by is None else reliability_weights(rdms, over=settings.weigh_by)
    return MeasuredRDMs(averaged(settings, rdms), name=settings.name, weights=weights)


def rows_of(stimuli: Stimuli, ids: Sequence[str]) -> Tensor:
    """Rows of the stimuli with these ids, in the order of `ids`; ids it does not have are left out."""
    row = {stimulus: k for k, stimulus in enumerate(stimuli.ids)}
    return torch.tensor([row[stimulus] for stimulus in ids if stimulus in row], dtype=torch.int64)


def _any_equal(one: RDMs, other: RDMs) -> bool:
    """Whether an RDM of one is, on the stimuli both have, an RDM of the other."""
    common = [stimulus for stimulus in stimulus_ids(one) if stimulus in set(stimulus_ids(other))]
    if len(common) < 3:
        return False
    a, b = (subset_stimuli(rdms, common).dissimilarities for rdms in (one, other))
    return any(np.array_equal(x, y, equal_nan=True) for x in a for y in b)


def _rdm_checksum(rdms: RDMs) -> int:
    names = "\n".join([*stimulus_ids(rdms), *(f"{k}={list(map(str, v))}" for k, v in rdms.rdm_descriptors.items())])
    return zlib.crc32(rdms.dissimilarities.tobytes(), zlib.crc32(names.encode()))
