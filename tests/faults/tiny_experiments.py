"""What the experiments of these tools and tests are made of: a tiny network, brains, files, the command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from click.testing import Result
from PIL import Image
from scipy.spatial.distance import squareform
from typer.testing import CliRunner

CNN = {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [2, 4], "n_hidden": 8}
NETWORK = {"network": "mnist_cnn", "arguments": CNN}
OF_BRAIN = {"network": "mnist_cnn", "arguments": {**CNN, "n_classes": 3}}  # of the categories of `write_brain`


def write_yaml(path: Path, settings: Mapping[str, Any]) -> Path:
    """The settings as a file, in their order."""
    plain = json.loads(json.dumps(settings))  # else what stands in two places is written as a reference
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    return path


def write_brain(folder: Path, name: str = "brain", n: int = 18, seed: int = 0) -> Path:
    """Images of 8 × 8 pixels, a table with 3 categories, RDMs of region IT of 3 subjects; their data spec NAME.yaml."""
    random = np.random.default_rng(seed)
    ids = [f"stim{k:02d}" for k in range(n)]
    place = folder / name
    (place / "images").mkdir(parents=True)
    for one in ids:
        Image.fromarray(random.integers(0, 255, (8, 8)).astype(np.uint8)).save(place / "images" / f"{one}.png")
    table = pd.DataFrame({"stimulus": ids, "category": ["animal", "face", "tool"] * (n // 3)})
    table.to_csv(place / "stimuli.tsv", sep="\t", index=False)
    np.save(place / "IT.npy", np.stack([squareform(random.uniform(0.0, 2.0, n * (n - 1) // 2)) for _ in range(3)]))
    of_file = {"roi": "IT", "subject": ["sub-01", "sub-02", "sub-03"]}
    spec = {
        "kind": "brain",
        "name": name,
        "folder": name,
        "stimuli": {"table": "stimuli.tsv", "file": "images/{stimulus}.png", "size": [8, 8], "channels": 1},
        "data": {"format": "rdms", "files": [{"file": "IT.npy", "measure": "correlation", "descriptors": of_file}]},
    }
    return write_yaml(folder / f"{name}.yaml", spec)


def call(*words: object) -> Result:
    """The command in this process."""
    from brainrdl.cli import app

    return CliRunner().invoke(app, [str(word) for word in words])
