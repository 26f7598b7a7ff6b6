"""Checkpoints: everything needed to go on where a training stopped, whole or known to be damaged."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from brainrdl.runs import write_bytes

_FORMAT = 2
_WITHOUT_CHECKSUM = 1  # how versions before wrote them; what they hold is the state after an epoch
_TRAILER = b"\nbrainrdl checkpoint, SHA-256 of all before: "
_N_TRAILER = len(_TRAILER) + 64


class Found(NamedTuple):
    """state: of the newest whole checkpoint. note: what is to be told of a newer one that is damaged, or empty."""

    state: dict[str, Any]
    note: str


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint before the newest one is kept: last.previous.pt beside last.pt."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def has_checkpoint(path: Path) -> bool:
    """Whether there is something to go on from, damaged or not."""
    return path.exists() or previous_checkpoint(path).exists()


def save_checkpoint(path: Path, state: dict[str, Any], keep_last: bool = False) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts), with a checksum of the file.

    keep_last: what is at `path` is whole, and is kept as the previous one. At every moment `path` is a whole file.
    """
    buffer = io.BytesIO()
    torch.save({"format": _FORMAT, **state}, buffer)
    buffer.write(_TRAILER + hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    if keep_last and path.exists():
        _keep(path, previous_checkpoint(path))
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one checkpoint, on the CPU, running no code from it. Raises ValueError naming a damaged or foreign file."""
    content = path.read_bytes()
    body, trailer = content[:-_N_TRAILER], content[-_N_TRAILER:]
    checked = trailer.startswith(_TRAILER)
    if checked and trailer[len(_TRAILER) :].decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
        raise ValueError(f"checkpoint {path} is damaged (its checksum is another)")
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(body if checked else content), map_location="cpu", weights_only=True
        )
    except Exception as error:  # whatever unpickling meets
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read ({reason})") from None
    if not isinstance(state, dict) or state.get("format") != (_FORMAT if checked else _WITHOUT_CHECKSUM):
        raise ValueError(f"{path} is no checkpoint of this version")
    return state


def newest_checkpoint(path: Path) -> Found | None:
    """The newest whole checkpoint, the one before where that is damaged; None where there is neither.

    Raises ValueError naming both where neither can be read.
    """
    previous = previous_checkpoint(path)
    if not has_checkpoint(path):
        return None
    try:
        if not path.exists():
            raise ValueError(f"checkpoint {path} is missing")
        return Found(load_checkpoint(path), "")
    except ValueError as error:
        told = str(error)
    if not previous.exists():
        raise ValueError(f"{told}; delete it to start this training again")
    try:
        return Found(load_checkpoint(previous), f"{told}; going on from the one before, {previous.name}")
    except ValueError as error:
        raise ValueError(f"{told}, and {error}; delete both to start this training again") from None


def _keep(path: Path, previous: Path) -> None:
    """Let `previous` be what `path` is, in no moment without one of the two."""
    draft = previous.with_name(f".{previous.stem}.{os.getpid()}.draft{previous.suffix}")
    draft.unlink(missing_ok=True)
    try:
        try:
            os.link(path, draft)
        except OSError:  # a file system without hard links, or a full one: then the copy says so
            shutil.copyfile(path, draft)
        os.replace(draft, previous)
    finally:
        draft.unlink(missing_ok=True)  # still there where both were the same file already
