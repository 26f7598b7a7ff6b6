"""The folder of a run: its parts, what makes them comparable, and the tables of a training."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from brainrdl import __version__
from brainrdl.runs import first_difference, read_json, write_atomically, write_json
from brainrdl.settings import read_yaml

EXPERIMENT = "experiment.yaml"
SEARCH = "search.csv"  # every trial of a search
TRIAL = ".trial-"  # between a method's label and the number of its trial
THUMBNAILS = "thumbnails.npz"  # of the figures' stimuli
_PART = "part.json"

# Tables of epochs are written at most this often, in seconds; the checkpoint holds their rows all the same.
_TABLES_EVERY = 2.0


@dataclass(frozen=True)
class Part:
    """One training of a run: its folder, and the settings that determine its result.

    detail: what tells it from others of the same label and seed.
    """

    label: str
    seed: int
    folder: Path
    settings: dict[str, Any]
    finished: bool = False
    detail: str = ""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        if self.label == "teacher":
            return self.label
        return f"{self.label}, seed {self.seed}" + (f", {self.detail}" if self.detail else "")

    @property
    def checkpoint(self) -> Path:
        """The file to go on from."""
        return self.folder / "checkpoint" / "last.pt"

    def mark(self, finished: bool) -> None:
        """Write down its settings, and whether it is finished."""
        write_json(self.folder / _PART, {"finished": finished, "settings": self.settings})


def teacher_file(name: str, group: int | None) -> str:
    """As the file of a measured teacher's RDMs is called; group: of subjects, those that it leaves out."""
    return f"{name}.h5" if group is None else f"{name}_subjects-{group}.h5"


def extended(out: Path, experiment: dict[str, Any]) -> dict[str, Any]:
    """The experiment together with what the folder holds already: more methods and seeds extend a run.

    Raises ValueError where the folder holds another experiment, naming the setting that differs, or other things.
    """
    stored = out / EXPERIMENT
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file, expected a folder; give another --out")
    if not stored.exists():
        if out.exists() and any(out.iterdir()):
            raise ValueError(f"{out} is not empty and holds no experiment of ours; give another --out")
        return experiment
    before = read_yaml(stored)
    both = set(experiment["methods"]) & set(before.get("methods", {}))
    difference = first_difference(_comparable(before, both), _comparable(experiment, both))
    if difference:
        raise ValueError(
            f"{out} holds another experiment, nothing was changed in it: {difference}; "
            "give another --out, or the same settings"
        )
    return {
        **experiment,
        "methods": {**before["methods"], **experiment["methods"]},
        "seeds": sorted({*before["seeds"], *experiment["seeds"]}),
    }


def looked_at(parts: Iterable[Part], resume: bool) -> list[Part]:
    """The parts, finished ones marked.

    Raises ValueError for a part made with other settings and, unless `resume`, for an unfinished one.
    """
    result = []
    for part in parts:
        marker = part.folder / _PART
        stored: dict[str, Any] = {"settings": part.settings, "finished": False}
        if marker.exists():
            stored = read_json(marker)
        difference = first_difference(stored["settings"], part.settings)
        if difference:
            raise ValueError(
                f"{part.folder} was made with other settings, nothing was changed in it: {difference}; "
                "give another --out, or the same settings"
            )
        if marker.exists() and not stored["finished"] and not resume:
            raise ValueError(f"{part.folder} is unfinished; go on with --resume, or give another --out")
        result.append(replace(part, finished=stored["finished"]))
    return result


class HistoryFiles:
    """history.csv and timing.csv of a part, and TensorBoard's files where it is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        # What an earlier, interrupted process has measured stays; its records come without timing.
        timing = folder / "timing.csv"
        self._timing = pd.read_csv(timing) if timing.exists() else pd.DataFrame({"epoch": pd.Series(dtype=int)})
        self._written = time.monotonic()
        self._board: Callable[[dict[str, Any]], None] | None = None

    def add(self, row: dict[str, Any], timing: dict[str, float]) -> None:
        """Take an epoch's record; write the tables now and then."""
        self.rows.append(row)
        if not timing:
            return
        now = pd.DataFrame([{"epoch": row["epoch"], **timing}])
        before = self._timing[self._timing["epoch"] < row["epoch"]]
        self._timing = pd.concat([before, now], ignore_index=True) if len(before) else now
        self._board = self._board or _tensorboard(self.folder)
        self._board(row)
        if time.monotonic() > self._written + _TABLES_EVERY:
            self.write()

    def write(self) -> None:
        """Write the tables."""
        write_table(self.folder / "history.csv", pd.DataFrame(self.rows))
        write_table(self.folder / "timing.csv", self._timing)
        self._written = time.monotonic()

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether the validation error of the main stage has not fallen for `patience` epochs."""
        errors = [row["validation_error"] for row in self.rows if "validation_error" in row and row["stage"] == "main"]
        if patience is None or not errors:
            return False
        return len(errors) - 1 - errors.index(min(errors)) >= patience


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a CSV file, whole or not at all."""
    write_atomically(path, lambda draft: frame.to_csv(draft, index=False))


def file_checksum(path: str | None) -> str | None:
    """SHA-256 of a file's content, so that its path does not matter; None for none, "pretrained" as it is."""
    if path is None or path == "pretrained":
        return path
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment(device: torch.device, n_processes: int, threads: int) -> dict[str, Any]:
    """Versions, machine and git commit, for whoever reads a result later. threads: of a training."""
    packages = ("torch", "torchvision", "lightning-fabric", "numpy", "rsatoolbox", "scikit-learn", "pandas")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {
        "brainrdl": __version__,
        "git_commit": commit or None,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
        "platform": platform.platform(),
        "device": f"{device.type} {name}".strip(),
        "processes": n_processes,
        "cores": os.cpu_count(),
        "threads": threads,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _comparable(settings: dict[str, Any], labels: set[str]) -> dict[str, Any]:
    """An experiment without what extends it (seeds, and methods that only one of two has) or changes no training."""
    apart = ("seeds", "methods", "published", "search")
    same = {key: value for key, value in settings.items() if key not in apart}
    return {**same, "methods": {label: settings["methods"][label] for label in sorted(labels)}}


def _tensorboard(folder: Path) -> Callable[[dict[str, Any]], None]:
    """Write history rows for TensorBoard; nothing where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return lambda row: None
    writer = SummaryWriter(str(folder / "tensorboard"))

    def write(row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name not in ("stage", "epoch"):
                writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    return write
