"""Small experiments in which everything is written that a run can write."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tiny_experiments import NETWORK, OF_BRAIN, write_brain, write_yaml

_TEACHER = {**NETWORK, "deformed": {"train": 120, "validation": 30}, "training": {"epochs": 2, "batch_size": 20}}


class Experiment(NamedTuple):
    """An experiment's file, and the words of the command that are its own."""

    file: Path
    words: tuple[str, ...] = ()


def write_experiments(folder: Path) -> dict[str, Experiment]:
    """Name -> experiment: every method with a task; brains as teachers; a search in which a trial diverges."""
    spec = write_brain(folder)
    return {
        "task": Experiment(write_yaml(folder / "task.yaml", task())),
        "brain": Experiment(write_yaml(folder / "brains.yaml", brain(spec))),
        "search": Experiment(write_yaml(folder / "search.yaml", search()), ("--search",)),
    }


def task() -> dict[str, Any]:
    """Every kind of method, two stages, dropout, the best epoch so far, patience and RDMs after every epoch."""
    fc = {"layers": {"fc": "fc"}}
    return {
        "name": "killed",
        "data": {"spec": "digits", "train": 80, "validation": 40, "test": 60},
        "student": NETWORK,
        "teacher": _TEACHER,
        "training": {"epochs": 3, "batch_size": 16, "keep": "best", "clip": 2.0, "learning_rate": 0.1},
        "methods": {
            "baseline": {"training": {"epochs": 6, "patience": 2}},
            "finetuning": None,
            "deep_supervision": {"layers": ["pool1"]},
            "hints": {"layers": {"pool1": "pool1"}, "hint_epochs": 2},
            "distillation": None,
            "rdl": {"layers": {"pool1": "pool1", "fc": "fc"}, "pairs": 40, "alpha": 3.0},
            "rkd": fc,
            "cka": fc,
            "similarity_preserving": {"layers": {"pool2": "pool2"}},
            "combined": {
                "parts": [{"method": "rdl", **fc, "pairs": 30}, {"method": "distillation"}],
                "training": {"accumulate": 2, "optimizer": "adamw", "learning_rate": 0.01},
            },
            "few": {"method": "rdl", **fc, "pairs": 30, "n_train": 48},
        },
        "seeds": [0],
        "analysis": {"layers": ["conv1", "fc"], "n_per_class": 2, "every": 1},
    }


def brain(spec: Path) -> dict[str, Any]:
    """Networks without and with training, alone and beside a task, of chosen settings."""
    pull = {"teacher": "it", "layers": {"fc": "IT"}}
    return {
        "name": "killed_brains",
        "stimuli": {"spec": str(spec), "categories": "category"},
        "students": {"cnn": OF_BRAIN},
        "teachers": {"it": {"spec": str(spec), "select": {"subject": "sub-01"}}},
        "task": {"column": "category"},
        "training": {"epochs": 3, "batch_size": 4, "optimizer": "adamw", "learning_rate": 0.01},
        "folds": {"n": 2, "stratify": "category"},
        "choose": {"inner": 2, "grid": {"alpha": [0.5, 5.0]}},
        "methods": {"untrained": {}, "it": pull, "it_task": {**pull, "task_weight": 1.0}},
        "score": {"spec": str(spec), "select": {"subject": ["sub-02", "sub-03"]}, "layers": ["fc"]},
        "seeds": [0],
    }


def search() -> dict[str, Any]:
    """Trials, one of which diverges."""
    return {
        "name": "killed_search",
        "data": {"spec": "digits", "train": 80, "validation": 40, "test": 60},
        "student": NETWORK,
        "teacher": _TEACHER,
        "training": {"epochs": 4, "batch_size": 16},
        "methods": {"baseline": None, "rdl": {"layers": {"fc": "fc"}, "pairs": 40}},
        "seeds": [0],
        "search": {"trials": 2, "epochs": 1.0, "seed": 3, "every": {"training.learning_rate": [0.05, 1e18]}},
    }
