"""Small runs of each kind, finished and interrupted, for faults of storage to be planted in."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import Result
from tiny_experiments import NETWORK, OF_BRAIN, call, write_brain, write_yaml

from brainrdl.run_folder import HistoryFiles

TASK = {
    "name": "task",
    "data": {"spec": "digits", "train": 60, "validation": 40, "test": 60},
    "student": NETWORK,
    "teacher": {**NETWORK, "deformed": {"train": 60, "validation": 40}, "training": {"epochs": 1, "batch_size": 30}},
    "training": {"epochs": 3, "batch_size": 30, "learning_rate": 0.05},
    "methods": {
        "baseline": None,
        "finetuning": None,
        "rdl": {"layers": {"fc": "fc"}, "pairs": 50},
    },
    "seeds": [0],
    "analysis": {"layers": ["fc"], "n_per_class": 2, "every": 1},
}
SEARCH = {
    **TASK,
    "name": "search",
    "methods": {"baseline": None, "rdl": {"layers": {"fc": "fc"}, "pairs": 50}},
    "search": {"trials": 2, "epochs": 1, "methods": {"rdl": {"alpha": [0.1, 1.0, 3.0]}}},
}
KINDS, STATES, COMMANDS = ("task", "brain", "search"), ("finished", "interrupted"), ("resume", "report", "figure")
# Of equal runs, too: times, the machine, who made the file. What resumes a training is compared by what it leads to.
_DIFFER = re.compile(
    r"timing\.csv|environment\.json|choosing\.json|checksums\.json|part\.json|\..*lock|.*\.pt|.*\.tfevents.*"
)


class Case(NamedTuple):
    """kind: of the run. state: of it. file: below its folder. fault: how it is damaged. command: that meets it."""

    kind: str
    state: str
    file: str
    fault: str
    command: str


class Runs:
    """Small runs of each kind and state, made when they are first asked for, with what each command makes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[tuple[str, str], Path] = {}
        self._expected: dict[tuple[str, str, str], dict[str, bytes]] = {}

    def file(self, kind: str) -> Path:
        """The experiment file."""
        path = self.folder / f"{kind}.yaml"
        if not path.exists():
            settings = {"task": TASK, "search": SEARCH}.get(kind) or _brain_experiment(self.folder)
            write_yaml(path, settings)
        return path

    def run(self, kind: str, out: Path, *words: str) -> Result:
        """`brainrdl run` of the kind."""
        search = ("--search",) if kind == "search" else ()
        return call("run", self.file(kind), "--out", out, "--accelerator", "cpu", "--jobs", "1", *search, *words)

    def made(self, kind: str, state: str) -> Path:
        """The folder of an undamaged run."""
        if (kind, state) not in self._made:
            out = self.folder / f"{kind}-{state}"
            with without_report(), _interrupted() if state == "interrupted" else as_it_is():
                result = self.run(kind, out)
            assert result.exit_code == (130 if state == "interrupted" else 0), result.output
            self._made[kind, state] = out
        return self._made[kind, state]

    def expected(self, case: Case) -> dict[str, bytes]:
        """What the command makes of the undamaged run."""
        key = (case.kind, "finished" if case.command == "resume" else case.state, case.command)
        if key not in self._expected:
            whole = self.folder / "tried"  # where the damaged copies will be: a report names its run
            shutil.rmtree(whole, ignore_errors=True)
            shutil.copytree(self.made(case.kind, case.state), whole)
            result = self.command(case, whole)
            self._expected[key] = results_of(whole, case.command) | {"exit": str(result.exit_code).encode()}
        return self._expected[key]

    def command(self, case: Case, out: Path) -> Result:
        """The command of the case, of the folder `out`."""
        if case.command == "resume":
            with without_report():
                return self.run(case.kind, out, "--resume")
        if case.command == "report":
            return call("report", out, "--format", "png")
        return call("figure", "rdm", out, "--out", out.parent / "figure.png")


def results_of(out: Path, command: str) -> dict[str, bytes]:
    """What is compared of a run: file -> content."""
    if command == "figure":
        picture = out.parent / "figure.png"
        return {"figure.png": picture.read_bytes() if picture.exists() else b""}
    if command == "report":
        kept = (".csv", ".md", ".html")
        return {file.name: file.read_bytes() for file in sorted((out / "report").glob("*")) if file.suffix in kept}
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and "report" not in file.parts and not _DIFFER.fullmatch(file.name)
    }


def files_of(out: Path, part: str = "") -> list[str]:
    """The files of a run that hold something, without its report; part: only those below."""
    return [
        file.relative_to(out).as_posix()
        for file in sorted((out / part).rglob("*"))
        if file.is_file() and "report" not in file.relative_to(out).parts and not file.name.endswith(".lock")
    ]


@contextmanager
def as_it_is() -> Iterator[None]:
    yield


@contextmanager
def replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


@contextmanager
def without_report() -> Iterator[None]:
    """`brainrdl run` ends without one: it is a command of its own here."""
    from brainrdl import report

    with (
        replaced(report, "write_report", lambda folder: None),
        replaced(report, "results_table", lambda folder: _Nothing()),
    ):
        yield


class _Nothing:
    def __len__(self) -> int:
        return 0


@contextmanager
def _interrupted() -> Iterator[None]:
    """The last method's training ends by Ctrl-C after two of its epochs."""
    add = HistoryFiles.add

    def stop(self: HistoryFiles, row: dict[str, Any], timing: dict[str, float]) -> None:
        add(self, row, timing)
        if row["epoch"] == 1 and UNFINISHED.search(self.folder.as_posix()):
            self.write()
            raise KeyboardInterrupt

    with replaced(HistoryFiles, "add", stop):
        yield


UNFINISHED = re.compile(r"/(rdl|rdl\.trial-1|task_brain/cnn)/")


REPEATED = re.compile(r"fold-1/|\.trial-0/|^untrained/|^brain/|^baseline/")  # parts with the files that others have


def unfinished_part(out: Path) -> Path:
    """The folder of the training that was interrupted."""
    (part,) = (
        marker.parent for marker in out.rglob("part.json") if not json.loads(marker.read_text("utf-8"))["finished"]
    )
    return part


def _brain_experiment(folder: Path) -> dict[str, Any]:
    """An experiment with brains as teachers, and its data."""
    specs = [str(write_brain(folder, name, 12, seed)) for seed, name in enumerate(("taught", "scored"))]
    pull = {"teacher": "it", "layers": {"fc": "IT"}, "alpha": 1.0, "decay": "constant"}
    return {
        "name": "brain",
        "stimuli": {"spec": specs[0], "categories": "category"},
        "students": {"cnn": OF_BRAIN},
        "teachers": {"it": {"spec": specs[0]}},
        "task": {"column": "category"},
        "training": {"epochs": 3, "optimizer": "adamw", "learning_rate": 0.01, "schedule": "constant"},
        "folds": {"n": 2},
        "choose": {"inner": 2, "grid": {"alpha": [0.5, 5.0]}},
        "methods": {"untrained": {}, "brain": {**pull, "choose": False}, "task_brain": {**pull, "task_weight": 1.0}},
        "score": {"spec": specs[1], "layers": ["fc"]},
        "seeds": [0],
    }
