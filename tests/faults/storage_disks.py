"""Full and read-only disks."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import Result
from storage_runs import Case, Runs, replaced, results_of, without_report


@contextmanager
def full_at(write: int) -> Iterator[list[str]]:
    """The disk is full when the file number `write` (from 0) is synced; gives the names of all that were."""
    sync, seen = os.fsync, []

    def full(file: int) -> None:
        name = os.readlink(f"/proc/self/fd/{file}")
        if not os.path.isdir(name):
            seen.append(name)
            if len(seen) == write + 1:
                raise OSError(errno.ENOSPC, "No space left on device", name)
        sync(file)

    with replaced(os, "fsync", full):
        yield seen


def try_full(runs: Runs, kind: str, write: int) -> str | None:
    """Let one write of a run fail, then make room and resume. None where all is well; else what is not.

    Raises IndexError where the run has fewer writes.
    """
    out = runs.folder / "full"
    shutil.rmtree(out, ignore_errors=True)
    with without_report(), full_at(write) as seen:
        result = runs.run(kind, out)
    if len(seen) <= write:
        raise IndexError(write)
    return _problem_of_full(runs, kind, out, result, Path(seen[write]).name)


def _problem_of_full(runs: Runs, kind: str, out: Path, result: Result, name: str) -> str | None:
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"{name}: {result.exception!r}"
    expected = runs.expected(Case(kind, "finished", "", "", "resume"))
    if results_of(out, "resume") | {"exit": str(result.exit_code).encode()} == expected:
        return None  # of what only tells others who is at work
    if result.exit_code != 1 or "make room" not in result.output:
        return f"{name}: exit {result.exit_code}: {result.output[-300:]}"
    if list(out.rglob("*draft*")):
        return f"{name}: a draft is left"
    with without_report():
        again = runs.run(kind, out, "--resume")
    now = results_of(out, "resume") | {"exit": str(again.exit_code).encode()}
    return None if now == expected else f"{name}: after resuming something differs: {again.output[-300:]}"


def can_mount() -> bool:
    """Whether this process may mount."""
    if shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system at `folder`, as `mount` is told."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *options, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def read_only(folder: Path) -> Any:
    """`with read_only(folder)`: nothing can be written there, not even by root."""
    return mounted(folder, "--bind", "-o", "ro", str(folder))


def try_small_disk(runs: Runs, kind: str, free: int) -> str | None:
    """A run on a disk with so many bytes free, then with room. None: all is well; "enough": it never was full."""
    with mounted(runs.folder / "disk", "-t", "tmpfs", "-o", "size=32m", "none") as disk:
        ballast = disk / "ballast"
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - free)
        with without_report():
            result = runs.run(kind, disk / "run")
        if result.exit_code == 0:
            return "enough"
        ballast.unlink()
        return _problem_of_full(runs, kind, disk / "run", result, f"{free} bytes")
