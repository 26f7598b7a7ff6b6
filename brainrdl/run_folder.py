"""The folder of a run: its parts, what makes them comparable, and the tables of a training."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from gzip import BadGzipFile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from brainrdl import __version__
from brainrdl.folder_lock import LOCK, OWNER
from brainrdl.interruption import postponed
from brainrdl.notes import NOTES
from brainrdl.runs import checksum, damage, fingerprint, first_difference, read_marked, write_atomically, write_marked
from brainrdl.settings import read_yaml

EXPERIMENT = "experiment.yaml"
SEARCH = "search.csv"  # every trial of a search
CHOSEN = "chosen.yaml"  # the experiment with the best settings that a search found
TRIAL = ".trial-"  # between a method's label and the number of its trial
THUMBNAILS = "thumbnails.npz"  # of the figures' stimuli
ENVIRONMENT = "environment.json"
REFERENCES = "references.h5"  # RDMs of pixels and labels
BRAIN = "brain.h5"  # the RDMs that networks are scored against
PIXELS = "pixels.h5"
STIMULI = "stimuli.csv"
TEACHERS = "teachers"  # the folder of their RDMs
WEIGHTS = "weights.safetensors"
_PART = "part.json"
_NOTES = "checksums.json"  # of the files in the run's folder that belong to no part; also in an unfinished part
# What a part comes to. Its checkpoint and TensorBoard's files are none of it, nor what a user puts beside them.
_RESULTS = (
    "history.csv",
    "timing.csv",
    "predictions.csv",
    "rdms.h5",
    WEIGHTS,
    "copied.json",
    "fold.json",
    "choosing.csv",
    "diverged.txt",
    NOTES,
)
REPORTED = tuple(name for name in _RESULTS if name != WEIGHTS)  # what a report and figures are made of

# Tables of epochs are written at most this often, in seconds; the checkpoint holds their rows all the same.
_TABLES_EVERY = 2.0
_NO_TABLE = (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, EOFError, BadGzipFile, zlib.error)


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
    def identity(self) -> str:
        """What its checkpoints are of: no other part's, nor that of other settings."""
        return f"{self.name} ({fingerprint(self.settings)[:12]})"

    @property
    def checkpoint(self) -> Path:
        """The file to go on from."""
        return self.folder / "checkpoint" / "last.pt"

    def mark(self, finished: bool) -> None:
        """Write down its settings, whether it is finished and, where it is, the checksums of its files."""
        marks: dict[str, Any] = {"finished": finished, "settings": self.settings}
        if finished:
            files = [self.folder / name for name in _RESULTS]
            marks["files"] = {file.name: checksum(file) for file in files if file.is_file()}
            (self.folder / _NOTES).unlink(missing_ok=True)
        write_marked(self.folder / _PART, marks)


def teacher_file(name: str, group: int | None) -> str:
    """As the file of a measured teacher's RDMs is called; group: of subjects, those that it leaves out."""
    return f"{name}.h5" if group is None else f"{name}_subjects-{group}.h5"


def extended(out: Path, experiment: dict[str, Any]) -> dict[str, Any]:
    """The experiment together with what the folder holds already: more methods and seeds extend a run.

    Raises ValueError where the folder holds another experiment, naming the setting that differs, or other things.
    """
    stored = out / EXPERIMENT
    if not stored.exists():
        ours = (out / _NOTES).is_file()  # and its experiment file was lost
        if out.exists() and not ours and any(file.name not in (f".{LOCK}", f".{OWNER}") for file in out.iterdir()):
            raise ValueError(f"{out} is not empty and holds no experiment of ours; give another --out")
        return experiment
    check_noted(out, EXPERIMENT)
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


def looked_at(parts: Iterable[Part], resume: bool, verify: bool = True) -> list[Part]:
    """The parts, finished ones marked.

    verify: compare the files of finished parts with their checksums. Raises ValueError for a part made with other
    settings, for a damaged one and, unless `resume`, for an unfinished one.
    """
    result = []
    for part in parts:
        marks = read_marks(part.folder)
        finished = marks is not None and bool(marks["finished"])
        difference = None if marks is None else first_difference(marks["settings"], part.settings)
        if difference:
            raise ValueError(
                f"{part.folder} was made with other settings, nothing was changed in it: {difference}; "
                "give another --out, or the same settings"
            )
        if marks is not None and not finished and not resume:
            raise ValueError(f"{part.folder} is unfinished; go on with --resume, or give another --out")
        if verify:
            check_part(part.folder)
        result.append(replace(part, finished=finished))
    return result


def read_marks(part: Path) -> dict[str, Any] | None:
    """What stands in a part's marker: finished, settings and, of a finished one, files; None where there is none.

    Raises ValueError naming the file where it is damaged.
    """
    marker = part / _PART
    return read_marked(marker, ("finished",), remedy_of(part)) if marker.exists() else None


def check_part(part: Path, files: Collection[str] = _RESULTS) -> None:
    """Raise ValueError where one of these files of a finished part is not what was written; which and what to do.

    Parts that are unfinished, or of versions that wrote no checksums, pass.
    """
    for name, expected in ((read_marks(part) or {}).get("files") or {}).items():
        found = damage(part / name, expected) if name in files else None
        if found:
            raise ValueError(f"{part / name} {found}; {remedy_of(part)}")


def remedy_of(part: Path) -> str:
    """What to do where a file of a part is damaged, in words."""
    return f"delete the folder {part} and run the experiment again with --resume: that part is made anew"


