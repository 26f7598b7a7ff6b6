"""What a run of methods that learn a task left on disk: predictions, histories and RDMs, finished or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from brainrdl.rdms import join_rdms, load_rdms
from brainrdl.report.run_files import predictions_file, read_experiment, read_predictions
from brainrdl.run_folder import REFERENCES, REPORTED, SEARCH, TRIAL, check_noted, check_part, read_table, remedy_of

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs

TEACHER = "teacher"
BASELINE = "baseline"
_RDMS = "rdms.h5"


@dataclass(frozen=True)
class TaskRun:
    """A run as far as it got.

    settings: the experiment file. methods, seeds: all that it asks for, in its order. predictions: on the test set, of
    finished networks only, keyed (method, seed); the teacher, one network for all seeds, has seed None. histories: a
    row an epoch, of every network that has one, finished or not.
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    predictions: dict[tuple[str, int | None], pd.DataFrame] = field(default_factory=dict)
    histories: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)

    def part(self, method: str, seed: int | None) -> Path:
        """The folder of one network; seed None: the teacher's."""
        return self.folder / TEACHER if seed is None else self.folder / method / f"seed-{seed}"

    def finished(self, method: str) -> list[int]:
        """The seeds of which the method's network is finished."""
        return [seed for seed in self.seeds if (method, seed) in self.predictions]

    @property
    def any_finished(self) -> bool:
        """Whether a network of any method is finished."""
        return any(self.finished(method) for method in self.methods)

    def check_finished(self) -> None:
        """Raise ValueError where no network of any method is finished."""
        if not self.any_finished:
            raise ValueError(
                f"'{self.folder}' has no finished part yet; let `brainrdl run` finish at least one method and seed"
            )

    @property
    def missing(self) -> dict[str, list[int]]:
        """Seeds of each method that are not finished; methods without such seeds are left out."""
        seeds = {method: [s for s in self.seeds if s not in self.finished(method)] for method in self.methods}
        return {method: lacking for method, lacking in seeds.items() if lacking}

    @property
    def finished_histories(self) -> dict[tuple[str, int], pd.DataFrame]:
        """The histories of finished networks alone."""
        return {key: frame for key, frame in self.histories.items() if key in self.predictions}

    @property
    def logged_seeds(self) -> list[int]:
        """The seeds of which any method has RDMs on disk."""
        return [s for s in self.seeds if any((self.part(method, s) / _RDMS).is_file() for method in self.methods)]


def read_task_run(folder: str | Path) -> TaskRun:
    """Read what there is of a run, except its RDMs; nothing need be finished.

    Raises ValueError for a folder that is no run, for that of a search, and for damaged files, by name.
    """
    folder = Path(folder)
    experiment = read_experiment(folder)
    if any(TRIAL in method for method in experiment["methods"]):
        raise ValueError(
            f"'{folder}' holds the trials of a search, which have seen no test image; its table is {folder / SEARCH}"
        )
    methods, seeds = tuple(experiment["methods"]), tuple(experiment["seeds"])
    run = TaskRun(folder, str(experiment.get("name", folder.name)), experiment, methods, seeds)
    for method, seed in [(method, seed) for method in methods for seed in seeds]:
        part = run.part(method, seed)
        check_part(part, REPORTED)
        # A part's predictions are written when its training is over.
        if predictions := predictions_file(part):
            run.predictions[method, seed] = read_predictions(predictions)
        check_noted(part, "history.csv")
        if (part / "history.csv").is_file():
            # Errors are measured in the main stage alone, which an unfinished network may not have reached.
            errors = ("train_error", "test_error") if (method, seed) in run.predictions else ()
            run.histories[method, seed] = read_table(part / "history.csv", ("epoch", *errors))
    check_part(run.part(TEACHER, None), REPORTED)
    if predictions := predictions_file(run.part(TEACHER, None)):
        run.predictions[TEACHER, None] = read_predictions(predictions)
    return run


def final_rdms(run: TaskRun) -> tuple[RDMs | None, list[str]]:
    """RDMs of the first seed that has any, last epoch: pixels, labels, the finished methods, the teacher.

    Returns None where no finished network has RDMs, and a line for each part that is missing.
    Raises ValueError where the RDMs are not over the same stimuli, or lack a descriptor.
    """
    files = {(method, seed): run.part(method, seed) / _RDMS for method, seed in run.predictions}
    seeds = [seed for seed in run.seeds if any(files[m, s].is_file() for m, s in files if s == seed)]
    if not seeds:
        return None, [f"no finished part has an {_RDMS}"]
    check_noted(run.folder, REFERENCES)
    paths: Mapping[str, Path] = {
        "pixels and labels": run.folder / REFERENCES,
        **{method: path for (method, seed), path in files.items() if seed == seeds[0]},
        TEACHER: run.part(TEACHER, None) / _RDMS,
    }
    unfinished = [method for method in run.methods if method not in paths]
    lacking = [f"{method} (seed {seeds[0]} is not finished)" for method in unfinished]
    parts = []
    for what, path in paths.items():
        if path.is_file():
            parts.append(_last_epoch(_read_rdms(path)))
        else:
            lacking.append(f"{what} ({path.relative_to(run.folder).as_posix()} is missing)")
    return join_rdms(parts), lacking


def logged_rdms(run: TaskRun, seed: int | None = None) -> RDMs:
    """RDMs of all logged epochs of one seed: pixels, labels, the methods in their order, the teacher.

    seed: None takes the first that has any. Networks still in training are there as far as they got. The descriptor
    `epoch` counts from 0; -1 is before training, and stands with what was not trained (pixels, labels, the teacher).
    Raises ValueError where there are no RDMs, they are not over the same stimuli, or lack a descriptor.
    """
    seeds = run.logged_seeds
    if not seeds:
        raise ValueError(
            f"'{run.folder}' has no RDMs of any network; let `brainrdl run` go on, with `analysis: layers` in its "
            "experiment file"
        )
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise ValueError(f"'{run.folder}' has no RDMs of seed {seed}; it has: {', '.join(map(str, seeds))}")
    check_noted(run.folder, REFERENCES)
    seed_of = {
        run.folder / REFERENCES: -1,
        **{run.part(method, seed) / _RDMS: seed for method in run.methods},
        run.part(TEACHER, None) / _RDMS: -1,
    }
    parts = {path: _read_rdms(path) for path in seed_of if path.is_file()}
    for path, rdms in parts.items():
        rdms.rdm_descriptors.setdefault("seed", [seed_of[path]] * rdms.n_rdm)
    return join_rdms(list(parts.values()))


def _read_rdms(path: Path) -> RDMs:
    try:
        rdms = load_rdms(path)
    except ValueError as error:
        if path.name != _RDMS:
            raise
        raise ValueError(f"{str(error).split(';')[0]}; {remedy_of(path.parent)}") from None
    for name in ("network", "layer", "epoch"):
        if name not in rdms.rdm_descriptors:
            raise ValueError(f"'{path}': the rdm_descriptor '{name}' is missing; run that part again")
    if path.name == _RDMS:
        part = path.parent
        network = TEACHER if part.name == TEACHER else part.parent.name
        others = {*map(str, rdms.rdm_descriptors["network"])} - {network}
        if others:
            raise ValueError(f"{path}: holds RDMs of '{min(others)}', expected '{network}'; {remedy_of(part)}")
    return rdms


def _last_epoch(rdms: RDMs) -> RDMs:
    epochs: list[Any] = list(rdms.rdm_descriptors["epoch"])
    return rdms.subset("epoch", max(epochs))
