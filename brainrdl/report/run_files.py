"""Tables, settings and pictures of a run, read so that a damaged file is named."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from gzip import BadGzipFile
from pathlib import Path
from typing import Any

import pandas as pd

from brainrdl.data.thumbnails import Thumbnails, load_thumbnails
from brainrdl.run_folder import EXPERIMENT, THUMBNAILS
from brainrdl.runs import read_json
from brainrdl.settings import read_yaml

_NO_TABLE = (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError)


def read_experiment(folder: Path, *others: str) -> dict[str, Any]:
    """The resolved experiment file of a run, which has the keys methods, seeds and `others`.

    Raises ValueError for a folder that is no run, and naming the file where it is damaged.
    """
    path = folder / EXPERIMENT
    if not path.is_file():
        raise ValueError(f"'{folder}' is no run: it has no experiment.yaml; give the folder that `brainrdl run` wrote")
    settings = read_yaml(path)
    methods, seeds = settings.get("methods"), settings.get("seeds")
    usable = isinstance(methods, dict) and isinstance(seeds, list) and all(isinstance(seed, int) for seed in seeds)
    if not usable or not set(others) <= set(settings):
        raise ValueError(
            f"{path}: expected the keys methods (label: settings) and seeds (whole numbers)"
            f"{''.join(f', {key}' for key in others)}; restore the file, or run the experiment again"
        )
    return settings


def read_marks(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """What a JSON file of a part says, which has these keys. Raises ValueError naming it where it is damaged."""
    found = read_json(path)
    if not isinstance(found, dict) or not set(keys) <= set(found):
        raise ValueError(f"{path}: expected the keys {', '.join(keys)}; delete it, and run that part again")
    return found


def read_table(path: Path, columns: Collection[str], as_text: bool = False) -> pd.DataFrame:
    """A table that has rows and these columns, stimulus ids as text.

    as_text: all cells as they stand. Raises ValueError naming the file where it is missing or damaged.
    """
    try:
        # An id such as "NA" or "007" is text.
        dtype: Any = str if as_text else {"stimulus": str}
        frame = pd.read_csv(path, dtype=dtype, keep_default_na="stimulus" not in columns)
    except FileNotFoundError:
        raise ValueError(f"'{path}' is missing; restore it, or run the experiment again") from None
    except (*_NO_TABLE, EOFError, BadGzipFile, zlib.error) as error:
        raise ValueError(f"'{path}' is not a table: {error}; run that part again") from error
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        what = f"column '{missing[0]}' is missing" if missing else "it has no rows"
        raise ValueError(f"'{path}': {what}; expected {', '.join(columns)}; run that part again")
    return frame


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
    return load_thumbnails(path, ids) if path.is_file() else {}
