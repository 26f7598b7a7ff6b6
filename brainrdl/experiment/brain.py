"""An experiment with brains as teachers made into a run: every method × student × seed × fold, each part once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from brainrdl.analysis.rdms import network_rdms, pixel_rdm
from brainrdl.data.folds import check_disjoint
from brainrdl.data.thumbnails import make_thumbnails, save_thumbnails
from brainrdl.experiment.brain_data import BrainData, BrainFold, averaged, rows_of
from brainrdl.experiment.choosing import Chosen, choose
from brainrdl.experiment.common import (
    PartRunner,
    RunOptions,
    build_seeded,
    check_training,
    save_predictions,
    save_weights,
    seeds_alike,
    try_network,
    try_reductions,
)
from brainrdl.experiment_file import TrainingSettings
from brainrdl.experiment_file.brain import BrainExperiment, BrainMethod, StudentSettings
from brainrdl.layers import check_layers
from brainrdl.notes import noting
from brainrdl.objectives.base import Stage
from brainrdl.rdms import save_rdms
from brainrdl.run_folder import (
    BRAIN,
    ENVIRONMENT,
    EXPERIMENT,
    PIXELS,
    STIMULI,
    TEACHERS,
    THUMBNAILS,
    HistoryFiles,
    Part,
    extended,
    file_checksum,
    noted,
    teacher_file,
    write_table,
)
from brainrdl.runs import write_json, write_text
from brainrdl.settings import dump_yaml
from brainrdl.stimuli import Stimuli
from brainrdl.training.progress import show_progress
from brainrdl.training.trainer import Evaluation, Trainer


def run_brain_experiment(experiment: BrainExperiment, out: Path, options: RunOptions | None = None) -> bool:
    """As `brainrdl.experiment.run_experiment`: every method × student × seed × fold."""
    run = _BrainRun(experiment, Path(out), options or RunOptions())
    run.meet()
    notes: list[str] = []
    with noting(notes.append):
        run.check()
        parts = run.open_folder()
    run.note([*notes, *run.data.notes()])
    run.run_parts(run.todo(parts))
    run.note(seeds_alike(parts))
    return run.writes


class _BrainRun(PartRunner):
    """An experiment with its data, made when they are first needed."""

    def __init__(self, experiment: BrainExperiment, out: Path, options: RunOptions) -> None:
        super().__init__(experiment, out, options)
        self.experiment = experiment
        self.data = BrainData(experiment, options.allow_code)

    # -- before anything is written ------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ValueError where networks, layers, stimuli and RDMs do not go together."""
        experiment, data = self.experiment, self.data
        data.check()
        for label, method in experiment.methods.items():
            for name in experiment.students_of(label):
                settings = experiment.student_of(label, name)
                student = build_seeded(settings, 0, self.options.allow_code)
                where = f"student '{name}'"
                check_layers(student, experiment.score.layers, f"{where} (score.layers)")
                check_layers(student, method.student_layers(), f"{where} (methods.{label}.layers)")
                images = data.training_images(settings).images[:2]
                output = try_network(student, settings, images, where)
                if method.task_weight > 0:
                    self._check_task(output, label, name)
                training = experiment.training_of(label, name)
                batch_size = training.batch_size
                if method.learns:
                    check_training(training, student, self.n_processes, f"methods.{label}, {where}")
                    try_reductions(student, settings, method, images, f"methods.{label}, {where}")
                if method.teacher is not None and batch_size < 3:
                    raise ValueError(
                        f"methods.{label}, student '{name}': training.batch_size {batch_size} is too small, expected "
                        "at least 3: fewer stimuli make no RDM that has a shape"
                    )

    def _check_task(self, output: torch.Tensor, label: str, name: str) -> None:
        column = self.experiment.task is not None and self.experiment.task.column is not None
        n_classes = len(self.data.classes if column else self.data.task_data.class_names)
        if output.ndim != 2 or output.shape[1] < n_classes:
            raise ValueError(
                f"student '{name}' gives shape {tuple(output.shape)} for 2 images; the task of method '{label}' has "
                f"{n_classes} classes, so (2, n_classes) is needed: set students.{name}.arguments"
            )

    def open_folder(self) -> list[Part]:
        """Compare the folder with the experiment; write what the report needs; the parts, finished ones marked."""
        together = extended(self.out, self.experiment.model_dump(mode="json"))
        parts = self.looked_at(self._parts())
        if self.writes:
            teachers = {
                f"{TEACHERS}/{teacher_file(method.teacher, fold.group)}"
                for label, method in self.experiment.methods.items()
                if method.teacher is not None
                for fold in self.data.folds(label)
            }
            names = (EXPERIMENT, ENVIRONMENT, BRAIN, PIXELS, THUMBNAILS, STIMULI, *sorted(teachers))
            self.damaged(*names)
            with noted(self.out, *names):
                write_text(self.out / EXPERIMENT, dump_yaml(together))
                self.write_environment()
                self._write_references()
        return parts

    def _write_references(self) -> None:
        """What networks are compared with: the brains, the teachers, the pixels, and what is known of the stimuli."""
        experiment, data = self.experiment, self.data
        save_rdms(data.brain, self.out / BRAIN)
        for label, method in experiment.methods.items():
            if method.teacher is None:
                continue
            for fold in {fold.group: fold for fold in data.folds(label)}.values():
                rdms = averaged(experiment.teachers[method.teacher], data.teacher_rdms(method.teacher, fold))
                save_rdms(rdms, self.out / TEACHERS / teacher_file(method.teacher, fold.group))
        images = data.scored_stimuli.images.read()._replace(labels=None)
        save_rdms(pixel_rdm(images, experiment.score.dissimilarity), self.out / PIXELS)
        save_thumbnails(make_thumbnails(images), self.out / THUMBNAILS)
        write_table(self.out / STIMULI, data.stimuli.table.reset_index(drop=True))

    def _parts(self) -> Iterator[Part]:
        experiment, data = self.experiment, self.data
        for label, method in experiment.methods.items():
            for name in experiment.students_of(label):
                student = experiment.student_of(label, name).model_dump(mode="json")
                for network in filter(None, (student, student["trunk"])):
                    network["weights"] = file_checksum(network["weights"])
                student.pop("training")
                teacher = None if method.teacher is None else experiment.teachers[method.teacher]
                settings = {
                    "data": data.checksum(experiment.student_of(label, name)),
                    "student": student,
                    "method": method.model_dump(mode="json"),
                    "teacher": None if teacher is None else _without_place(teacher.model_dump(mode="json")),
                    "training": experiment.training_of(label, name).model_dump(mode="json"),
                    "stimulus_norm": experiment.stimulus_norm,
                    "choose": None if experiment.choose is None else experiment.choose.model_dump(mode="json"),
                    "task": None if experiment.task is None else experiment.task.model_dump(mode="json"),
                    "folds": experiment.folds.model_dump(mode="json"),
                    "score": _without_place(experiment.score.model_dump(mode="json")),
                }
                for seed in experiment.seeds:
                    for fold in data.folds(label):
                        folder = self.out / label / name / f"seed-{seed}" / fold.name
                        own = {**settings, "seed": seed, "fold": fold.name}
                        yield Part(label, seed, folder, own, detail=f"{name}, {fold.name}")

    # -- the parts -------------------------------------------------------------------------------------------------

    def training_of(self, part: Part) -> TrainingSettings:
        """The method's settings over the student's over the experiment's."""
        return self.experiment.training_of(part.label, self._of(part)[0])

    def run_method(self, part: Part, title: str, show: bool = True) -> str:
        """Choose, train and look at one network; write its folder; what to say of it."""
        name, fold = self._of(part)
        method = self.experiment.methods[part.label]
        student = self.experiment.student_of(part.label, name)
        if self.writes:
            part.mark(finished=False)
        chosen = Chosen({}, None)
        if method.learns and method.choose and self.experiment.choose is not None:
            chosen = choose(self, part, name, fold)
            method = chosen.applied_to(method)
        if self.writes:
            # On disk before the network is scored on anything.
            write_json(part.folder / "fold.json", {**fold._asdict(), "chosen": chosen.settings, "epoch": chosen.epoch})
        network = build_seeded(student, part.seed, self.options.allow_code)
        n_epochs = 0
        if method.learns:
            n_epochs = self._train(part, title, network, name, method, fold, chosen, show)
        if self.writes:
            preprocess = self.data.preprocessing(student)
            rdms = network_rdms(
                network,
                self.experiment.score.layers,
                self.data.scored_images(student),
                self.experiment.score.dissimilarity,
                preprocess=preprocess,
                name=part.label,
                seed=part.seed,
                epoch=n_epochs - 1,
            )
            save_rdms(rdms, part.folder / "rdms.h5")
            if method.task_weight > 0:
                self._save_predictions(part, network, student, fold)
            if method.learns:
                save_weights(network, part.folder / "weights.safetensors")
        self.fabric.barrier()
        if self.writes:
            part.mark(finished=True)
        return f"{n_epochs} epochs" if method.learns else "untrained"

    def _of(self, part: Part) -> tuple[str, BrainFold]:
        """The student and the fold of a part."""
        name = part.folder.parent.parent.name
        return name, next(fold for fold in self.data.folds(part.label) if fold.name == part.folder.name)

    def _train(
        self,
        part: Part,
        title: str,
        network: nn.Module,
        name: str,
        method: BrainMethod,
        fold: BrainFold,
        chosen: Chosen,
        show: bool,
    ) -> int:
        """Train on the fold's stimuli, up to the chosen epoch; how many epochs it was."""
        files = HistoryFiles(part.folder)
        console = None if show and self.writes else Console(quiet=True)
        with show_progress(title, console) as progress, files.kept_up(self.writes):
            for row, timing in self.training(
                network, part, name, method, fold.trained, fold, {}, progress, part.checkpoint
            ):
                if self.writes:
                    files.add(row, timing)
                else:
                    files.rows.append(row)
                if row["epoch"] + 1 == chosen.epoch:
                    break
        return len(files.rows)

    def training(
        self,
        network: nn.Module,
        part: Part,
        name: str,
        method: BrainMethod,
        trained: tuple[str, ...],
        fold: BrainFold,
        evaluations: Mapping[str, Evaluation],
        progress: Any = None,
        checkpoint: Path | None = None,
    ) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
        """Train on the stimuli `trained`; each epoch's history and timing."""
        experiment, data = self.experiment, self.data
        check_disjoint(trained, fold.held_out)
        settings = experiment.student_of(part.label, name)
        training = experiment.training_of(part.label, name, method)
        images = data.training_images(settings)
        learned = images.subset(rows_of(images, trained))
        n_stimuli = min(training.batch_size, len(learned.ids))
        task: Stimuli | None = None
        of_column = experiment.task is not None and experiment.task.column is not None
        if method.task_weight > 0:
            task = learned if of_column else data.shown(settings, data.task_data.train, "task")
        source = None if method.teacher is None else data.teacher(method, fold, part.seed)
        stream = "task" if task is not None and of_column else "stimuli"
        objective = None if source is None else self._as_real(method, fold).objective(source, stream)
        stage = Stage(
            objective,
            method.alpha_schedule() if objective is not None else 1.0,
            epochs=training.epochs,
            task_weight=method.task_weight,
            optimizer=training.make_optimizer(),
            learning_rate=training.learning_rate_schedule(),
        )
        trainer = Trainer(
            network,
            stage,
            preprocess=data.preprocessing(settings),
            batch_size=training.batch_size if task is not None and not of_column else n_stimuli,
            stimulus_batch_size=n_stimuli,
            stimulus_norm=experiment.stimulus_norm,
            seed=part.seed,
            evaluations=evaluations,
            clip=training.clip,
            accumulate=training.accumulate,
            checkpoint_activations=training.checkpoint_activations,
            checkpoint=checkpoint,
            checkpoint_of=part.identity,
            checkpoint_steps=self.options.checkpoint_steps,
            checkpoint_minutes=self.options.checkpoint_minutes,
            compile=training.compile,
            channels_last=training.channels_last,
            tf32=training.tf32,
            fabric=self.fabric,
            progress=progress,
        )
        stimuli = learned if stream == "stimuli" and objective is not None else None
        for record in trainer.fit(task, stimuli, resume=checkpoint is not None):
            yield record.history, record.timing

    def _as_real(self, method: BrainMethod, fold: BrainFold) -> BrainMethod:
        """A control is compared as the teacher in whose place it is: only the target differs."""
        if method.control is None or method.discrepancy is not None:
            return method
        real = self.data.teacher(method.model_copy(update={"control": None}), fold, 0)
        return method.model_copy(update={"discrepancy": method.objective(real).discrepancy})

    def _save_predictions(self, part: Part, network: nn.Module, student: StudentSettings, fold: BrainFold) -> None:
        """The task's answers on stimuli, or test images, that the network has not learned from."""
        assert self.experiment.task is not None
        if self.experiment.task.column is not None:
            images = self.data.training_images(student)
            test = images.subset(rows_of(images, fold.held_out))
        else:
            test = self.data.shown(student, self.data.task_data.test, "task test")
        save_predictions(part.folder, network, self.data.preprocessing(student), test)


