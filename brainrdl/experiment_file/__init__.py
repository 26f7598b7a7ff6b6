"""What an experiment file says, with every default."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from brainrdl.experiment_file.brain import BrainExperiment, brain_experiment
from brainrdl.experiment_file.reading import built_in_experiments, read_experiment
from brainrdl.experiment_file.settings import NetworkSettings, PreprocessSettings, TrainingSettings
from brainrdl.experiment_file.task import (
    AnalysisSettings,
    DeformedSettings,
    Experiment,
    TeacherSettings,
    task_experiment,
)

__all__ = [
    "AnalysisSettings",
    "BrainExperiment",
    "DeformedSettings",
    "Experiment",
    "NetworkSettings",
    "PreprocessSettings",
    "TeacherSettings",
    "TrainingSettings",
    "built_in_experiments",
    "load_experiment",
]


def load_experiment(
    source: str | Path, changes: Iterable[str] = (), methods: Iterable[str] = (), seeds: Iterable[int] = ()
) -> Experiment | BrainExperiment:
    """Read an experiment: a file, or the name of a built-in one. One with `stimuli` has a brain as teacher.

    changes: "key.path=value" (the value as YAML), over what the file says. methods, seeds: instead of the file's;
    methods must be labels of the file. Raises ValueError with file, field, what was expected and what came.
    """
    raw = read_experiment(source, changes, methods, seeds)
    return brain_experiment(raw) if "stimuli" in raw.settings else task_experiment(raw)
