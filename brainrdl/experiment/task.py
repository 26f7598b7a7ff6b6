"""An experiment file made into a run: the teacher, then every method × every seed, each part once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from torch import nn

from brainrdl.analysis.rdms import join_rdms, label_rdm, load_rdms, network_rdms, pixel_rdm, save_rdms
from brainrdl.data import DataSplits, horizontal_flips
from brainrdl.data.thumbnails import make_thumbnails, save_thumbnails
from brainrdl.experiment.common import (
    PartRunner,
    RunOptions,
    build_seeded,
    check_batch,
    check_training,
    make_preprocessing,
    n_cores,
    save_weights,
    say,
    try_network,
    try_reductions,
)
from brainrdl.experiment.task_data import TaskData
from brainrdl.experiment.teacher_patterns import keep_patterns, kept_patterns, remove_patterns
from brainrdl.experiment_file import Experiment, NetworkSettings, TrainingSettings
from brainrdl.layers import check_layers
from brainrdl.models import Preprocessing, predict
from brainrdl.models.inference import on_device
from brainrdl.objectives.base import Stage
from brainrdl.objectives.method import MethodContext
from brainrdl.run_folder import (
    EXPERIMENT,
    THUMBNAILS,
    HistoryFiles,
    Part,
    environment,
    extended,
    file_checksum,
    write_table,
)
from brainrdl.runs import write_json, write_text
from brainrdl.settings import dump_yaml
from brainrdl.sources.cache import PatternCache
from brainrdl.sources.network import NetworkTeacher
from brainrdl.stimuli import Stimuli, StoredStimuli
from brainrdl.training.devices import torch_threads
from brainrdl.training.progress import show_progress
from brainrdl.training.trainer import Trainer

DIVERGED = "diverged.txt"  # of a trial, in place of its last epochs

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


def run_task_experiment(experiment: Experiment, out: Path, options: RunOptions | None = None) -> bool:
    """As `brainrdl.experiment.run_experiment`: the teacher, then every method with every seed."""
    run = _Run(experiment, Path(out), options or RunOptions())
    run.meet()
    run.check()
    todo = run.todo(run.open_folder())
    if todo and todo[0].label == "teacher":
        teacher = todo.pop(0)
        with torch_threads(run.training_of(teacher).threads):
            run.run_teacher(teacher)
    try:
        run.keep_patterns(todo)
        run.run_parts(todo)
    finally:
        if run.writes:
            remove_patterns(run.patterns)
    return run.writes


class _Run(PartRunner):
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
        weights = teacher.weights or str(self.out / "teacher" / "weights.safetensors")
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
        experiment = self.experiment
        analysis = experiment.analysis
        images = self.images.first_images()
        teacher = None if experiment.teacher is None else self.build(experiment.teacher, 0)
        if teacher is not None and experiment.teacher is not None:
            if analysis.teacher_layers is not None:
                check_layers(teacher, analysis.teacher_layers, "teacher (analysis.teacher_layers)")
            shown = self.images.first_images(of_teacher=experiment.teacher.data is not None)
            for these in (shown, images):
                try_network(teacher, experiment.teacher, these, "teacher")
        n_classes = len(self.images.splits.class_names)
        for label, method in experiment.methods.items():
            settings = experiment.student_of(label)
            student = self.build(settings, 0)
            check_layers(student, analysis.layers, "student (analysis.layers)")
            check_layers(student, method.student_layers(), f"student (methods.{label})")
            if teacher is not None:
                check_layers(teacher, method.teacher_layers(), f"teacher (methods.{label})")
            output = try_network(student, settings, images, f"student of '{label}'")
            check_training(experiment.training_of(label), student, self.n_processes, f"methods.{label}")
            try_reductions(student, settings, method, images, f"methods.{label}")
            if output.ndim != 2 or output.shape[1] < n_classes:
                raise ValueError(
                    f"student of '{label}' gives shape {tuple(output.shape)} for 2 images; the data has {n_classes} "
                    "classes, so (2, n_classes) is needed: set student.arguments"
                )
            if method.data == "train":
                check_batch(
                    experiment.training_of(label), len(self.images.of_method(label).train.ids), f"methods.{label}"
                )
        if experiment.teacher is not None and experiment.teacher.training is not None:
            deformed_images = experiment.teacher.deformed
            n_images = deformed_images.train if deformed_images else len(self.images.of_teacher.train.ids)
            check_batch(experiment.teacher.training, n_images, "teacher")
            assert teacher is not None
            check_training(experiment.teacher.training, teacher, self.n_processes, "teacher")
        _ = self.images.figure_stimuli

    def open_folder(self) -> list[Part]:
        """Compare the folder with the experiment; write the experiment file; the parts, finished ones marked."""
        together = extended(self.out, self.experiment.model_dump(mode="json"))
        parts = self.looked_at(self._parts())
        if self.writes:
            write_text(self.out / EXPERIMENT, dump_yaml(together))
            write_json(
                self.out / "environment.json",
                environment(self.fabric.device, self.fabric.world_size, self.experiment.training.threads),
            )
            references = self.out / "references.h5"
            if not references.exists():
                save_rdms(self._reference_rdms(), references)
            if not (self.out / THUMBNAILS).exists():
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
                    self._save_predictions(part.folder, network, preprocess, self.images.splits.test)
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
                self._save_predictions(part.folder, student, preprocess, self.images.splits.test)
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
        # As large as the largest that is needed; those of smaller n_train are part of it.
        images = max((self.images.of_method(label).train for label in methods), key=lambda train: len(train.ids))
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
        log = _RDMLog(self, part, preprocess) if part.label != "teacher" and self.writes else None
        if log is not None and not part.checkpoint.exists():
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
                evaluations={"test": test},
                augment=horizontal_flips if flips else None,
                clip=training.clip,
                accumulate=training.accumulate,
                checkpoint_activations=training.checkpoint_activations,
                keep=training.keep,
                checkpoint=part.checkpoint,
                compile=training.compile,
                channels_last=training.channels_last,
                tf32=training.tf32,
                fabric=self.fabric,
                progress=progress,
            )
            validation = splits.validation if splits.validation.ids else None
            for record in trainer.fit(splits.train, None, validation, resume=True):
                if self.writes:
                    files.add(record.history, record.timing)
                else:
                    files.rows.append(record.history)
                if record.timing and log is not None and log.wants(record.history["epoch"]):
                    log.keep(network, record.history["epoch"])
                if files.out_of_patience(training.patience):
                    break
        if self.writes:
            files.write()
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

    def _save_predictions(
        self, folder: Path, network: nn.Module, preprocess: Preprocessing, test: Stimuli | StoredStimuli
    ) -> None:
        assert test.labels is not None
        predicted = predict(network, test, preprocess)
        columns = {"stimulus": test.ids, "label": test.labels.tolist(), "predicted": predicted.tolist()}
        write_table(folder / "predictions.csv", pd.DataFrame(columns))

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


class _RDMLog:
    """The RDMs of a student at logged epochs, in the part's rdms.h5."""

    def __init__(self, run: _Run, part: Part, preprocess: Preprocessing) -> None:
        self.run, self.part, self.preprocess = run, part, preprocess
        self.file = part.folder / "rdms.h5"

    def wants(self, epoch: int) -> bool:
        """Whether RDMs are kept after this epoch."""
        every = self.run.experiment.analysis.every
        if isinstance(every, list):
            return epoch + 1 in every
        return every > 0 and (epoch + 1) % every == 0

    def keep(self, network: nn.Module, epoch: int) -> None:
        """Add the network's RDMs, in place of what was kept of this epoch or a later one."""
        layers = self.run.experiment.analysis.layers
        rdms = self.run._rdms(network, layers, self.preprocess, self.part.label, self.part.seed, epoch)
        if self.file.exists() and epoch >= 0:
            stored = load_rdms(self.file)
            before = [k for k in stored.rdm_descriptors["epoch"] if k < epoch]
            if before:
                rdms = join_rdms([stored.subset("epoch", sorted(set(before))), rdms])
        save_rdms(rdms, self.file)


