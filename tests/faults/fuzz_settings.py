"""Valid settings of every kind of file, drawn for fuzz_files.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutations import dump, pick
from PIL import Image

_CNN = {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [2, 3], "n_hidden": 8}
_LAYERS = ("conv1", "pool1", "conv2", "pool2", "fc", "readout")
_MEASURES = ("euclidean", "sqeuclidean", "correlation", "cosine")


def _some(generator: np.random.Generator, values: Any, at_least: int = 1) -> list[Any]:
    n = int(generator.integers(at_least, len(values) + 1))
    return [values[k] for k in sorted(generator.permutation(len(values))[:n])]


def _maybe(generator: np.random.Generator, settings: dict[str, Any]) -> dict[str, Any]:
    """Some of the settings."""
    return {key: value for key, value in settings.items() if generator.random() < 0.3}


def _training(generator: np.random.Generator) -> dict[str, Any]:
    others = {
        "optimizer": pick(generator, ["sgd", "adamw"]),
        "learning_rate": pick(generator, [0.001, 0.01, 0.05]),
        "momentum": pick(generator, [0.0, 0.5, 0.9]),
        "weight_decay": pick(generator, [0.0, 0.001]),
        "schedule": pick(generator, ["linear", "halving", "constant"]),
        "halve_every": int(generator.integers(1, 5)),
        "warm_up": pick(generator, [0, 0.5, 1]),
        "clip": pick(generator, [None, 1.0, 2]),
        "accumulate": pick(generator, [1, 2]),
        "keep": pick(generator, ["last", "best"]),
        "patience": pick(generator, [None, 1, 3]),
        "channels_last": pick(generator, [True, False]),
        "checkpoint_activations": pick(generator, [[], ["conv2"]]),
    }
    return {"epochs": 1, "batch_size": pick(generator, [10, 20]), **_maybe(generator, others)}


def _network(generator: np.random.Generator) -> dict[str, Any]:
    settings: dict[str, Any] = {"network": "mnist_cnn", "arguments": dict(_CNN)}
    if generator.random() < 0.3:
        settings["preprocess"] = {"mean": [0.5], "std": [0.25], "global_contrast": bool(generator.random() < 0.5)}
    return settings


def _method(generator: np.random.Generator, kind: str) -> dict[str, Any]:
    layers = _some(generator, ["pool1", "pool2", "fc"])
    same = {layer: layer for layer in layers}
    alpha = {"alpha": pick(generator, [0.0, 0.1, 1]), "decay": pick(generator, ["linear", "lee", "constant"])}
    drawn: dict[str, dict[str, Any]] = {
        "baseline": {},
        "finetuning": {},
        "deep_supervision": {"layers": _some(generator, ["pool1", "pool2"]), **alpha},
        "hints": {"layers": {"pool2": "pool2"}, "hint_epochs": 1},
        "distillation": {**alpha, "temperature": pick(generator, [1.0, 4])},
        "rkd": {"layers": {"fc": "fc"}},
        "similarity_preserving": {"layers": {"fc": "fc"}},
        "cka": {"layers": {"fc": "fc"}},
        "rdl": {"layers": same, "pairs": pick(generator, [10, 45, None]), **alpha},
    }
    settings = drawn[kind]
    if generator.random() < 0.2:
        settings["n_train"] = 30
    if generator.random() < 0.2:
        settings["training"] = {"learning_rate": 0.02}
    return settings


def task_experiment(generator: np.random.Generator) -> dict[str, Any]:
    """A valid experiment on scikit-learn's digits, which trains in less than a second."""
    kinds = ["baseline", "finetuning", "deep_supervision", "hints", "distillation", "rkd", "similarity_preserving"]
    chosen = _some(generator, [*kinds, "cka", "rdl"])[: int(generator.integers(1, 4))]
    teacher = {**_network(generator), "training": _training(generator)}
    if generator.random() < 0.5:
        teacher["deformed"] = {"train": 40, "validation": 20, **_maybe(generator, {"max_shift": 1.0, "seed": 3})}
    settings = {
        "name": pick(generator, ["tiny", "a.b+c-1", "Größe", "名前"]),
        "data": {"spec": "digits", "train": 40, "validation": 20, "test": 30},
        "student": _network(generator),
        "teacher": teacher,
        "training": _training(generator),
        "methods": {kind: _method(generator, kind) for kind in chosen},
        "analysis": {
            "layers": _some(generator, _LAYERS),
            "n_per_class": 2,
            "dissimilarity": pick(generator, _MEASURES),
            **_maybe(generator, {"every": pick(generator, [0, 1, [1]]), "test_every": 2}),
        },
    }
    if generator.random() < 0.3:
        settings["seeds"] = _some(generator, [0, 1, 7])[:2]
    if generator.random() < 0.2:
        settings["published"] = {"source": "a paper", "test_error_percent": {chosen[0]: 12.5}}
    if generator.random() < 0.3:
        settings["search"] = search_block(generator)
    return settings


