from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from rsatoolbox.rdm import RDMs, calc_rdm
from rsatoolbox.data import Dataset

from brainrdl.analysis import load_rdms, save_rdms

LAYERS = ("conv1", "conv2", "fc", "softmax")
# method -> (its test error, how far its fc layer lies towards the teacher's)
METHODS = {"baseline": (0.10, 0.0), "finetuning": (0.07, 0.9), "rdl": (0.06, 0.6)}


def synthetic_run(folder, methods=METHODS, seeds=(0, 1, 2), n_test=400, n_classes=10, n_epochs=8, names=None):
    """A run directory as an experiment leaves it, out of random but structured networks."""
    random = np.random.default_rng(0)
    names = names or [str(k) for k in range(n_classes)]
    ids = [f"synthetic/{k:04d}" for k in range(n_test)]
    labels = np.arange(n_test) % n_classes
    figure_labels = np.repeat(np.arange(n_classes), 100 // n_classes)[random.permutation(100 // n_classes * n_classes)]
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
