"""Experiments one after the other in one process, and what they leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml
from load_resources import Growth, Resources, count, growth, wait_for_no_child
from tiny_experiments import NETWORK, OF_BRAIN, write_brain

from brainrdl.experiment import RunOptions, run_experiment, task
from brainrdl.experiment_file import load_experiment
from brainrdl.report import write_report
from brainrdl.run_folder import HistoryFiles

_METHODS = ("baseline", "finetuning", "deep_supervision", "hints", "distillation", "rkd", "cka")
_METHODS += ("similarity_preserving",)
_OWN: dict[str, Any] = {
    "deep_supervision": {"layers": ["pool1"]},
    "hints": {"layers": {"pool1": "pool1"}, "hint_epochs": 1},
    "rkd": {"layers": {"fc": "fc"}},
    "cka": {"layers": {"fc": "fc"}},
    "similarity_preserving": {"layers": {"pool2": "pool2"}},
    "rdl": {"layers": {"pool1": "pool1", "fc": "fc"}, "alpha": 1e4},
}

# The files that two runs of one experiment must share to the last bit; times and machines are in others.
SAME = (".safetensors", "history.csv", "predictions.csv", "rdms.h5", "results.csv", "scores.csv")


def task_settings(k: int, epochs: int = 1, every: int = 1) -> dict[str, Any]:
    """A tiny experiment with a task, as different from others as `k`: its methods, seed and learning rate."""
    chosen = _METHODS[k % len(_METHODS)], "rdl"
    return {
        "name": f"task-{k}",
        "data": {"spec": "digits", "train": 60, "validation": 30, "test": 40},
        "student": NETWORK,
        "teacher": {**NETWORK, "training": {"epochs": 1, "batch_size": 20}},
        "training": {"epochs": epochs, "batch_size": 20, "learning_rate": 0.01 * (1 + k % 5)},
        "methods": {name: _OWN.get(name) for name in chosen},
        "seeds": [k],
        "analysis": {"layers": ["conv1", "fc"], "n_per_class": 2, "every": every},
    }


def brain_settings(k: int, spec: Path) -> dict[str, Any]:
    """A tiny experiment with brains as teachers."""
    pull = {"teacher": "it", "layers": {"fc": "IT"}, "alpha": 1.0 + k}
    return {
        "name": f"brain-{k}",
        "stimuli": {"spec": str(spec), "categories": "category"},
        "students": {"cnn": OF_BRAIN},
        "teachers": {"it": {"spec": str(spec), "select": {"subject": "sub-01"}}},
        "task": {"column": "category"},
        "training": {"epochs": 1, "optimizer": "adamw", "learning_rate": 0.01},
        "folds": {"n": 2, "stratify": "category"},
        "methods": {"untrained": {}, "it": {**pull, "task_weight": float(k % 2)}},
        "score": {"spec": str(spec), "select": {"subject": ["sub-02", "sub-03"]}, "layers": ["fc"]},
        "seeds": [k],
    }


def run(settings: dict[str, Any], folder: Path, jobs: int = 1, report: bool = False) -> Path:
    """Run an experiment in this process, from its file; its folder."""
    folder.mkdir(parents=True)
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    with redirect_stdout(StringIO()):
        run_experiment(load_experiment(str(file)), folder / "run", RunOptions(jobs=jobs, accelerator="cpu"))
        if report:
            write_report(folder / "run", formats=("png",))
    return folder / "run"


def queue(n: int, n_reports: int, folder: Path, warm_up: int = 5) -> Growth:
    """The growth over `n` different experiments in this process; about `n_reports` have their report made.

    Every fifth has brains as teachers. warm_up: as many more come first.
    """
    spec = write_brain(folder)
    counted = []
    for k in range(warm_up + n):
        of_brains = k % 5 == 4
        settings = brain_settings(k, spec) if of_brains else task_settings(k)
        with_report = (k - warm_up) * n_reports // n < (k - warm_up + 1) * n_reports // n
        run(settings, folder / f"run-{k}", report=with_report)
        if k >= warm_up:
            counted.append(count())
    return growth(range(n), counted)


def queue_with_processes(n: int, folder: Path, jobs: int = 2) -> Growth:
    """The same with the parts of each experiment in processes of their own, the first not counted."""
    counted = []
    for k in range(n + 1):
        run(task_settings(k), folder / f"jobs-{k}", jobs=jobs)
        wait_for_no_child()
        if k:
            counted.append(count())
    return growth(range(n), counted)


def as_fresh(done: Path, folder: Path) -> list[str]:
    """The files in which a run that is done differs from the same experiment in a process of its own.

    done: what `run` gave. Raises ValueError where there is nothing to compare.
    """
    again = folder / "run"
    command = [sys.executable, "-m", "brainrdl", "run", str(done.parent / "experiment.yaml"), "--out", str(again)]
    environment = {**os.environ, "MPLBACKEND": "agg"}
    subprocess.run(
        [*command, "--accelerator", "cpu", "--jobs", "1"], check=True, capture_output=True, env=environment, timeout=300
    )
    return differing(done, again)


def differing(done: Path, again: Path) -> list[str]:
    """The files of two runs that must be alike to the last bit, and are not; raises ValueError where there are none."""
    names = [path.relative_to(done) for path in sorted(done.rglob("*")) if path.name.endswith(SAME)]
    names = [name for name in names if "report" not in name.parts]
    if not names:
        raise ValueError(f"{done} holds nothing to compare")
    return [
        str(name)
        for name in names
        if not (again / name).is_file() or (done / name).read_bytes() != (again / name).read_bytes()
    ]


def epochs(n: int, folder: Path, warm_up: int = 20) -> Growth:
    """The growth over `n` epochs of one student with validation, test, RDMs and a checkpoint after each."""
    counted: list[Resources] = []

    class Counting(HistoryFiles):
        def add(self, row: dict[str, Any], timing: dict[str, float]) -> None:
            super().add(row, timing)
            if self.folder.parent.name == "rdl" and row["epoch"] >= warm_up:
                counted.append(count())

    settings = task_settings(0, epochs=warm_up + n)
    settings["methods"] = {"rdl": settings["methods"]["rdl"]}
    with patch.object(task, "HistoryFiles", Counting):
        run(settings, folder / "epochs")
    return growth(range(len(counted)), counted)
