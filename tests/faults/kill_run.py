"""Kills real runs again and again, lets them go on, and compares them with runs that nobody disturbed.

    python tests/faults/kill_run.py --kills 200 --seed 0 --out killed.json
    python tests/faults/kill_run.py --kills 50 --signal INT --jobs 2 --out interrupted.json

SIGKILL comes at a drawn moment or inside a drawn write; SIGINT and SIGTERM at drawn moments, and what they end must end
soon, with status 130, in one line and without leaving a process behind. A run that comes to its end is compared, and
another begun, until there were enough kills.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compared_runs import differences, not_byte_for_byte
from dying_writes import Death, DyingWrites, Event
from killed_experiments import Experiment, write_experiments

# What a run imports is there when it is forked from this process.
_HEAVY = ("brainrdl.experiment", "brainrdl.report", "lightning_fabric", "matplotlib.pyplot", "rsatoolbox")
_HEAVY += ("sklearn.datasets", "sklearn.manifold", "statsmodels.stats.multitest", "torchvision", "nibabel", "h5py")
WITHIN = 30.0  # seconds in which an interrupted run must have ended
_EARLY = 0.2  # of the moments, how many may come before a step of the sitting, once the run has its folder
_SHARES = {"task": 0.6, "brain": 0.25, "search": 0.15}


@dataclass
class Report:
    """What was tried and what came of it.

    kills: how many. by_kind: "moment", or file and phase, -> how many. finished: runs that were compared. differing:
    what was not the same in them. refused: what a run said that did not go on. lost: seconds of work between the last
    file that was written and the kill. left_behind: processes that were still there. slow: seconds that interrupted
    runs took to end.
    """

    kills: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    by_experiment: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    differing: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    other_bytes: Counter[str] = field(default_factory=Counter)
    longest_lost: float = 0.0
    slowest_end: float = 0.0
    undisturbed_alike: bool = False

    @property
    def losses(self) -> int:
        """How often something was not as it must be."""
        failed = len(self.differing) + len(self.refused) + len(self.unclear) + len(self.left_behind)
        return failed + (not self.undisturbed_alike)


class Runs:
    """Starts runs of the small experiments, forked from this process, which has imported what they need."""

    def __init__(self, folder: Path, jobs: int) -> None:
        torch.set_num_threads(1)
        for name in _HEAVY:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # else each child's collections look at all that is imported, and copy its pages
        self.folder, self.jobs = folder, jobs
        self.experiments = write_experiments(folder)
        self.log = folder / "log.txt"

    def words(self, experiment: Experiment, out: Path, *others: str) -> list[str]:
        """The command's."""
        of_all = ("--out", str(out), "--accelerator", "cpu")
        return ["run", str(experiment.file), *experiment.words, *of_all, *others]

    def start(self, words: list[str], writes: DyingWrites | None = None) -> int:
        """A process that runs; its id. It is the first of a session of its own."""
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            os.setsid()
            os.chdir(self.folder)
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if writes is not None:
                writes.watch()
            status = _command(words)
            if writes is not None and writes.record is not None:
                writes.write_record()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def undisturbed(self, name: str, out: Path) -> list[tuple[Event, int]]:
        """A run from its beginning to its end, one part after the other; what it wrote."""
        record = out.with_suffix(".json")
        writes = DyingWrites(out, record=record)
        status = wait(self.start(self.words(self.experiments[name], out, "--jobs", "1"), writes))
        if status != 0:
            raise RuntimeError(f"an undisturbed run ended with status {status}: {self.log.read_text()[-2000:]}")
        return [(Event(file, phase), number) for file, phase, number in json.loads(record.read_text())]