@contextmanager
def noted(out: Path, *names: str) -> Iterator[None]:
    """Files of the run's folder that are written inside; what they come to is noted, for `check_noted`.

    Nothing is known of them while they are written, so that a run that is killed then goes on all the same.
    """
    before = _notes(out)
    write_marked(out / _NOTES, {"files": {name: known for name, known in before.items() if name not in names}})
    yield
    now = {name: checksum(out / name) for name in names if (out / name).is_file()}
    write_marked(out / _NOTES, {"files": {**_notes(out), **now}})


def noted_damage(out: Path, name: str) -> str | None:
    """In words, what has become of a file of the run's folder since it was written; None: nothing that is known."""
    # Twice, since it may be written while it is read.
    for _ in range(2):
        expected = _notes(out).get(name)
        found = None if expected is None else damage(out / name, expected)
        if found is None:
            return None
    return found


def check_noted(out: Path, *names: str) -> None:
    """Raise ValueError where one of these files is not what was written; which and what to do.

    out: the run's folder, or that of an unfinished part.
    """
    for name in names:
        found = noted_damage(out, name)
        if found:
            raise ValueError(f"{out / name} {found}; {_ROOT_REMEDIES.get(name, _MADE_ANEW)}")


_MADE_ANEW = "run the experiment again with --resume: it is made anew"
_ROOT_REMEDIES = {
    EXPERIMENT: "restore it, or delete it and run the experiment again with --resume, with all its methods and seeds; "
    "if you changed it yourself, delete checksums.json beside it",
    **dict.fromkeys(
        (SEARCH, CHOSEN), "restore it, or delete it and search again with --resume: finished trials are not run again"
    ),
}


def _notes(out: Path) -> dict[str, Any]:
    path = out / _NOTES
    if not path.exists():
        return {}
    return dict(read_marked(path, ("files",), "delete it: the next run makes it anew")["files"])


class HistoryFiles:
    """history.csv and timing.csv of a part, and TensorBoard's files where it is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, Any]] = []
        # What an earlier, interrupted process has measured stays; its records come without timing.
        self._timing = _read_timing(folder / "timing.csv")
        self._written = time.monotonic()
        self._board: Callable[[dict[str, Any]], None] | None = None
        self._open = ExitStack()

    def add(self, row: dict[str, Any], timing: dict[str, float]) -> None:
        """Take an epoch's record; write the tables now and then."""
        self.rows.append(row)
        if not timing:
            return
        now = pd.DataFrame([{"epoch": row["epoch"], **timing}])
        before = self._timing[self._timing["epoch"] < row["epoch"]]
        self._timing = pd.concat([before, now], ignore_index=True) if len(before) else now
        if self._board is None:
            # All epochs, in place of what an earlier process may have written of some of them.
            self._board = self._open.enter_context(_tensorboard(self.folder, self.rows[0]["epoch"]))
            for earlier in self.rows[:-1]:
                self._board(earlier)
        self._board(row)
        if time.monotonic() > self._written + _TABLES_EVERY:
            self.write()

    def write(self) -> None:
        """Write the tables; what history.csv comes to is noted, for `check_noted`, until the part is finished."""
        notes, history = self.folder / _NOTES, self.folder / "history.csv"
        write_marked(notes, {"files": {}})  # should this process be killed before the end
        write_table(history, pd.DataFrame(self.rows))
        write_table(self.folder / "timing.csv", self._timing)
        write_marked(notes, {"files": {history.name: checksum(history)}})
        self._written = time.monotonic()

    @contextmanager
    def kept_up(self, writes: bool = True) -> Iterator[None]:
        """A block that adds records: at its end the tables are written, also where a training is ended early.

        writes: False in processes that write no files.
        """
        try:
            yield
        except (KeyboardInterrupt, FloatingPointError):
            if writes and self.rows:
                with postponed():
                    self.write()
            raise
        finally:
            self._open.close()  # each of TensorBoard's has a file and a thread
        if writes:
            self.write()

    def out_of_patience(self, patience: int | None) -> bool:
        """Whether the validation error of the main stage has not fallen for `patience` epochs."""
        errors = [row["validation_error"] for row in self.rows if "validation_error" in row and row["stage"] == "main"]
        if patience is None or not errors:
            return False
        return len(errors) - 1 - errors.index(min(errors)) >= patience


def _read_timing(path: Path) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame({"epoch": pd.Series(dtype=int)})
    try:
        table = pd.read_csv(path)
        if table.empty and list(table) == ["epoch"]:  # written where no epoch was measured
            return table
        if not {"epoch", "seconds"} <= set(table) or not all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
            raise ValueError("expected numbers in the columns epoch and seconds")
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(
            f"{path}: is damaged ({error}); delete it and go on with --resume: only times of earlier epochs are lost"
        ) from None
    return table


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a CSV file, whole or not at all."""
    write_atomically(path, lambda draft: frame.to_csv(draft, index=False))


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
    except _NO_TABLE as error:
        raise ValueError(f"'{path}' is not a table: {error}; run that part again") from error
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        what = f"column '{missing[0]}' is missing" if missing else "it has no rows"
        raise ValueError(f"'{path}': {what}; expected {', '.join(columns)}; run that part again")
    return frame


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
        commit = subprocess.run(  # nosec B603, B607 # fixed words; whichever git
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


@contextmanager
def _tensorboard(folder: Path, first: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write history rows for TensorBoard, in place of those there are from epoch `first` on; nothing without it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda row: None
        return
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first)

    def write(row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name not in ("stage", "epoch"):
                writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
