"""What figures take from runs: histories and RDMs of all seeds, agreement with the teacher, scores of a student."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from brainrdl.analysis.figures.style import Width
from brainrdl.rdms import join_rdms, select_rdms
from brainrdl.report.brain import TEACHER as TEACHER_RDM
from brainrdl.report.brain import BrainRun
from brainrdl.report.task_run import TEACHER, TaskRun, logged_rdms, read_task_run
from brainrdl.report.task_tables import missing_lines
from brainrdl.run_folder import EXPERIMENT, check_noted, read_table
from brainrdl.settings import read_yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rsatoolbox.rdm import RDMs


def short_names(paths: Sequence[str]) -> list[str]:
    """What inputs are called: as much of the end of their paths as tells them apart, without a file's suffix.

    What all end with is left out: conv1/features.npy and fc/features.npy are "conv1" and "fc". Raises ValueError where
    a path stands twice.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    for k, path in enumerate(whole):
        if path in whole[:k]:
            raise ValueError(f"'{paths[k]}' is given twice; give each input once")
    parts = [path.with_suffix("").parts if path.is_file() else path.parts for path in whole]
    if len(set(parts)) < len(parts):
        parts = [path.parts for path in whole]
    while len(parts) > 1 and len({own[-1] for own in parts}) == 1:
        parts = [own[:-1] for own in parts]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            break
    return names


def methods_of(inputs: Sequence[str]) -> tuple[str, ...]:
    """All methods of the runs among the inputs, in their experiments' order, as figures call them.

    Each then has its colour in every figure. Of several runs a method is called by the run's name, too.
    """
    runs = [path for path in inputs if is_run(path)]
    names = dict(zip(inputs, short_names(inputs), strict=True))
    return tuple(
        method if len(runs) == 1 else f"{names[path]}: {method}"
        for path in runs
        for method in _settings(path).get("methods", {})
    )


class RunCurves(NamedTuple):
    """histories: the rows of history.csv of every network, with method and seed. agreement: with the teacher's RDMs at
    logged epochs (`agreement_history`); None where there is no teacher network or nothing was logged. notes: a line for
    what is not finished, and is shown as far as it got."""

    histories: pd.DataFrame
    agreement: pd.DataFrame | None
    notes: tuple[str, ...]


def is_run(path: str | Path) -> bool:
    """Whether the path is the folder of a run."""
    return (Path(path) / EXPERIMENT).is_file()


def has_brains(path: str | Path) -> bool:
    """Whether the path is the folder of a run with brains as teachers."""
    return is_run(path) and "stimuli" in _settings(path)


def _settings(run: str | Path) -> dict[str, Any]:
    check_noted(Path(run), EXPERIMENT)
    return read_yaml(Path(run) / EXPERIMENT)


def run_curves(folder: Path) -> RunCurves:
    """What changed with the epochs of a run, finished or not.

    Raises ValueError where no network has a history yet, and as `read_task_run`.
    """
    if has_brains(folder):
        brain_run = BrainRun(folder)
        return RunCurves(_brain_histories(brain_run), None, brain_run.missing_lines())
    run = read_task_run(folder)
    if not run.histories:
        raise ValueError(f"'{folder}' has no history.csv yet; let `brainrdl run` train an epoch")
    frames = [frame.assign(method=method, seed=seed) for (method, seed), frame in run.histories.items()]
    return RunCurves(pd.concat(frames, ignore_index=True), teacher_agreement(run), missing_lines(run))


def teacher_agreement(run: TaskRun) -> pd.DataFrame | None:
    """Agreement of every method's and seed's RDMs with the teacher's of the same layer, at logged epochs.

    None where the run has no teacher, or no RDMs of layers that the teacher has, too.
    """
    from brainrdl.analysis.logged_rdms import agreement_history

    if not run.logged_seeds or not (run.part(TEACHER, None) / "rdms.h5").is_file():
        return None
    rdms = all_logged_rdms(run)
    methods = [name for name in run.methods if name in set(rdms.rdm_descriptors["network"])]
    of_methods, of_teacher = select_rdms(rdms, network=methods), select_rdms(rdms, network=TEACHER)
    shared = set(of_teacher.rdm_descriptors["layer"])
    layers = [layer for layer in dict.fromkeys(of_methods.rdm_descriptors["layer"]) if layer in shared]
    if not layers:
        return None
    return agreement_history(of_methods, of_teacher, layers={layer: layer for layer in layers})


def all_logged_rdms(run: TaskRun) -> RDMs:
    """`logged_rdms` of every seed that has any; what is the same for all seeds (pixels, labels, teacher) once."""
    seeds: list[int | None] = [*run.logged_seeds]
    first, *others = (logged_rdms(run, seed) for seed in seeds or [None])  # None: which says what is missing
    known = set(first.rdm_descriptors["network"]) - set(run.methods)
    return join_rdms([first, *(_without(rdms, known) for rdms in others)])


def _without(rdms: RDMs, networks: set[Any]) -> RDMs:
    return select_rdms(rdms, network=[name for name in rdms.rdm_descriptors["network"] if name not in networks])


def _brain_histories(run: BrainRun) -> pd.DataFrame:
    frames = []
    for network in run.networks:
        path = network.folder / "history.csv"
        if path.is_file():
            split, fold = network.shared
            # A fold of stimuli is learned anew for each group of subjects that is left out.
            fold_of_both = f"{fold}, {network.fold['group']}"
            table = read_table(path, ("epoch",))
            frames.append(table.assign(method=network.label, seed=network.seed, split=split, fold=fold_of_both))
    if not frames:
        raise ValueError(f"'{run.folder}': no network of it was trained, so there are no curves")
    return pd.concat(frames, ignore_index=True)


def agreement_figure(run: BrainRun, subjects: pd.DataFrame, student: str, width: Width = "double") -> Figure:
    """The networks of one student against each subject's RDM, on held-out pairs. subjects: of `brain_tables`."""
    from brainrdl.analysis.figures import agreement

    rows = subjects[subjects["student"].isin([student, ""])]
    rows = rows.assign(network=rows["method"])
    kinds = [kind for kind in ("all", "within") if (subjects["kind"] == kind).any()]
    methods = [method for method in run.settings["methods"] if method in set(rows["method"])]
    return agreement.plot(rows, networks=methods, kinds=kinds, teacher=TEACHER_RDM, width=width)