def describe_task_experiment(experiment: Experiment, allow_code: bool = False) -> str:
    """As `brainrdl.experiment.describe_experiment`."""
    run = _Run(experiment, Path(), RunOptions(allow_code=allow_code))
    run.check()
    data, teacher = run.images.splits, experiment.teacher
    sizes = [f"{len(part.ids)} {what}" for part, what in zip(data[:3], ("training", "validation", "test"), strict=True)]
    lines = [
        f"experiment {experiment.name}: usable",
        f"  data      {data.name}: {', '.join(sizes)} images of shape {tuple(run.images.first_images().shape[1:])}, "
        f"{len(data.class_names)} classes",
        f"  student   {experiment.student.network}",
        f"  teacher   {'none' if teacher is None else teacher.network}",
        f"  methods   {', '.join(experiment.methods)}",
        f"  seeds     {', '.join(map(str, experiment.seeds))}",
        f"  trainings {len(experiment.methods) * len(experiment.seeds)}, of {experiment.training.epochs} epochs each "
        "unless the method says otherwise",
    ]
    return "\n".join(lines)


def _plain_stage(training: TrainingSettings) -> Stage:
    return Stage(
        epochs=training.epochs,
        optimizer=training.make_optimizer(),
        learning_rate=training.learning_rate_schedule(),
    )
