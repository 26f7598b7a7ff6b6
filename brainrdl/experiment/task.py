"""An experiment file made into a run: the teacher, then every method × every seed, each part once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from torch import nn

from brainrdl.analysis.rdms import join_rdms, label_rdm, network_rdms, pixel_rdm, save_rdms
from brainrdl.data import DataSplits, horizontal_flips
from brainrdl.data.thumbnails import make_thumbnails, save_thumbnails
from brainrdl.experiment.common import (
    PartRunner,
    RunOptions,
    build_seeded,
    make_preprocessing,
    n_cores,
    save_predictions,
    save_weights,
    say,
    seeds_alike,
)
from brainrdl.experiment.rdm_log import RDMLog
from brainrdl.experiment.task_checks import check_experiment
from brainrdl.experiment.task_data import TaskData
from brainrdl.experiment.teacher_patterns import keep_patterns, kept_patterns, remove_patterns
from brainrdl.experiment_file import Experiment, NetworkSettings, TrainingSettings
from brainrdl.models import Preprocessing, predict
from brainrdl.models.inference import on_device
from brainrdl.notes import keeping_notes, noting
from brainrdl.objectives.base import Stage
from brainrdl.objectives.method import MethodContext
from brainrdl.run_folder import (
    ENVIRONMENT,
    EXPERIMENT,
    REFERENCES,
    THUMBNAILS,
    WEIGHTS,
    HistoryFiles,
    Part,
    check_part,
    extended,
    file_checksum,
    noted,
)
from brainrdl.runs import write_json, write_text
from brainrdl.settings import dump_yaml
from brainrdl.sources.cache import PatternCache
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli, StoredStimuli
from brainrdl.training.checkpoint import has_checkpoint
from brainrdl.training.devices import torch_threads
from brainrdl.training.progress import show_progress
from brainrdl.training.trainer import Trainer

DIVERGED = "diverged.txt"  # of a trial, in place of its last epochs

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


def run_task_experiment(experiment: Experiment, out: Path, options: RunOptions | None = None) -> bool:
    """As `brainrdl.experiment.run_experiment`: the teacher, then every method with every seed."""
    run = TaskRun(experiment, Path(out), options or RunOptions())
    run.meet()
    notes: list[str] = []
    with noting(notes.append):
        run.check()
        parts = run.open_folder()
    run.note([*notes, *run.images.notes()])
    todo = run.todo(parts)
    if todo and todo[0].label == "teacher":
        teacher = todo.pop(0)
        with torch_threads(run.training_of(teacher).threads), keeping_notes(teacher.folder, run.writes):
            run.run_teacher(teacher)
        run.tell_notes(teacher.folder)
    try:
        run.keep_patterns(todo)
        run.run_parts(todo)
        run.note(seeds_alike(parts))
    finally:
        if run.writes:
            remove_patterns(run.patterns)
    return run.writes


class TaskRun(PartRunner):
    """An experiment with its data and teacher, made when they are first needed."""

    def __init__(self, experiment: Experiment, out: Path, options: RunOptions) -> None:
        super().__init__(experiment, out, options)
        self.experiment = experiment
        self.images = TaskData(experiment, for_search=options.search)
        self.patterns = out / "teacher" / "patterns"

    @cached_property
    def teacher_network(self) -> nn.Module:
        """The trained teacher; `run_teacher` has written its weights."""
        teacher = self.experiment.teacher
        assert teacher is not None
        if teacher.weights is None:
            check_part(self.out / "teacher", (WEIGHTS,))
        weights = teacher.weights or str(self.out / "teacher" / WEIGHTS)
        return self.build(teacher.model_copy(update={"weights": weights}), teacher.seed)

    def build(self, settings: NetworkSettings, seed: int) -> nn.Module:
        """A network with the initial weights of `seed`, or those of its file."""
        return build_seeded(settings, seed, self.options.allow_code)

    def training_of(self, part: Part) -> TrainingSettings:
        """Of the teacher, or of a method."""
        teacher = self.experiment.teacher
        if part.label != "teacher":
            return self.experiment.training_of(part.label)
        return (teacher.training if teacher else None) or self.experiment.training

    def jobs(self, todo: list[Part]) -> int:
        """On the CPU as many as it has cores for, at most 8, unless the user says how many."""
        if self.options.jobs is not None or self.fabric.device.type != "cpu" or self.fabric.world_size > 1:
            return self.options.jobs or 1
        threads = max((self.training_of(part).threads for part in todo), default=1)
        return max(1, min(8, n_cores() // threads))

    # -- before anything is written ------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ValueError where networks, layers or images do not go together."""
        check_experiment(self.experiment, self.images, self.build, self.n_processes)

    def open_folder(self) -> list[Part]:
        """Compare the folder with the experiment; write the experiment file; the parts, finished ones marked."""
        together = extended(self.out, self.experiment.model_dump(mode="json"))
        parts = self.looked_at(self._parts())
        if self.writes:
            names = (EXPERIMENT, ENVIRONMENT, REFERENCES, THUMBNAILS)
            damaged = self.damaged(*names)
            whole = {name for name in names if name not in damaged and (self.out / name).exists()}
            with noted(self.out, *names):
                write_text(self.out / EXPERIMENT, dump_yaml(together))
                self.write_environment()
                if REFERENCES not in whole:
                    save_rdms(self._reference_rdms(), self.out / REFERENCES)
                if THUMBNAILS not in whole:
                    save_thumbnails(make_thumbnails(self.images.figure_stimuli), self.out / THUMBNAILS)
        return parts

    def _parts(self) -> Iterator[Part]:
        experiment = self.experiment
        data = self.images.fingerprint()
        teacher = None
        if experiment.teacher is not None:
            settings = experiment.teacher.model_dump(mode="json")
            settings["weights"] = file_checksum(experiment.teacher.weights)
            teacher = {"data": data, "teacher": settings}
            yield Part("teacher", experiment.teacher.seed, self.out / "teacher", teacher)
        for label, method in experiment.methods.items():
            needs = method.needs_teacher or method.data == "deformed"
            student = experiment.student_of(label).model_dump(mode="json")
            student["weights"] = file_checksum(student["weights"])
            settings = {
                "data": data,
                "student": student,
                "method": method.model_dump(mode="json"),
                "training": experiment.training_of(label).model_dump(mode="json"),
                "analysis": experiment.analysis.model_dump(mode="json"),
                "teacher": teacher["teacher"] if needs and teacher else None,
            }
            for seed in experiment.seeds:
                yield Part(label, seed, self.out / label / f"seed-{seed}", {**settings, "seed": seed})

    def _reference_rdms(self) -> RDMs:
        names = self.images.splits.class_names
        pixels = pixel_rdm(self.images.figure_stimuli, self.experiment.analysis.dissimilarity, names)
        return join_rdms([pixels, label_rdm(self.images.figure_stimuli, names)])

    # -- the parts ---------------------------------------------------------------------------------------

    def run_teacher(self, part: Part) -> None:
        """Train the teacher, or take its weights from their file; write its folder."""
        settings = self.experiment.teacher
        assert settings is not None
        network = self.build(settings, settings.seed)
        preprocess = make_preprocessing(settings)
        same_data = settings.data is None
        layers = self.experiment.analysis.teacher_layers
        if layers is None:
            own = dict(network.named_modules())
            layers = [layer for layer in self.experiment.analysis.layers if layer in own]
        with self._part_folder(part):
            if settings.training is not None:
                splits = self.images.of_teacher
                flips = (settings.data or self.experiment.data).flips
                stage = _plain_stage(settings.training)
                error = self._train(part, "teacher", network, preprocess, [stage], settings.training, splits, flips)
            else:
                error = self._error(network, preprocess, self.images.splits.test)
            if self.writes:
                if same_data:
                    save_predictions(part.folder, network, preprocess, self.images.splits.test)
                rdms = self._rdms(network, layers, preprocess, "teacher", settings.seed, -1)
                save_rdms(rdms, part.folder / "rdms.h5")
                save_weights(network, part.folder / "weights.safetensors")
                say(
                    f"teacher: {self._tested_on if same_data else 'test'} error {error:.2%}"
                    + " on its own data" * (not same_data)
                )

    def run_method(self, part: Part, title: str, show: bool = True) -> str:
        """Train one student and write its folder; its test error, in words. A trial may diverge, which is a result."""
        try:
            return self._run_method(part, title, show)
        except FloatingPointError as error:
            if not self.options.search:
                raise
            if self.writes:
                write_text(part.folder / DIVERGED, f"{error}\n")
                part.mark(finished=True)
            return f"diverged ({error})"

    def _run_method(self, part: Part, title: str, show: bool) -> str:
        experiment, label = self.experiment, part.label
        method, training = experiment.methods[label], experiment.training_of(label)
        settings = experiment.student_of(label)
        student = self.build(settings, part.seed)
        preprocess = make_preprocessing(settings)
        splits = self.images.of_method(label)
        made: dict[str, NetworkTeacher] = {}

        def teacher(dissimilarity: str) -> NetworkTeacher:
            if dissimilarity not in made:
                layers = list(method.teacher_layers()) or [""]
                cache = kept_patterns(self.patterns) if self._reads_patterns(label) else None
                made[dissimilarity] = self._make_teacher(layers, dissimilarity, cache)
            return made[dissimilarity]

        context = MethodContext(
            training.epochs,
            training.make_optimizer(),
            training.learning_rate_schedule(),
            teacher,
            lambda: self.teacher_network,
        )
        with self._part_folder(part):
            stages = method.stages(context)
            error = self._train(part, title, student, preprocess, stages, training, splits, experiment.data.flips, show)
            if self.writes:
                save_predictions(part.folder, student, preprocess, self.images.splits.test)
                save_weights(student, part.folder / "weights.safetensors")
        return f"{self._tested_on} error {error:.2%}"

    @property
    def _tested_on(self) -> str:
        return "validation" if self.options.search else "test"

    def _make_teacher(
        self, layers: list[str], dissimilarity: str = "euclidean", cache: PatternCache | None = None
    ) -> NetworkTeacher:
        settings = self.experiment.teacher
        assert settings is not None
        return NetworkTeacher(
            self.teacher_network, layers, dissimilarity, preprocess=make_preprocessing(settings), cache=cache
        )

    def keep_patterns(self, todo: list[Part]) -> None:
        """Let the teacher look at the training images once for all these parts, where that pays.

        A GPU computes patterns faster than it is given them; and images that change from epoch to epoch have to be
        looked at anew. Of several processes one writes them, and all read what it wrote.
        """
        methods = {part.label: self.experiment.methods[part.label] for part in todo if self._reads_patterns(part.label)}
        if not methods or self.fabric.device.type != "cpu":
            return
        # All of them, whichever methods are still to be run: patterns depend in their last bits on the images that are
        # looked at together. Those of smaller n_train are part of them.
        images = self.images.splits.train
        layers = list(dict.fromkeys(layer for method in methods.values() for layer in method.teacher_layers()))
        if self.writes:
            with torch_threads(self.experiment.training.threads):
                keep_patterns(self._make_teacher(layers or [""]), images, self.patterns)
        self.fabric.barrier()

    def _reads_patterns(self, label: str) -> bool:
        """Whether a method asks a teacher about the images as they are."""
        method = self.experiment.methods[label]
        return method.asks_teacher and method.data == "train" and not self.experiment.data.flips

    @contextmanager
    def _part_folder(self, part: Part) -> Iterator[None]:
        """The part's marker: unfinished inside, finished afterwards."""
        if self.writes:
            part.mark(finished=False)
        yield
        self.fabric.barrier()
        if self.writes:
            part.mark(finished=True)

    def _train(
        self,
        part: Part,
        title: str,
        network: nn.Module,
        preprocess: Preprocessing,
        stages: list[Stage],
        training: TrainingSettings,
        splits: DataSplits,
        flips: bool,
        show: bool = True,
    ) -> float:
        """Train with history, timing, RDMs and checkpoint in the part's folder; the final test error."""
        log = self._rdm_log(part, preprocess) if part.label != "teacher" and self.writes else None
        if log is not None and not has_checkpoint(part.checkpoint):
            log.keep(network, -1)
        n_epochs = sum(stage.epochs for stage in stages)

        tested = on_device(splits.test, self.fabric.device)

        def test(student: nn.Module, epoch: int) -> dict[str, float]:
            wanted = (epoch + 1) % self.experiment.analysis.test_every == 0 or epoch + 1 == n_epochs
            return {"test_error": self._error(student, preprocess, tested)} if wanted else {}

        files = HistoryFiles(part.folder)
        with show_progress(title, None if show and self.writes else Console(quiet=True)) as progress:
            trainer = Trainer(
                network,
                stages,
                preprocess=preprocess,
                batch_size=training.batch_size,
                seed=part.seed,
                evaluations={"test": test} if log is None else {"test": test, "rdms": log.evaluate},
                augment=horizontal_flips if flips else None,
                clip=training.clip,
                accumulate=training.accumulate,
                checkpoint_activations=training.checkpoint_activations,
                keep=training.keep,
                checkpoint=part.checkpoint,
                checkpoint_of=part.identity,
                checkpoint_steps=self.options.checkpoint_steps,
                checkpoint_minutes=self.options.checkpoint_minutes,
                compile=training.compile,
                channels_last=training.channels_last,
                tf32=training.tf32,
                fabric=self.fabric,
                progress=progress,
            )
            validation = splits.validation if splits.validation.ids else None
            with files.kept_up(self.writes):
                for record in trainer.fit(splits.train, None, validation, resume=True):
                    if self.writes:
                        files.add(record.history, record.timing)
                    else:
                        files.rows.append(record.history)
                    if files.out_of_patience(training.patience):
                        break
        if self.writes:
            if trainer.not_copied:
                say(f"{part.name}: weights not copied from the teacher: {', '.join(trainer.not_copied)}")
            if trainer.copied:
                write_json(part.folder / "copied.json", {"copied": trainer.copied, "not_copied": trainer.not_copied})
        if log is not None:
            log.keep(network, files.rows[-1]["epoch"])
        return self._error(network, preprocess, splits.test)

    def _error(self, network: nn.Module, preprocess: Preprocessing, stimuli: Stimuli | StoredStimuli) -> float:
        assert stimuli.labels is not None
        return float((predict(network, stimuli, preprocess) != stimuli.labels.cpu()).double().mean())

    def _rdm_log(self, part: Part, preprocess: Preprocessing) -> RDMLog:
        analysis = self.experiment.analysis

        def make(network: nn.Module, epoch: int) -> RDMs:
            return self._rdms(network, analysis.layers, preprocess, part.label, part.seed, epoch)

        return RDMLog(part.folder / "rdms.h5", make, analysis.every)

    def _rdms(
        self, network: nn.Module, layers: list[str], preprocess: Preprocessing, name: str, seed: int, epoch: int
    ) -> RDMs:
        return network_rdms(
            network,
            [*layers, "softmax"],
            self.images.figure_stimuli,
            self.experiment.analysis.dissimilarity,
            preprocess=preprocess,
            name=name,
            seed=seed,
            epoch=epoch,
            class_names=self.images.splits.class_names,
        )


def _plain_stage(training: TrainingSettings) -> Stage:
    rates = training.learning_rate_schedule()
    return Stage(epochs=training.epochs, optimizer=training.make_optimizer(), learning_rate=rates)
