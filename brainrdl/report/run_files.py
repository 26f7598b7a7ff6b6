"""Tables, settings and pictures of a run, read so that a damaged file is named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from brainrdl.data.thumbnails import Thumbnails, load_thumbnails
from brainrdl.rdms import load_rdms
from brainrdl.run_folder import EXPERIMENT, THUMBNAILS, check_noted, read_table
from brainrdl.settings import read_yaml

if TYPE_CHECKING:
    from rsatoolbox.rdm import RDMs


def read_experiment(folder: Path, *others: str) -> dict[str, Any]:
    """The resolved experiment file of a run, which has the keys methods, seeds and `others`.

    Raises ValueError for a folder that is no run, and naming the file where it is damaged.
    """
    path = folder / EXPERIMENT
    if not path.is_file():
        raise ValueError(f"'{folder}' is no run: it has no experiment.yaml; give the folder that `brainrdl run` wrote")
    check_noted(folder, EXPERIMENT)
    settings = read_yaml(path)
    methods, seeds = settings.get("methods"), settings.get("seeds")
    usable = isinstance(methods, dict) and isinstance(seeds, list) and all(isinstance(seed, int) for seed in seeds)
    if not usable or not set(others) <= set(settings):
        raise ValueError(
            f"{path}: expected the keys methods (label: settings) and seeds (whole numbers)"
            f"{''.join(f', {key}' for key in others)}; restore the file, or run the experiment again"
        )
    return settings


def predictions_file(part: Path) -> Path | None:
    """Where a finished network's predictions stand: predictions.csv, or the same packed; None where there are none."""
    files = (part / "predictions.csv", part / "predictions.csv.gz")
    return next((file for file in files if file.is_file()), None)


def read_predictions(path: Path) -> pd.DataFrame:
    """The table of a network's predictions, ids as text. Raises ValueError naming the file where it is damaged."""
    return read_table(path, ("stimulus", "label", "predicted"))


def read_thumbnails(folder: Path, ids: Iterable[str]) -> Thumbnails:
    """The run's pictures of these stimuli; none where it has no file of them, as older runs."""
    path = folder / THUMBNAILS
    check_noted(folder, THUMBNAILS)  # missing ones, too
    return load_thumbnails(path, ids) if path.is_file() else {}


def read_run_rdms(folder: Path, name: str) -> RDMs:
    """RDMs in the run's folder that belong to no part. Raises ValueError naming the file where it is damaged."""
    check_noted(folder, name)
    return load_rdms(folder / name)
