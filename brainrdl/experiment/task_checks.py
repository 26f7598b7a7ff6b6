"""Whether networks, layers and images of an experiment with a task go together."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from brainrdl.experiment.common import check_batch, check_training, try_network, try_reductions
from brainrdl.experiment.task_data import TaskData
from brainrdl.experiment_file import Experiment, NetworkSettings
from brainrdl.layers import check_layers


def check_experiment(
    experiment: Experiment, data: TaskData, build: Callable[[NetworkSettings, int], nn.Module], n_processes: int
) -> None:
    """Raise ValueError where they do not. build: a network with the initial weights of a seed."""
    analysis = experiment.analysis
    images = data.first_images()
    data.check_teacher()
    teacher = None if experiment.teacher is None else build(experiment.teacher, 0)
    if teacher is not None and experiment.teacher is not None:
        if analysis.teacher_layers is not None:
            check_layers(teacher, analysis.teacher_layers, "teacher (analysis.teacher_layers)")
        shown = data.first_images(of_teacher=experiment.teacher.data is not None)
        for these in (shown, images):
            try_network(teacher, experiment.teacher, these, "teacher")
    n_classes = len(data.splits.class_names)
    for label, method in experiment.methods.items():
        settings = experiment.student_of(label)
        student = build(settings, 0)
        check_layers(student, analysis.layers, "student (analysis.layers)")
        check_layers(student, method.student_layers(), f"student (methods.{label})")
        if teacher is not None:
            check_layers(teacher, method.teacher_layers(), f"teacher (methods.{label})")
        output = try_network(student, settings, images, f"student of '{label}'")
        check_training(experiment.training_of(label), student, n_processes, f"methods.{label}")
        try_reductions(student, settings, method, images, f"methods.{label}")
        if output.ndim != 2 or output.shape[1] < n_classes:
            raise ValueError(
                f"student of '{label}' gives shape {tuple(output.shape)} for 2 images; the data has {n_classes} "
                "classes, so (2, n_classes) is needed: set student.arguments"
            )
        if method.data == "train":
            check_batch(experiment.training_of(label), len(data.of_method(label).train.ids), f"methods.{label}")
    if experiment.teacher is not None and experiment.teacher.training is not None:
        deformed_images = experiment.teacher.deformed
        n_images = deformed_images.train if deformed_images else len(data.of_teacher.train.ids)
        check_batch(experiment.teacher.training, n_images, "teacher")
        assert teacher is not None
        check_training(experiment.teacher.training, teacher, n_processes, "teacher")
    _ = data.figure_stimuli