def _command(words: list[str]) -> int:
    from brainrdl.cli import app

    sys.argv = ["brainrdl", *words]
    try:
        app(words)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def wait(process: int, seconds: float | None = None) -> int | None:
    """The status with which a process ends, negative for a signal; None where it runs longer than that."""
    give_up = None if seconds is None else time.monotonic() + seconds
    while give_up is None or time.monotonic() < give_up:
        found, status = os.waitpid(process, 0 if give_up is None else os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def session(first: int) -> list[int]:
    """The processes of a session that are still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(own) == first and state != "Z":
            found.append(int(stat.parent.name))
    return found


class Disturber:
    """Runs, kills and compares."""

    def __init__(self, runs: Runs, signals: Sequence[signal.Signals], seed: int, names: list[str]) -> None:
        self.runs, self.signals, self.names = runs, signals, names
        self.random = np.random.default_rng(seed)
        self.report = Report(undisturbed_alike=True)
        self.events: dict[str, list[tuple[Event, int]]] = {}
        self.seconds: dict[str, float] = {}
        self.first: dict[str, float] = {}

    @property
    def signal(self) -> signal.Signals:
        """The next one: they take turns."""
        return self.signals[self.report.kills % len(self.signals)]

    def prepare(self) -> None:
        """Each experiment undisturbed, the first of them twice."""
        for name in self.names:
            begin = time.monotonic()
            self.events[name] = self.runs.undisturbed(name, self.runs.folder / f"{name}-reference")
            self.seconds[name] = time.monotonic() - begin
            marks = self.runs.folder.glob(f"{name}-reference/**/checkpoint/*.pt")
            written = min((mark.stat().st_mtime for mark in marks), default=time.time())
            self.first[name] = max(0.0, self.seconds[name] - (time.time() - written))
        again = self.runs.folder / "again"
        self.runs.undisturbed(self.names[0], again)
        found = differences(again, self.runs.folder / f"{self.names[0]}-reference")
        self.report.undisturbed_alike = not found
        self.report.differing += [f"undisturbed: {one}" for one in found]
        shutil.rmtree(again)

    def go_on_until(self, kills: int) -> Report:
        """Until there were so many kills, and the last run has come to its end."""
        number = 0
        while self.report.kills < kills:
            shares = np.array([_SHARES[name] for name in self.names])
            name = str(self.random.choice(self.names, p=shares / shares.sum()))
            out = self.runs.folder / f"run-{number}"
            number += 1
            while not self._sitting(name, out, self.report.kills < kills):
                pass
            shutil.rmtree(out, ignore_errors=True)
        return self.report

    def _sitting(self, name: str, out: Path, disturbed: bool) -> bool:
        """A run goes on until it is killed or done; whether it needs no further sitting."""
        steps = str(self.random.integers(1, 5))
        words = self.runs.words(self.runs.experiments[name], out, "--resume", "--jobs", str(self.runs.jobs))
        words += ["--checkpoint-steps", steps]
        death, delay = self._draw(name) if disturbed else (None, None)
        begun = time.time()
        process = self.runs.start(words, DyingWrites(out, death) if death else None)
        sign = ".in_use_by.json" if self.random.random() < _EARLY else "checkpoint/*.pt"
        status = None if delay is None else self._wait_for(sign, process, out, begun)
        if status is None:
            status = wait(process, delay)
        if status is None:
            status = self._disturb(process)
        if status == 0:
            self._compare(name, out)
            return True
        if status in (-signal.SIGKILL, 130):
            self._count(name, death, out, begun)
            return False
        self.report.refused.append(f"{name}: status {status}: {self.runs.log.read_text()[-600:]}")
        return True

    def _draw(self, name: str) -> tuple[Death | None, float | None]:
        """A write to die in, or seconds after which the signal comes."""
        moments = self.report.by_kind["moment"]
        if self.signal == signal.SIGKILL and self.report.kills < 2 * moments:  # so that half of them are in writes
            event, n = self.events[name][self.random.integers(len(self.events[name]))]
            number = int(self.random.integers(1, 1 + max(1, n // 8)))
            return Death(event, number, float(self.random.random())), None
        # A sitting is some parts long.
        left = max(0.5, self.seconds[name] - self.first[name])
        return None, float(self.random.uniform(0, left / 4))

    def _wait_for(self, sign: str, process: int, out: Path, begun: float) -> int | None:
        """Wait until there is such a file of this sitting; the status of a run that ends before."""
        give_up = time.monotonic() + WITHIN
        while time.monotonic() < give_up:
            status = wait(process, 0.02)
            if status is not None:
                return status
            with suppress(FileNotFoundError):  # it was replaced in between
                if any(file.stat().st_mtime > begun for file in out.rglob(sign)):
                    return None
        return None

    def _disturb(self, process: int) -> int | None:
        """Send the signal as a terminal or the system does; how the process ended."""
        begin = time.monotonic()
        if self.signal == signal.SIGINT:
            os.killpg(process, self.signal)
        else:
            os.kill(process, self.signal)
        status = wait(process, WITHIN)
        if status is None:
            self.report.left_behind.append(f"still ran after {WITHIN:.0f} s")
            os.killpg(process, signal.SIGKILL)
            return wait(process)
        self.report.slowest_end = max(self.report.slowest_end, time.monotonic() - begin)
        if self.signal != signal.SIGKILL and status != 0:
            told = self.runs.log.read_text()
            line = re.findall(r"^interrupted; .* --resume", told, flags=re.MULTILINE)
            if status != 130 or len(line) != 1 or "Traceback" in told:
                self.report.unclear.append(f"status {status}: {told[-1500:]}")
        give_up = time.monotonic() + 10
        while session(process) and time.monotonic() < give_up:
            time.sleep(0.05)
        for orphan in session(process):
            self.report.left_behind.append(Path(f"/proc/{orphan}/cmdline").read_text().replace("\0", " ")[:200])
            os.kill(orphan, signal.SIGKILL)
        return status

    def _count(self, name: str, death: Death | None, out: Path, begun: float) -> None:
        report = self.report
        report.kills += 1
        report.by_experiment[name] += 1
        report.by_kind["moment" if death is None else f"{death.event.file}: {death.event.phase}"] += 1
        files = [file.stat().st_mtime for file in out.rglob("*") if file.is_file() and ".draft" not in file.name]
        report.longest_lost = max(report.longest_lost, time.time() - max([begun + self.first[name], *files]))

    def _compare(self, name: str, out: Path) -> None:
        reference = self.runs.folder / f"{name}-reference"
        self.report.finished += 1
        self.report.differing += [f"{name}: {one}" for one in differences(out, reference)]
        for other in not_byte_for_byte(out, reference):
            self.report.other_bytes["report/" if "report/" in other else Path(other).name] += 1


def try_kills(
    kills: int, seed: int, signals: Sequence[signal.Signals], jobs: int = 1, only: list[str] | None = None
) -> Report:
    """Disturb runs so often."""
    with tempfile.TemporaryDirectory() as place:
        runs = Runs(Path(place), jobs)
        disturber = Disturber(runs, signals, seed, only or list(_SHARES))
        disturber.prepare()
        return disturber.go_on_until(kills)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", nargs="+", choices=["KILL", "INT", "TERM"], default=["KILL"], help="in turn")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(_SHARES))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    begin = time.monotonic()
    signals = [signal.Signals[f"SIG{name}"] for name in given.signal]
    report = try_kills(given.kills, given.seed, signals, given.jobs, given.only)
    told: dict[str, Any] = {
        "signal": " ".join(given.signal),
        "seed": given.seed,
        "jobs": given.jobs,
        "losses": report.losses,
        **vars(report),
        "minutes": round((time.monotonic() - begin) / 60, 1),
    }
    if given.out is not None:
        given.out.write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told, indent=2))
    sys.exit(1 if report.losses else 0)


if __name__ == "__main__":
    main()