def describe_brain_experiment(experiment: BrainExperiment, allow_code: bool = False) -> str:
    """As `brainrdl.experiment.describe_experiment`."""
    run = _BrainRun(experiment, Path(), RunOptions(allow_code=allow_code))
    run.check()
    data = run.data
    parts = list(run._parts())
    brain = data.brain.rdm_descriptors
    lines = [
        f"experiment {experiment.name}: usable",
        f"  stimuli   {experiment.stimuli.spec}: {len(data.stimuli.images.ids)}",
        f"  students  {', '.join(experiment.students)}",
        f"  teachers  {', '.join(experiment.teachers) or 'none'}",
        f"  scored    {len(set(brain['subject']))} subjects × {', '.join(sorted(set(map(str, brain['roi']))))}, by "
        f"{experiment.score.comparison}, on {experiment.folds.n} folds × {experiment.folds.splits} splits",
        f"  methods   {', '.join(experiment.methods)}",
        f"  seeds     {', '.join(map(str, experiment.seeds))}",
        f"  networks  {len(parts)}, of at most {experiment.training.epochs} epochs each "
        "unless the method says otherwise",
    ]
    return "\n".join([*lines, *(f"  note      {note}" for note in data.notes())])


def _without_place(settings: dict[str, Any]) -> dict[str, Any]:
    """Measured RDMs are told by their content, not by where they lie."""
    return {key: value for key, value in settings.items() if key not in ("spec", "file")}
