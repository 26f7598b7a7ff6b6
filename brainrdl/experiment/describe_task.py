"""What an experiment with a task would do."""

from __future__ import annotations

from pathlib import Path

from brainrdl.experiment.common import RunOptions
from brainrdl.experiment.task import TaskRun
from brainrdl.experiment_file import Experiment
from brainrdl.notes import noting


def describe_task_experiment(experiment: Experiment, allow_code: bool = False) -> str:
    """As `brainrdl.experiment.describe_experiment`."""
    run = TaskRun(experiment, Path(), RunOptions(allow_code=allow_code))
    notes: list[str] = []
    with noting(notes.append):
        run.check()
    notes += run.images.notes()
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
    return "\n".join([*lines, *(f"  note      {note}" for note in notes)])
