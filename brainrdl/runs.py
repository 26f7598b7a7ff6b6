"""Files of a run: written whole or not at all, with a fingerprint of what determines them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, sync it and rename it: a reader never sees half a file.

    What stood at `path` before is kept when anything fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays: some writers go by it.
    draft = path.with_name(f".{path.stem}.{os.getpid()}.draft{path.suffix}")
    try:
        write(draft)
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


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
