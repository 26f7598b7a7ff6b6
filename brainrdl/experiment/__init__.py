"""An experiment file made into a run: a folder of finished parts, each made once."""

from __future__ import annotations

from pathlib import Path

from brainrdl.experiment.brain import describe_brain_experiment, run_brain_experiment
from brainrdl.experiment.common import RunOptions
from brainrdl.experiment.describe_task import describe_task_experiment
from brainrdl.experiment.search import run_search
from brainrdl.experiment.task import run_task_experiment
from brainrdl.experiment_file import BrainExperiment, Experiment
from brainrdl.folder_lock import locked

__all__ = ["RunOptions", "describe_experiment", "run_experiment", "search_settings"]


def run_experiment(experiment: Experiment | BrainExperiment, out: Path, options: RunOptions | None = None) -> bool:
    """Run every part of the experiment that `out` does not hold yet; True in the process that wrote it.

    Raises ValueError before anything is written where a setting cannot work, where `out` holds another experiment
    (the setting that differs is named) or an unfinished one (unless `options.resume`), and where another process is
    writing to it.
    """
    options = options or RunOptions()
    with locked(Path(out), n_processes=options.devices * options.nodes):
        if isinstance(experiment, BrainExperiment):
            return run_brain_experiment(experiment, out, options)
        return run_task_experiment(experiment, out, options)


def describe_experiment(experiment: Experiment | BrainExperiment, allow_code: bool = False) -> str:
    """What an experiment would do, after the checks that `run_experiment` makes first (ValueError as there)."""
    if isinstance(experiment, BrainExperiment):
        return describe_brain_experiment(experiment, allow_code)
    return describe_task_experiment(experiment, allow_code)


def search_settings(experiment: Experiment | BrainExperiment, out: Path, options: RunOptions | None = None) -> bool:
    """Search the settings that the experiment's `search` says; as `brainrdl.experiment.search.run_search`.

    Raises ValueError for an experiment with brain data, whose settings are chosen within its folds (`choose`).
    """
    if isinstance(experiment, BrainExperiment):
        raise ValueError("--search is for experiments with a task; with brain data, settings are chosen by 'choose'")
    options = options or RunOptions()
    with locked(Path(out), n_processes=options.devices * options.nodes):
        return run_search(experiment, out, options)
