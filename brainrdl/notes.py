"""What should be known of a result and is no error: warned of in the library, kept beside the result in a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from brainrdl.runs import write_text

NOTES = "notes.txt"  # of a run, and of each of its parts


class ResultWarning(UserWarning):
    """A result may not mean what it seems to mean; the message says why. Runs keep it as a note."""


def warn_result(message: str, stacklevel: int = 1) -> None:
    """Warn that a result may not mean what it seems to; of several processes the first does.

    stacklevel: 1 is whoever calls this.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank()):
        warnings.warn(message, ResultWarning, stacklevel=stacklevel + 1)


@contextmanager
def noting(note: Callable[[str], object]) -> Iterator[None]:
    """Inside, `note` is called with the message of every `ResultWarning`, in its place; others stay as they are.

    What is warned of again is noted again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", ResultWarning)
        show = warnings.showwarning

        def noted(message: Warning | str, category: type[Warning], *where: Any, **others: Any) -> None:
            if issubclass(category, ResultWarning):
                note(str(message))
            else:
                show(message, category, *where, **others)

        warnings.showwarning = noted
        yield


def read_notes(folder: Path) -> list[str]:
    """The notes that a folder keeps, in the order they came; none where there is no such file."""
    path = folder / NOTES
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def run_notes(run: Path) -> list[str]:
    """The notes of a run and of all its parts, each once, with the parts that it is of."""
    parts: dict[str, list[str]] = {}
    for file in sorted(run.rglob(NOTES)):
        if file.parent != run:
            for note in read_notes(file.parent):
                parts.setdefault(note, []).append(file.parent.relative_to(run).as_posix())
    own = read_notes(run)
    return own + [f"{note} ({_some(folders)})" for note, folders in parts.items() if note not in own]


def _some(folders: list[str]) -> str:
    more = len(folders) - 1
    return folders[0] + (f" and {more} other{'s' * (more > 1)}" if more else "")


def keep_note(folder: Path, note: str) -> bool:
    """Add a note to those of a folder; whether it is new. Each stands there once, in a line."""
    line = " ".join(note.split())
    kept = read_notes(folder)
    if line in kept:
        return False
    write_text(folder / NOTES, "".join(f"{one}\n" for one in [*kept, line]))
    return True


@contextmanager
def keeping_notes(folder: Path, writes: bool = True) -> Iterator[None]:
    """Inside, every `ResultWarning` becomes a note of the folder, at once; in processes that do not write, nothing."""
    with noting(lambda note: keep_note(folder, note) if writes else None):
        yield
