"""Files of a run: written whole or not at all, with checksums, and a fingerprint of what determines them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Of a folder that cannot be synced: some file systems, and Windows, know no such thing.
_NO_SUCH_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)
_DRAFT = re.compile(r"\..+\.(\d+)\.draft(\..*)?")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, sync it and rename it: a reader never sees half a file.

    What stood at `path` before is kept when anything fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays: some writers go by it.
    draft = path.with_name(f".{path.stem}.{os.getpid()}.draft{path.suffix}")
    try:
        with naming_file(path, draft):
            write(draft)
            with open(draft, "rb") as file:
                os.fsync(file.fileno())
            os.replace(draft, path)
            _sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def naming_file(path: Path, draft: Path | None = None) -> Iterator[None]:
    """An error of the system that names no file, or only the draft of this one, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or str(error.filename) == str(draft)):
            error.filename = str(path)
        raise


def remove_drafts(folder: Path) -> None:
    """Delete what killed processes of this machine left half-written below a folder that only this one writes to."""
    for file in folder.rglob(".*.draft*"):
        named = _DRAFT.fullmatch(file.name)
        if named and file.is_file() and (int(named[1]) == os.getpid() or not is_running(int(named[1]))):
            file.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether this machine has a process of that number; True where that cannot be asked."""
    if os.name == "nt":  # there, the question would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a renamed file's new name last, where the system can."""
    try:
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        if error.errno not in _NO_SUCH_SYNC:
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_atomically(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file from memory, whole or not at all.

    What is made in memory first meets a full disk here, as an OSError, and not inside the library that made it.
    """
    write_atomically(path, lambda draft: draft.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ValueError naming it where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); delete it to have it made anew") from None


def checksum(path: Path) -> dict[str, Any]:
    """bytes and sha256 of a file's content."""
    with open(path, "rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def damage(path: Path, expected: dict[str, Any]) -> str | None:
    """In words, what has become of a file since `checksum` gave `expected`; None where it is the same."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != expected["bytes"]:
        return f"has {size} bytes, not the {expected['bytes']} that were written"
    return None if checksum(path) == expected else "has another content than was written"


def write_marked(path: Path, value: dict[str, Any]) -> None:
    """As `write_json`, with a fingerprint by which `read_marked` tells that nothing of it has changed."""
    value = json.loads(json.dumps(value))  # as it will be read
    write_json(path, {**value, "fingerprint": fingerprint(value)})


def read_marked(path: Path, keys: tuple[str, ...], remedy: str) -> dict[str, Any]:
    """What `write_marked` wrote, or an older file without a fingerprint, which has these keys.

    remedy: for the message. Raises ValueError naming the file where it is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); {remedy}") from None
    if not isinstance(value, dict) or not set(keys) <= set(value):
        raise ValueError(f"{path}: expected the keys {', '.join(keys)}; {remedy}")
    if value.pop("fingerprint", fingerprint(value)) != fingerprint(value):
        raise ValueError(f"{path}: has another content than was written; {remedy}")
    return value


def fingerprint(value: Any) -> str:
    """SHA-256 of a value made of dicts, lists, strings and numbers, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def first_difference(before: Any, now: Any, where: str = "") -> str | None:
    """The first setting in which two nested values differ, as "training.epochs: 5 before, 6 now"; None where equal."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            path = f"{where}.{key}" if where else str(key)
            if key not in before or key not in now:
                value = before.get(key, now.get(key))
                return f"{path}: {value!r} {'before, absent now' if key in before else 'now, absent before'}"
            difference = first_difference(before[key], now[key], path)
            if difference:
                return difference
        return None
    return None if before == now else f"{where}: {before!r} before, {now!r} now"
