"""Runs on disk as experiments leave them, out of made-up networks."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import RDMs, calc_rdm

from brainrdl.analysis import save_rdms
from brainrdl.report.blocks import Picture

LAYERS = ("conv1", "conv2", "fc", "softmax")
# method -> (its test error, how far its fc layer lies towards the teacher's)
METHODS = {"baseline": (0.10, 0.0), "finetuning": (0.07, 0.9), "rdl": (0.06, 0.6)}


def synthetic_run(
    folder, methods=METHODS, seeds=(0, 1, 2), n_test=400, n_classes=10, n_epochs=8, names=None, n_figure=100
):
    """A run directory as an experiment leaves it, out of random but structured networks."""
    random = np.random.default_rng(0)
    names = names or [str(k) for k in range(n_classes)]
    ids = [f"synthetic/{k:04d}" for k in range(n_test)]
    labels = np.arange(n_test) % n_classes
    figure_labels = random.permutation(np.repeat(np.arange(n_classes), n_figure // n_classes))
    stimuli = {
        "stimulus": [f"synthetic/{k:04d}" for k in range(len(figure_labels))],
        "label": figure_labels.tolist(),
        "category": [names[k] for k in figure_labels],
    }
    folder.mkdir(parents=True)
    experiment = {"name": "synthetic", "methods": {name: {} for name in methods}, "seeds": list(seeds), "data": {}}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))

    pixels = random.normal(size=(len(figure_labels), 60)) + 0.3 * random.normal(size=(n_classes, 60))[figure_labels]
    one_hot = np.eye(n_classes)[figure_labels]
    references = [(pixels, "pixels", "pixels", -1), (one_hot, "labels", "labels", -1)]
    save_rdms(_rdms(references, stimuli), folder / "references.h5")

    class_means = random.normal(size=(n_classes, 60))[figure_labels]
    shared = {layer: random.normal(size=pixels.shape) for layer in LAYERS}

    def network(name, pull, epochs):
        rows = []
        for epoch in epochs:
            learned = 1.0 if epoch == epochs[-1] else 0.2
            for depth, layer in enumerate(LAYERS):
                share = learned * (depth + 1) / len(LAYERS)
                own = random.normal(size=pixels.shape)
                noise = pull * shared[layer] + (1 - pull) * own
                patterns = (1 - share) * pixels + share * (1.5 * class_means + 0.8 * noise)
                if layer == "softmax":
                    logits = 6 * (one_hot + 0.25 * random.normal(size=one_hot.shape))
                    patterns = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                rows.append((patterns, name, layer, epoch))
        return _rdms(rows, stimuli)

    def predictions(error):
        wrong = random.random(n_test) < error
        predicted = np.where(wrong, (labels + 1) % n_classes, labels)
        order = random.permutation(n_test)
        return pd.DataFrame({"stimulus": ids, "label": labels, "predicted": predicted}).iloc[order]

    teacher = folder / "teacher"
    teacher.mkdir()
    predictions(0.03).to_csv(teacher / "predictions.csv", index=False)
    save_rdms(network("teacher", 1.0, [0]), teacher / "rdms.h5")
    for method, (error, pull) in methods.items():
        for seed in seeds:
            part = folder / method / f"seed-{seed}"
            part.mkdir(parents=True)
            predictions(error).to_csv(part / "predictions.csv", index=False)
            save_rdms(network(method, pull, [-1, n_epochs - 1]), part / "rdms.h5")
            epoch = np.arange(n_epochs)
            decay = 0.8 * np.exp(-6 * epoch / n_epochs) * random.uniform(0.9, 1.1)
            history = pd.DataFrame({"stage": 0, "epoch": epoch, "learning_rate": 0.1, "task": decay, "alpha": 1.0})
            history["train_error"] = np.where(epoch > 0.8 * n_epochs, 0, decay / 3)
            history["validation_error"] = history["test_error"] = decay + error * random.uniform(0.9, 1.1)
            history.to_csv(part / "history.csv", index=False)
    return folder


def _rdms(rows, stimuli):
    vectors = np.concatenate([calc_rdm(Dataset(patterns), method="euclidean").dissimilarities for patterns, *_ in rows])
    descriptors = {name: [row[k] for row in rows] for k, name in enumerate(("network", "layer", "epoch"), start=1)}
    return RDMs(vectors, "euclidean", rdm_descriptors=descriptors, pattern_descriptors=dict(stimuli))


@pytest.fixture
def without_saving(monkeypatch):
    """Figures are drawn and not written."""

    def picture(figure, out, name, caption, formats):
        return Picture(name, caption, b"", tuple(out / f"{name}.{suffix}" for suffix in formats))

    monkeypatch.setattr("brainrdl.report.drawing.picture", picture)


@pytest.fixture(scope="session", name="synthetic_run")
def _synthetic_run():
    return synthetic_run


@pytest.fixture(scope="session", name="brain_run")
def _brain_run():
    return brain_run


def brain_run(folder, n_stimuli=24, n_subjects=3):
    """The folder of a run with a brain as teacher: two methods, one of them taught, two folds."""
    random = np.random.default_rng(1)
    ids = [f"object{k:02d}" for k in range(n_stimuli)]
    categories = [("face", "place")[k % 2] for k in range(n_stimuli)]
    stimuli = {"stimulus": ids}
    shape = random.normal(size=(n_stimuli, 30)) + np.arange(n_stimuli)[:, None] % 2
    method = {"task_weight": 0.0, "control": None, "students": None, "alpha": 1.0}
    settings = {
        "name": "brains",
        "stimuli": {"spec": "/somewhere/private/objects.yaml", "categories": "category", "also_within": []},
        "students": {"cnn": {"network": "small_cnn"}},
        "teachers": {"it": {"spec": "kriegeskorte2008", "subject_folds": None, "name": ["roi"]}},
        "methods": {
            "untrained": {**method, "teacher": None, "layers": {}},
            "it": {**method, "teacher": "it", "layers": {"fc": "IT"}},
        },
        "folds": {"n": 2, "splits": 1},
        "choose": None,
        "score": {"spec": "cichy2014", "layers": ["fc"], "dissimilarity": "correlation", "comparison": "spearman"},
        "seeds": [0],
    }
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    pd.DataFrame({"stimulus": ids, "category": categories}).to_csv(folder / "stimuli.csv", index=False)

    def rdms(patterns, **descriptors):
        vectors = np.concatenate([calc_rdm(Dataset(p), method="correlation").dissimilarities for p in patterns])
        return RDMs(vectors, "correlation", rdm_descriptors=descriptors, pattern_descriptors=dict(stimuli))

    brains = [shape + 0.7 * random.normal(size=shape.shape) for _ in range(n_subjects)]
    subjects = [f"sub-{k}" for k in range(n_subjects)]
    save_rdms(rdms(brains, subject=subjects, roi=["IT"] * n_subjects), folder / "brain.h5")
    pixels = [random.normal(size=shape.shape)]
    save_rdms(rdms(pixels, network=["pixels"], layer=["pixels"], seed=[-1], epoch=[-1]), folder / "pixels.h5")
    (folder / "teachers").mkdir()
    save_rdms(rdms([shape + random.normal(size=shape.shape)], roi=["IT"]), folder / "teachers" / "it.h5")
    for name, pull in (("untrained", 0.1), ("it", 0.6)):
        for fold in range(2):
            part = folder / name / "cnn" / "seed-0" / f"split-0_fold-{fold}"
            part.mkdir(parents=True)
            held_out = [s for k, s in enumerate(ids) if (k // 2) % 2 == fold]
            told = {"split": 0, "fold": fold, "group": None, "scored_on": None, "chosen": {}, "epoch": None}
            told |= {"trained": [s for s in ids if s not in held_out], "held_out": held_out}
            (part / "fold.json").write_text(json.dumps(told))
            (part / "part.json").write_text(json.dumps({"finished": True, "settings": {}}))
            patterns = [pull * shape + random.normal(size=shape.shape)]
            made = rdms(patterns, network=[name], layer=["fc"], seed=[0], epoch=[-1])
            save_rdms(made, part / "rdms.h5")
    return folder