def search_block(generator: np.random.Generator) -> dict[str, Any]:
    """The settings under `search`."""
    every = {"training.learning_rate": [0.01, 0.1], "training.weight_decay": [0.0, 0.01]}
    return {"trials": pick(generator, [1, 2]), "epochs": pick(generator, [0.5, 1]), "every": every}


_IDS = [f"stim{k:02d}" for k in range(12)]


def write_brain_set(folder: Path) -> None:
    """A brain data set of RDMs with images: brain.yaml, brain/."""
    generator = np.random.default_rng(0)
    place = folder / "brain"
    (place / "images").mkdir(parents=True)
    patterns = generator.normal(size=(4, 12, 30)) + generator.normal(size=(12, 30))
    np.save(place / "IT.npy", np.stack([1 - np.corrcoef(one) for one in patterns]))
    for stimulus in _IDS:
        Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(place / "images" / f"{stimulus}.png")
    rows = [f"{stimulus}\t{'abc'[k % 3]}\t{k % 4}" for k, stimulus in enumerate(_IDS)]
    (place / "stimuli.tsv").write_text("\n".join(["stimulus\tcategory\tgroup", *rows]) + "\n")
    (folder / "brain.yaml").write_text(dump(brain_spec()))


def brain_spec() -> dict[str, Any]:
    """The spec of `write_brain_set`."""
    descriptors = {"roi": "IT", "subject": [f"sub-{k}" for k in range(4)]}
    return {
        "kind": "brain",
        "name": "measured",
        "folder": "brain",
        "stimuli": {"table": "stimuli.tsv", "file": "images/{stimulus}.png", "size": [8, 8], "channels": 1},
        "data": {"format": "rdms", "files": [{"file": "IT.npy", "measure": "correlation", "descriptors": descriptors}]},
    }


def brain_experiment(generator: np.random.Generator) -> dict[str, Any]:
    """A valid experiment on `write_brain_set`."""
    pull = {"teacher": "it", "layers": {"fc": "IT"}, "alpha": 1.0, "decay": "constant"}
    methods: dict[str, dict[str, Any]] = {
        "untrained": {},
        "task": {"task_weight": 1.0},
        "it": pull,
        "category": {**pull, "control": "category", "by": "category"},
        "shuffled": {**pull, "control": "shuffled"},
        "random": {**pull, "control": "random"},
        "both": {**pull, "task_weight": 0.5},
    }
    labels = _some(generator, list(methods))[:2]
    settings: dict[str, Any] = {
        "name": "tiny",
        "stimuli": {"spec": "brain.yaml", "categories": "category"},
        "students": {"cnn": {"network": "mnist_cnn", "arguments": {**_CNN, "n_classes": 3}}},
        "teachers": {"it": {"spec": "brain.yaml", "subject_folds": 2}},
        "task": {"column": "category"},
        "training": {"epochs": 1, "optimizer": "adamw", "learning_rate": 0.01, "schedule": "constant"},
        "folds": {"n": 2, **_maybe(generator, {"stratify": "category", "seed": 3})},
        "methods": {label: methods[label] for label in labels},
        "score": {
            "spec": "brain.yaml",
            "layers": ["fc"],
            **_maybe(generator, {"dissimilarity": pick(generator, _MEASURES), "comparison": "corr"}),
        },
    }
    if "it" in labels and generator.random() < 0.3:
        settings["choose"] = {"inner": 2, "grid": {"alpha": [0.5, 1.0]}}
    return settings


def image_spec(generator: np.random.Generator) -> dict[str, Any]:
    """A valid data spec of images: scikit-learn's digits, or the folder of `write_classes`."""
    if generator.random() < 0.3:
        digits = {"size": [8, 8], "channels": 1, "classes": [str(k) for k in range(10)]}
        return {"name": "my_digits", "format": "digits", **digits}
    settings: dict[str, Any] = {"name": "mine", "format": "image_folder", "folder": "images", "channels": 3}
    source = {"publisher": "me", "url": "https://example.org", "licence": "CC0", "citation": "None (2026)"}
    file = {"url": "https://example.org/a.zip", "sha256": "0" * 64, "path": "a.zip", "unpack": True, "size": 5}
    others = {"title": "Images", "size": [6, 6], "max_gib": 0.5, "source": source, "files": [file], "instructions": "x"}
    return {**settings, **_maybe(generator, others)}


def network_file(generator: np.random.Generator) -> dict[str, Any]:
    """A valid network file."""
    settings = {**_network(generator), "layers": _some(generator, ["conv1", "fc", "", "softmax"])[:2], "n_per_class": 1}
    settings["data"] = {"spec": "digits", "train": 20, "validation": 0, "test": 30}
    return {**settings, **_maybe(generator, {"dissimilarity": pick(generator, _MEASURES), "name": "mine"})}
